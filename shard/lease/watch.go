// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"sync"
	"sync/atomic"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/claim"
)

// Watch shows all Leases of a ring, by a client-go informer on one namespace and
// one label selector.
type Watch struct {
	cfg      Config
	informer cache.SharedIndexInformer
	restart  atomic.Pointer[chan struct{}] // closed by Relist; replaced for each stream
}

// NewWatch returns a watch that [Watch.Run] starts. clientset is the one
// that cfg.Leases belongs to: client-go asks it whether it can stream lists.
func NewWatch(cfg Config, clientset any) *Watch {
	w := &Watch{cfg: cfg}
	w.informer = cache.NewSharedIndexInformer(
		cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				o.LabelSelector = cfg.Selector()
				return cfg.Leases.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				o.LabelSelector = cfg.Selector()
				stream, err := cfg.Leases.Watch(ctx, o)
				if err != nil {
					return nil, err
				}
				return w.restartable(stream), nil
			},
		}, clientset),
		&coordinationv1.Lease{}, 0, cache.Indexers{})
	return w
}

// Run watches until the context is done, and calls deliver with [claim.Observed]
// and [claim.Vanished] events from one goroutine, in order. failed is told of
// each error of a list or watch. Run returns after everything that it started
// has ended. It may be called once.
func (w *Watch) Run(ctx context.Context, deliver func(claim.Event), failed func(error)) error {
	shown := map[string]claim.Lease{} // by name; only the handler's goroutine uses it
	observed := func(obj any) {
		l, ok := obj.(*coordinationv1.Lease)
		if !ok {
			return
		}
		decoded, err := w.cfg.decode(l)
		if err == nil {
			shown[l.Name] = decoded
			deliver(claim.Observed{Lease: decoded})
		} else if last, was := shown[l.Name]; was {
			// Somebody took the record off a Lease: its member may still be at work.
			delete(shown, l.Name)
			deliver(claim.Vanished{Last: last})
		}
	}
	registration, err := w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    observed,
		UpdateFunc: func(_, obj any) { observed(obj) },
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			l, ok := obj.(*coordinationv1.Lease)
			if !ok {
				return
			}
			last, was := shown[l.Name]
			delete(shown, l.Name)
			if decoded, err := w.cfg.decode(l); err == nil {
				last, was = decoded, true // the final state
			}
			if was {
				deliver(claim.Vanished{Last: last})
			}
		},
	})
	if err != nil {
		return err
	}
	if err := w.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		failed(err) // in the place of client-go's handler, which would log it too
	}); err != nil {
		return err
	}
	w.informer.RunWithContext(ctx)
	return w.informer.RemoveEventHandler(registration)
}

// Leases returns those that the watch shows at the moment.
func (w *Watch) Leases() []claim.Lease {
	var leases []claim.Lease
	for _, obj := range w.informer.GetStore().List() {
		if l, ok := obj.(*coordinationv1.Lease); ok {
			if decoded, _, err := Decode(l, w.cfg.Ring); err == nil {
				leases = append(leases, decoded)
			}
		}
	}
	return leases
}

// Relist makes the watch start again from a list, on a new stream: the present
// one may be a connection that is dead without an error. It does nothing if there
// is no stream.
func (w *Watch) Relist() {
	if c := w.restart.Swap(nil); c != nil {
		close(*c)
	}
}

// restartable passes a stream on until Relist asks for another. It then answers
// as the API server does when a version has become too old, because that is what
// makes a reflector list again instead of resuming.
func (w *Watch) restartable(inner watch.Interface) watch.Interface {
	restart := make(chan struct{})
	w.restart.Store(&restart)
	s := &stream{inner: inner, events: make(chan watch.Event), stopped: make(chan struct{})}
	go s.pass(restart)
	return s
}

// stream is a watch that can be ended from outside. Its goroutine lives as long
// as the reflector, under Watch.Run, uses it.
type stream struct {
	inner   watch.Interface
	events  chan watch.Event
	stopped chan struct{}
	once    sync.Once
}

func (s *stream) ResultChan() <-chan watch.Event { return s.events }

func (s *stream) Stop() { s.once.Do(func() { close(s.stopped); s.inner.Stop() }) }

func (s *stream) pass(restart <-chan struct{}) {
	defer close(s.events)
	for {
		var event watch.Event
		var more bool
		select {
		case <-s.stopped:
			return
		case <-restart:
			s.inner.Stop()
			event = watch.Event{Type: watch.Error, Object: expired()}
		case event, more = <-s.inner.ResultChan():
			if !more {
				return
			}
		}
		select {
		case s.events <- event:
			if event.Type == watch.Error {
				return
			}
		case <-s.stopped:
			return
		}
	}
}

func expired() *metav1.Status {
	status := apierrors.NewResourceExpired("the watch of the Leases was started again").Status()
	return &status
}
