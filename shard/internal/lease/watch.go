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

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

// Watch watches all Leases of a ring with a client-go reflector, in one namespace and
// with one label selector.
//
// It is not an informer, because informers back off for too long: after an outage of a
// minute, or after a few restarts of the watch, an informer retries only after half a
// minute, and until then this member would gain no partitions. The reflector here waits
// at most a second, plus up to half a second of jitter.
//
// It lists with LIST requests that are quorum reads. A streamed list (WatchList) would be
// as late as the watch that it replaces, and so would a list from a watch cache (R34).
type Watch struct {
	cfg       Config
	patience  time.Duration // Relist leaves a list alone that was sent less than this ago
	reflector *cache.Reflector
	restart   atomic.Pointer[func()] // Relist calls it; replaced for each request
	streams   sync.WaitGroup         // goroutines of streams; Run waits for them

	// Run sets these before the reflector starts; its goroutine uses them.
	deliver  func(claim.Event)
	answered func(verb string, err error)

	mu      sync.Mutex
	shown   map[string]claim.Lease // by name; guarded by mu, written only by the reflector's goroutine
	version string                 // of the last event; guarded by mu
}

// NewWatch returns a watch that [Watch.Run] starts. [Watch.Relist] leaves a list alone that was
// sent less than patience ago.
func NewWatch(cfg Config, patience time.Duration) *Watch {
	w := &Watch{cfg: cfg, patience: patience, shown: map[string]claim.Lease{}}
	backoff := retry
	w.reflector = cache.NewReflectorWithOptions(
		unstreamed{&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				o.LabelSelector, o.ResourceVersion = cfg.Selector(), "" // a quorum read
				list, _, done, err := persist(ctx, w, "list", func(ctx context.Context) (runtime.Object, error) { return cfg.Leases.List(ctx, o) })
				done()
				return list, err
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				o.LabelSelector = cfg.Selector()
				stream, attempt, done, err := persist(ctx, w, "watch", func(ctx context.Context) (watch.Interface, error) { return cfg.Leases.Watch(ctx, o) })
				if err != nil {
					done()
					return nil, err
				}
				return w.restartable(ctx, attempt, stream, done), nil
			},
		}},
		&coordinationv1.Lease{}, (*store)(w), cache.ReflectorOptions{
			Name:    "leases of ring " + cfg.Ring,
			Backoff: &backoff, // when a stream has ended and cannot be resumed
		})
	return w
}

// unstreamed makes a reflector list with LIST requests.
type unstreamed struct{ *cache.ListWatch }

// IsWatchListSemanticsUnSupported is what a reflector asks.
func (unstreamed) IsWatchListSemanticsUnSupported() bool { return true }

// Run watches until the context is done. It calls deliver with [claim.LeaseObserved] and
// [claim.LeaseDeleted] events, in order and from one goroutine, and answered with the result
// of each list or watch request, from any goroutine. Run returns nil after everything that it started
// has ended. It may be called only once.
func (w *Watch) Run(ctx context.Context, deliver func(claim.Event), answered func(verb string, err error)) error {
	w.deliver, w.answered = deliver, answered
	w.reflector.RunWithContext(ctx)
	w.streams.Wait()
	return nil
}

// retry is the delay between two attempts: up to a second, plus up to half of that as
// jitter.
var retry = wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 10, Cap: time.Second}

// errRelist is the cause for which Relist cancels a request.
var errRelist = errors.New("no response before the watch was restarted")

// persist repeats a request until it gets a response that the reflector can handle by
// itself. The reflector would pass any other error to the process's global error handlers
// before it retries.
//
// Relist cancels a request that has no response yet: client-go sets no timeout for lists
// and watches, and a server may never respond. It gives a list some time, because a list that
// is never finished shows nothing. It also ends the delay before the next attempt, and a watch
// then returns the error after which the reflector lists.
//
// attempt is the context of the last request: Relist may still cancel it. The caller must call
// done when it no longer needs the response or the stream.
func persist[T any](ctx context.Context, w *Watch, verb string, request func(context.Context) (T, error)) (answer T, attempt context.Context, done context.CancelFunc, err error) {
	backoff := retry
	for {
		var cancel context.CancelCauseFunc
		attempt, cancel = context.WithCancelCause(ctx)
		done = func() { cancel(nil) }
		sent := time.Now()
		restart := func() {
			if verb != "list" || time.Since(sent) >= w.patience {
				cancel(errRelist)
			}
		}
		w.restart.Store(&restart)
		answer, err = request(attempt)
		if ctx.Err() != nil {
			return answer, attempt, done, err
		}
		if err == nil {
			w.answered(verb, nil)
			return answer, attempt, done, nil
		}
		if attempt.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(attempt), err)
		}
		w.answered(verb, err)
		switch {
		case attempt.Err() != nil: // see below
		case apierrors.IsResourceExpired(err), apierrors.IsGone(err), // the reflector lists again
			apierrors.IsTimeout(err): // the watch cache is behind the requested version
			return answer, attempt, done, err
		}
		select {
		case <-time.After(backoff.Step()):
		case <-attempt.Done(): // Relist was called, perhaps during the request, or ctx is done
		}
		restarted := attempt.Err() != nil
		done()
		switch {
		case ctx.Err() != nil:
			return answer, attempt, done, err
		case restarted && verb == "watch":
			return answer, attempt, done, apierrors.FromObject(expired()) // the same watch again would show no list
		}
	}
}

// Leases returns the Leases that the watch currently shows, in no particular order.
func (w *Watch) Leases() []claim.Lease {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Values(w.shown))
}

// store is the store that the reflector writes to. It turns changes into events.
type store Watch

func (s *store) Add(obj any) error { return s.Update(obj) }

func (s *store) Update(obj any) error { return s.put(obj, false) }

// put handles the present state of a Lease.
func (s *store) put(obj any, listed bool) error {
	l, ok := obj.(*coordinationv1.Lease)
	if !ok {
		return fmt.Errorf("watch of Leases: unexpected object %T", obj)
	}
	decoded, err := s.cfg.decode(l)
	s.mu.Lock()
	last, known := s.shown[l.Name]
	s.mu.Unlock()
	known = known && last.UID == decoded.UID
	if !known {
		s.reportDeleted(l.Name, nil) // a list shows that it was deleted and created again
		if err != nil {
			return nil // not a member's Lease, as far as this watch has shown (R50)
		}
	}
	s.mu.Lock()
	s.shown[l.Name] = decoded
	s.version = decoded.Version
	s.mu.Unlock()
	s.deliver(claim.LeaseObserved{Lease: decoded, Listed: listed})
	return nil
}

func (s *store) Delete(obj any) error {
	l, ok := obj.(*coordinationv1.Lease)
	if !ok {
		return fmt.Errorf("watch of Leases: unexpected object %T", obj)
	}
	if final, err := s.cfg.decode(l); err == nil {
		s.reportDeleted(l.Name, &final)
	} else {
		s.reportDeleted(l.Name, nil)
	}
	return nil
}

// reportDeleted reports the end of a Lease with its final state. Without a final state it reports
// the last state that the watch has shown, if any.
func (s *store) reportDeleted(name string, final *claim.Lease) {
	s.mu.Lock()
	last, ok := s.shown[name]
	delete(s.shown, name)
	s.mu.Unlock()
	if final != nil {
		last, ok = *final, true
	}
	if ok {
		s.deliver(claim.LeaseDeleted{Last: last, Final: final != nil})
	}
}

// Replace handles a list: Leases that are not in it are gone.
func (s *store) Replace(list []any, version string) error {
	listed := make(map[string]bool, len(list))
	for _, obj := range list {
		if l, ok := obj.(*coordinationv1.Lease); ok {
			listed[l.Name] = true
		}
	}
	for _, l := range (*Watch)(s).Leases() {
		if !listed[l.Name] {
			s.reportDeleted(l.Name, nil)
		}
	}
	for _, obj := range list {
		if err := s.put(obj, true); err != nil {
			return err
		}
	}
	s.deliver(claim.WatchProgress{Version: version, Listed: true})
	return nil
}

// UpdateResourceVersion handles the version of each event of the stream, bookmarks included.
// The other events carry it themselves, except deletions.
func (s *store) UpdateResourceVersion(version string) {
	s.mu.Lock()
	known := s.version == version
	s.version = version
	s.mu.Unlock()
	if !known {
		s.deliver(claim.WatchProgress{Version: version})
	}
}

func (s *store) Resync() error { return nil }

// Relist restarts the watch from a list, on a new stream: the connection of the present
// stream may be dead without an error. A watch request that has no response yet is cancelled
// for that, and a list is sent again, unless it was sent only a moment ago.
func (w *Watch) Relist() {
	if restart := w.restart.Load(); restart != nil {
		(*restart)()
	}
}

// restartable forwards a stream until Relist cancels its request. It then returns the error
// that the API server returns for a version that is too old, because after that error a
// reflector lists again instead of resuming. done is called at the end.
func (w *Watch) restartable(ctx, attempt context.Context, inner watch.Interface, done func()) watch.Interface {
	s := &stream{inner: inner, done: done, events: make(chan watch.Event), stopped: make(chan struct{})}
	w.streams.Go(func() { s.pass(ctx, attempt) })
	return s
}

// stream is a watch that Relist can end. Its goroutine runs as long as the reflector,
// under Watch.Run, uses it, and ends with the context at the latest: a reflector does not
// stop its stream after every failure.
type stream struct {
	inner   watch.Interface
	done    func() // releases the resources of the request
	events  chan watch.Event
	stopped chan struct{}
	once    sync.Once
}

func (s *stream) ResultChan() <-chan watch.Event { return s.events }

func (s *stream) Stop() { s.once.Do(func() { close(s.stopped); s.inner.Stop() }) }

func (s *stream) pass(ctx, attempt context.Context) {
	defer close(s.events)
	defer s.done()
	defer s.Stop()
	for {
		var event watch.Event
		var more bool
		select {
		case <-attempt.Done():
		case <-s.stopped:
			return
		case event, more = <-s.inner.ResultChan():
		}
		switch {
		case ctx.Err() != nil:
			return
		case attempt.Err() != nil: // whatever the stream has returned since
			event = watch.Event{Type: watch.Error, Object: expired()}
		case !more:
			return
		}
		select {
		case s.events <- event:
			if event.Type == watch.Error {
				return
			}
		case <-ctx.Done():
			return
		case <-s.stopped:
			return
		}
	}
}

func expired() *metav1.Status {
	status := apierrors.NewResourceExpired("the watch of the Leases was restarted").Status()
	return &status
}
