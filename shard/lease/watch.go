// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/claim"
)

// Watch shows all Leases of a ring, by a client-go reflector on one namespace and
// one label selector.
//
// It is not an informer, because of how long those wait: after an outage of a
// minute, or when the watch was started again a few times, an informer tries again
// only after half a minute, and until then this member would gain nothing. The
// reflector here waits a second at the most.
type Watch struct {
	cfg       Config
	reflector *cache.Reflector
	restart   atomic.Pointer[func()] // called by Relist, once; replaced for each request and each stream

	// Set by Run before the reflector starts, used on its goroutine.
	deliver func(claim.Event)
	failed  func(error)

	mu    sync.Mutex
	shown map[string]claim.Lease // by name; guarded by mu, written by the reflector's goroutine alone
}

// NewWatch returns a watch that [Watch.Run] starts. clientset is the one
// that cfg.Leases belongs to: client-go asks it whether it can stream lists.
func NewWatch(cfg Config, clientset any) *Watch {
	w := &Watch{cfg: cfg, shown: map[string]claim.Lease{}}
	backoff := retry
	w.reflector = cache.NewReflectorWithOptions(
		cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				o.LabelSelector = cfg.Selector()
				list, done, err := persist(ctx, w, func(ctx context.Context) (runtime.Object, error) { return cfg.Leases.List(ctx, o) })
				done()
				return list, err
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				o.LabelSelector = cfg.Selector()
				stream, done, err := persist(ctx, w, func(ctx context.Context) (watch.Interface, error) { return cfg.Leases.Watch(ctx, o) })
				if err != nil {
					done()
					return nil, err
				}
				return w.restartable(stream, done), nil
			},
		}, clientset),
		&coordinationv1.Lease{}, (*store)(w), cache.ReflectorOptions{
			Name:    "leases of ring " + cfg.Ring,
			Backoff: &backoff, // when a stream has ended and can't be resumed
		})
	return w
}

// Run watches until the context is done, and calls deliver with [claim.Observed]
// and [claim.Vanished] events from one goroutine, in order. failed is told of
// each error of a list or watch, from any goroutine. Run returns nil, after
// everything that it started has ended. It may be called once.
func (w *Watch) Run(ctx context.Context, deliver func(claim.Event), failed func(error)) error {
	w.deliver, w.failed = deliver, failed
	w.reflector.RunWithContext(ctx)
	return nil
}

// retry is how long is waited between two tries: up to a second, and half of it.
var retry = wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 10, Cap: time.Second}

// errRelist is why a request has ended that Relist did not wait for.
var errRelist = errors.New("there was no answer, and the watch is to start again")

// persist sends a request until it is answered by something that the reflector can
// go on from. Whatever else it were told, it would hand to the process's global
// error handlers before it tries again.
//
// Relist breaks off a request that has no answer yet: client-go sets no time limit for
// lists and watches, and a server may never answer. done must be called when the answer,
// or the stream that it is, is not needed any more.
func persist[T any](ctx context.Context, w *Watch, request func(context.Context) (T, error)) (answer T, done context.CancelFunc, err error) {
	backoff := retry
	for {
		attempt, cancel := context.WithCancelCause(ctx)
		done = func() { cancel(nil) }
		breakOff := func() { cancel(errRelist) }
		w.restart.Store(&breakOff)
		answer, err = request(attempt)
		if err == nil || ctx.Err() != nil {
			return answer, done, err
		}
		if attempt.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(attempt), err)
		}
		w.failed(err)
		switch {
		case apierrors.IsResourceExpired(err), apierrors.IsGone(err), // list anew
			apierrors.IsTimeout(err),                              // the cache is behind the version asked for
			apierrors.IsInvalid(err), apierrors.IsBadRequest(err): // lists can't be streamed
			return answer, done, err
		}
		done()
		select {
		case <-time.After(backoff.Step()):
		case <-ctx.Done():
			return answer, done, err
		}
	}
}

// Leases returns those that the watch shows at the moment.
func (w *Watch) Leases() []claim.Lease {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Values(w.shown))
}

// store is what the reflector writes to. It turns what comes into events.
type store Watch

func (s *store) Add(obj any) error { return s.Update(obj) }

func (s *store) Update(obj any) error {
	l, ok := obj.(*coordinationv1.Lease)
	if !ok {
		return fmt.Errorf("watch of Leases: unexpected object %T", obj)
	}
	decoded, err := s.cfg.decode(l)
	if err != nil {
		// Somebody took the record off a Lease: its member may still be at work.
		s.vanish(l.Name, nil)
		return nil
	}
	s.mu.Lock()
	last, was := s.shown[l.Name]
	s.mu.Unlock()
	if was && last.UID != decoded.UID {
		s.vanish(l.Name, nil) // a list shows that it was deleted and made again
	}
	s.mu.Lock()
	s.shown[l.Name] = decoded
	s.mu.Unlock()
	s.deliver(claim.LeaseObserved{Lease: decoded})
	return nil
}

func (s *store) Delete(obj any) error {
	l, ok := obj.(*coordinationv1.Lease)
	if !ok {
		return fmt.Errorf("watch of Leases: unexpected object %T", obj)
	}
	if final, err := s.cfg.decode(l); err == nil {
		s.vanish(l.Name, &final)
	} else {
		s.vanish(l.Name, nil)
	}
	return nil
}

// vanish tells of the end of a Lease in its final state, or without one in the
// last that was shown, if any was.
func (s *store) vanish(name string, final *claim.Lease) {
	s.mu.Lock()
	last, was := s.shown[name]
	delete(s.shown, name)
	s.mu.Unlock()
	if final != nil {
		last, was = *final, true
	}
	if was {
		s.deliver(claim.LeaseDeleted{Last: last, Final: final != nil})
	}
}

// Replace takes a list: what is not in it has vanished.
func (s *store) Replace(list []any, _ string) error {
	listed := make(map[string]bool, len(list))
	for _, obj := range list {
		if l, ok := obj.(*coordinationv1.Lease); ok {
			listed[l.Name] = true
		}
	}
	for _, l := range (*Watch)(s).Leases() {
		if !listed[l.Name] {
			s.vanish(l.Name, nil)
		}
	}
	for _, obj := range list {
		if err := s.Update(obj); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) Resync() error { return nil }

// Relist makes the watch start again from a list, on a new stream: the present
// one may be a connection that is dead without an error. A request for a list or a
// stream that has no answer yet is sent again.
func (w *Watch) Relist() {
	if restart := w.restart.Swap(nil); restart != nil {
		(*restart)()
	}
}

// restartable passes a stream on until Relist asks for another. It then answers
// as the API server does when a version has become too old, because that is what
// makes a reflector list again instead of resuming. done is called at the end.
func (w *Watch) restartable(inner watch.Interface, done func()) watch.Interface {
	restart := make(chan struct{})
	end := sync.OnceFunc(func() { close(restart) })
	w.restart.Store(&end)
	s := &stream{inner: inner, done: done, events: make(chan watch.Event), stopped: make(chan struct{})}
	go s.pass(restart)
	return s
}

// stream is a watch that can be ended from outside. Its goroutine lives as long
// as the reflector, under Watch.Run, uses it.
type stream struct {
	inner   watch.Interface
	done    func() // frees what belongs to the request
	events  chan watch.Event
	stopped chan struct{}
	once    sync.Once
}

func (s *stream) ResultChan() <-chan watch.Event { return s.events }

func (s *stream) Stop() { s.once.Do(func() { close(s.stopped); s.inner.Stop() }) }

func (s *stream) pass(restart <-chan struct{}) {
	defer close(s.events)
	defer s.done()
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
