// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"strings"

	"k8s.io/client-go/tools/cache"
)

// registration is the handle of a handler: the inner informer's handle, which also waits for
// replayed calls.
type registration struct {
	cache.ResourceEventHandlerRegistration // the inner informer's
	filter                                 *filter
	name                                   string // of the handler, as client-go names it
}

// FirstReplay returns a checker that is done when the handler of a registration has been shown
// what this member owned first: the first call of Activated was processed for it, also if the
// set was empty. For a handler that was added later, HasSynced covers that, and the checker is
// done at once. It is also done when the handler is removed. It returns nil for a registration that does not come from an [Informer].
func FirstReplay(handle cache.ResourceEventHandlerRegistration) cache.DoneChecker {
	r, ok := handle.(interface{ of() *registration })
	if !ok {
		return nil
	}
	return checker{"first replay to event handler " + r.of().name, r.of().filter.replayed}
}

type checker struct {
	name string
	done <-chan struct{}
}

func (c checker) Name() string          { return c.name }
func (c checker) Done() <-chan struct{} { return c.done }

func (r *registration) of() *registration { return r }

// HasSyncedChecker is the inner informer's, with the name of the handler.
func (r *registration) HasSyncedChecker() cache.DoneChecker {
	inner := r.ResourceEventHandlerRegistration.HasSyncedChecker()
	informer, _, _ := strings.Cut(inner.Name(), separator)
	return checker{informer + separator + r.name, inner.Done()}
}

const separator = " + event handler "

// handlerName returns the name that client-go would give a handler. Only client-go knows it,
// so it is asked for it with an informer that never runs.
func handlerName(handler cache.ResourceEventHandler) string {
	handle, err := cache.NewSharedIndexInformer(nil, nil, 0, nil).AddEventHandler(handler)
	if err != nil {
		return ""
	}
	_, name, _ := strings.Cut(handle.HasSyncedChecker().Name(), separator)
	return name
}

// stoppable is a registration that works with cache.ShutDownEventHandler.
type stoppable struct {
	*registration
	inner interface{ ShutdownChan() <-chan struct{} }
}

func newRegistration(f *filter, inner cache.ResourceEventHandlerRegistration, name string) cache.ResourceEventHandlerRegistration {
	r := &registration{inner, f, name}
	if s, ok := inner.(interface{ ShutdownChan() <-chan struct{} }); ok {
		return &stoppable{r, s}
	}
	return r
}

// ShutdownChan returns a channel that is closed when a removed handler is no longer called, by
// the stream or by a replay.
func (s *stoppable) ShutdownChan() <-chan struct{} {
	select {
	case <-s.filter.removed:
		return s.filter.finished
	default: // not removed: closed when the informer has stopped
		return s.inner.ShutdownChan()
	}
}
