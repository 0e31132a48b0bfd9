// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// DefaultDeletionWindow is used if DeletionWindow is zero.
const DefaultDeletionWindow = 60 * time.Second

// Ownership determines what this member may work on.
type Ownership interface {
	// State returns what this member may do with a point of the hash space. It is called at
	// each event, from many goroutines, with a lock of the informer held: it must be cheap
	// and must not block.
	State(point uint64) ring.State
}

// ReleaseHandler is an optional interface of a handler that needs to know when this member
// loses an object to another member, for example to free what it keeps per object. A handler
// that is added by AddTypedEventHandler cannot be a ReleaseHandler: client-go hides it behind
// an adapter.
type ReleaseHandler interface {
	cache.ResourceEventHandler
	// OnReleased is called with the object as the handler last saw it. No more events of the
	// object are delivered until the handler sees it by OnAdd again.
	OnReleased(obj any)
}

// Options configure [Wrap].
type Options struct {
	// Ownership determines what is delivered. Required.
	Ownership Ownership
	// Point returns an object's point of the hash space. Required. It is called from many
	// goroutines, once or twice for each event and handler and once for each stored object
	// at a replay; never with a cache.DeletedFinalStateUnknown. Objects for which it returns
	// an error belong to no member.
	Point func(obj any) (uint64, error)
	// DeletionWindow is how long deletions are remembered, with the objects, in case their
	// partition becomes active (guarantee I4). Zero means [DefaultDeletionWindow]. A negative
	// value means that deletions are not remembered.
	DeletionWindow time.Duration
	// Recorder counts the outcomes of events. Nil means none.
	Recorder Recorder
}

// Informer is a cache.SharedIndexInformer that shows its handlers only what this member may
// work on. Create it with [Wrap].
//
// Everything but the registration of handlers is the inner informer's. It may be run through
// either of the two, or by the factory that the inner informer comes from. Its store holds
// all objects, whichever member owns them.
type Informer struct {
	cache.SharedIndexInformer
	ownership Ownership
	point     func(any) (uint64, error)
	window    time.Duration
	recorder  Recorder

	replaying  atomic.Bool
	registered chan struct{} // capacity 1: notifies Replay that a filter was registered

	// mu guards the fields below. It is held only briefly, and never while a handler or the
	// inner informer is called, so that Activated and Released do not block.
	mu      sync.Mutex
	filters []*filter
}

// Wrap returns an informer that filters what its handlers see of inner. The inner informer
// may already be started and may have handlers of its own: those continue to see everything.
// Wrap starts nothing; see [Informer.Replay]. It panics without Ownership or Point.
func Wrap(inner cache.SharedIndexInformer, o Options) *Informer {
	if o.Ownership == nil || o.Point == nil {
		panic("informer: Wrap needs Options.Ownership and Options.Point")
	}
	if o.DeletionWindow == 0 {
		o.DeletionWindow = DefaultDeletionWindow
	}
	return &Informer{
		SharedIndexInformer: inner,
		ownership:           o.Ownership,
		point:               o.Point,
		window:              o.DeletionWindow,
		recorder:            o.Recorder,
		registered:          make(chan struct{}, 1),
	}
}

// AddEventHandler adds a handler that sees what this member may work on. See
// cache.SharedInformer. The returned handle belongs to this informer and not to the inner
// one.
func (i *Informer) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return i.register(handler, nil, i.SharedIndexInformer.AddEventHandler)
}

// AddEventHandlerWithResyncPeriod is AddEventHandler with the handler's own resync period.
// Resyncs deliver the objects that this member may work on.
func (i *Informer) AddEventHandlerWithResyncPeriod(handler cache.ResourceEventHandler, resyncPeriod time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return i.register(handler, nil, func(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
		return i.SharedIndexInformer.AddEventHandlerWithResyncPeriod(h, resyncPeriod)
	})
}

// AddEventHandlerWithOptions is AddEventHandler with the handler's own resync period and
// logger.
func (i *Informer) AddEventHandlerWithOptions(handler cache.ResourceEventHandler, options cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	return i.register(handler, options.Logger, func(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
		return i.SharedIndexInformer.AddEventHandlerWithOptions(h, options)
	})
}

func (i *Informer) register(handler cache.ResourceEventHandler, logger *klog.Logger, add func(cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error)) (cache.ResourceEventHandlerRegistration, error) {
	f := newFilter(i, handler, logger)
	// Add the filter to i.filters first, then to the inner informer. In the opposite order, a
	// partition could become active after the filter has dropped one of its objects and
	// before Activated can find the filter.
	i.mu.Lock()
	i.filters = append(i.filters, f)
	i.mu.Unlock()
	inner, err := add(f)
	if err != nil {
		i.forget(f)
		return nil, err
	}
	i.mu.Lock()
	f.registered = true
	i.mu.Unlock()
	select {
	case i.registered <- struct{}{}:
	default: // a notification is already pending
	}
	return newRegistration(f, inner), nil
}

// RemoveEventHandler removes a handler. Like the inner informer's, it is asynchronous: a call
// that is under way continues; use cache.ShutDownEventHandler to wait for it.
func (i *Informer) RemoveEventHandler(handle cache.ResourceEventHandlerRegistration) error {
	if r, ok := handle.(interface{ of() *registration }); ok {
		i.forget(r.of().filter)
		handle = r.of().ResourceEventHandlerRegistration
	}
	return i.SharedIndexInformer.RemoveEventHandler(handle)
}

// forget ends the replays of a filter. It ignores a filter of another informer.
func (i *Informer) forget(f *filter) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if at := slices.Index(i.filters, f); at >= 0 {
		i.filters = slices.Delete(i.filters, at, at+1)
		close(f.removed)
	}
}

// Objects counts the stored objects by what this member may do with them, indexed by
// ring.State. Objects without a point count as not owned. It hashes each stored object once:
// about 5 ms for 100,000 objects.
func (i *Informer) Objects() (count [ring.Active + 1]int) {
	for _, obj := range i.GetStore().List() {
		state := ring.NotOwned
		if point, err := i.point(obj); err == nil {
			state = min(i.ownership.State(point), ring.Active)
		}
		count[state]++
	}
	return count
}

// registration is the handle of a handler: the inner informer's handle, which also waits for
// replayed calls.
type registration struct {
	cache.ResourceEventHandlerRegistration // the inner informer's
	filter                                 *filter
}

func (r *registration) of() *registration { return r }

// stoppable is a registration that works with cache.ShutDownEventHandler.
type stoppable struct {
	*registration
	inner interface{ ShutdownChan() <-chan struct{} }
}

func newRegistration(f *filter, inner cache.ResourceEventHandlerRegistration) cache.ResourceEventHandlerRegistration {
	r := &registration{inner, f}
	if s, ok := inner.(interface{ ShutdownChan() <-chan struct{} }); ok {
		return &stoppable{r, s}
	}
	return r
}

// ShutdownChan returns a channel that is closed when a removed handler is no longer called.
// First it waits for a call that a replay is making, because the inner informer's channel
// does not cover that. Like cache.ShutDownEventHandler, which calls it, it must not be called
// by the handler itself.
func (s *stoppable) ShutdownChan() <-chan struct{} {
	s.filter.mu.Lock() // a replay that locks it next sees that the filter was removed
	defer s.filter.mu.Unlock()
	return s.inner.ShutdownChan()
}
