// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Acquirer gives out the work on keys to callers that ask for them by name, under the rules of a
// [Queue]: Q1, Q2 and Q6 hold for it with Acquire and TryAcquire instead of Get, and
// done instead of Done. Create it with [NewAcquirer]. It has no goroutine.
//
// Acquire and TryAcquire are for controllers. The other methods are for the code that changes
// what [Ownership] returns. All methods may be called from any goroutine at any time.
type Acquirer struct {
	// queue holds the keys that are in flight, and nothing else: it was shut down from the
	// beginning, so that nothing is queued, and what a drain interrupts is not added again.
	queue *Queue[string]
	point func(key string) uint64

	// Guarded by the queue's mutex. The callers that wait for a key, in their order. Each of
	// them has a value in its channel whenever it has a reason to look again.
	waiting map[string][]chan struct{}
	stopped bool
}

// NewAcquirer creates an Acquirer. The function point returns the point of the hash space of a
// key. It must be pure.
func NewAcquirer(owner Ownership, point func(key string) uint64) *Acquirer {
	queue := newCore[string](owner)
	queue.meter = noMeter[string]{}
	queue.shuttingDown = true
	return &Acquirer{queue: queue, point: point, waiting: map[string][]chan struct{}{}}
}

// Acquire waits until this member may work on the key and no other caller has acquired it here,
// and returns the context of that work, which is that of [Queue.Context], and the function that
// ends it. Callers of one key take turns in the order in which they came. It returns
// an error that wraps the cause of ctx if that ends first, and [ErrStopped] after Stop. If ctx comes
// from the work on an item or a key, it returns [ErrDraining] instead of waiting while the point of
// that work is not active: the wait might end only after a drain that waits for the caller.
func (a *Acquirer) Acquire(ctx context.Context, key string) (work context.Context, done func(), err error) {
	return a.acquire(ctx, key, true)
}

// TryAcquire is Acquire without the wait: it returns [ErrNotActive] or [ErrInUse] instead.
func (a *Acquirer) TryAcquire(ctx context.Context, key string) (work context.Context, done func(), err error) {
	return a.acquire(ctx, key, false)
}

func (a *Acquirer) acquire(ctx context.Context, key string, wait bool) (work context.Context, done func(), err error) {
	if err := a.take(ctx, key, wait); err != nil {
		return nil, nil, fmt.Errorf("acquire %q: %w", key, err)
	}
	return a.queue.Context(ctx, key), sync.OnceFunc(func() { a.done(key) }), nil
}

// take moves the key to the work in flight, or returns why it cannot.
func (a *Acquirer) take(ctx context.Context, key string, wait bool) error {
	point := a.point(key)
	a.queue.mu.Lock()
	defer a.queue.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := a.tryTake(key, point, len(a.waiting[key]) > 0)
	if err == nil || !wait || a.stopped {
		return err
	}
	if holdsUpDrain(ctx) {
		return ErrDraining
	}
	// A change of the state after tryTake is followed by Drain or Readmit, which take the mutex
	// and find this caller.
	turn := make(chan struct{}, 1)
	a.waiting[key] = append(a.waiting[key], turn)
	defer func() {
		a.waiting[key] = slices.DeleteFunc(a.waiting[key], func(other chan struct{}) bool { return other == turn })
		a.next(key) // this caller may have used up the reason to look again
	}()
	var look <-chan time.Time // nil outside of work: there may be a caller for each key of other members
	if InWork(ctx) {
		ticker := time.NewTicker(outerDrainPeriod)
		defer ticker.Stop()
		look = ticker.C
	}
	for {
		a.queue.mu.Unlock()
		again := false
		select {
		case <-turn:
			again = true
		case <-look:
		case <-ctx.Done():
		}
		a.queue.mu.Lock()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !again && !holdsUpDrain(ctx) {
			continue
		}
		if err := a.tryTake(key, point, a.waiting[key][0] != turn); err == nil || a.stopped {
			return err
		}
		if holdsUpDrain(ctx) {
			return ErrDraining
		}
	}
}

// outerDrainPeriod is how often a caller looks whether the work that it belongs to is drained. That may be work on
// another ring, of which a drain wakes no callers of this Acquirer.
const outerDrainPeriod = 250 * time.Millisecond

// holdsUpDrain reports whether the context belongs to work for which a drain waits, now or soon,
// or was derived within such work: it has not ended, and its point is not active any more. Like State, it is called with
// the mutex held.
func holdsUpDrain(ctx context.Context) bool {
	a, ok := ctx.Value(assignmentKey{}).(Assignment)
	for work := &a; ok && work != nil; work = work.outer {
		if !work.unkeyed && !work.work.over() && work.Owner.State(work.Point) != ring.Active {
			return true
		}
	}
	return false
}

// tryTake is take for a caller that has its turn, unless others were first. It is called with the
// mutex held. As in Get, the state is read and the key is moved to the work in flight in one
// critical section, so that InFlight misses nothing.
func (a *Acquirer) tryTake(key string, point uint64, othersFirst bool) error {
	q := a.queue
	if a.stopped {
		return ErrStopped
	}
	switch q.state(point, false) {
	case ring.Active:
	case ring.NotOwned:
		return ErrNotOwned
	default:
		return ErrNotActive
	}
	since, fenced := q.fence()
	if fenced {
		return ErrNotActive
	}
	if othersFirst || q.items.entries[key] != nil {
		return ErrInUse
	}
	q.items.put(key, point, false, inFlight).since = since
	return nil
}

func (a *Acquirer) done(key string) {
	a.queue.Done(key)
	a.queue.mu.Lock()
	defer a.queue.mu.Unlock()
	a.next(key)
}

// next lets the first caller that waits for the key look again. The mutex is held.
func (a *Acquirer) next(key string) {
	callers := a.waiting[key]
	if len(callers) == 0 {
		delete(a.waiting, key)
		return
	}
	select {
	case callers[0] <- struct{}{}:
	default:
	}
}

// Stop makes all calls of Acquire and TryAcquire, now and later, return [ErrStopped]. Keys that
// were acquired before stay in flight until done.
func (a *Acquirer) Stop() {
	a.queue.mu.Lock()
	defer a.queue.mu.Unlock()
	a.stopped = true
	a.wakeAll()
}

// wakeAll lets all callers look again. The mutex is held.
func (a *Acquirer) wakeAll() {
	for _, callers := range a.waiting {
		for _, turn := range callers {
			select {
			case turn <- struct{}{}:
			default:
			}
		}
	}
}

// Readmit lets the callers that wait look again. Call it as for a [Queue].
func (a *Acquirer) Readmit() {
	a.queue.mu.Lock()
	defer a.queue.mu.Unlock()
	a.wakeAll()
}

// Drain is [Queue.Drain]. The callers that hold it up look again.
func (a *Acquirer) Drain(draining func(point uint64) bool) {
	a.queue.Drain(draining)
	a.Readmit()
}

// Cancel is [Queue.Cancel].
func (a *Acquirer) Cancel(draining func(point uint64) bool) { a.queue.Cancel(draining) }

// FenceIf is [Queue.FenceIf].
func (a *Acquirer) FenceIf(fenced func() bool) { a.queue.FenceIf(fenced) }

// InFlight is [Queue.InFlight].
func (a *Acquirer) InFlight() []Work { return a.queue.InFlight() }

// OnDone is [Queue.OnDone].
func (a *Acquirer) OnDone(f func()) { a.queue.OnDone(f) }

// Parked returns 0: callers wait, and nothing is parked.
func (a *Acquirer) Parked() int { return 0 }

// Closed reports whether the Acquirer was stopped and no work is in flight. It stays so.
func (a *Acquirer) Closed() bool {
	a.queue.mu.Lock()
	stopped := a.stopped
	a.queue.mu.Unlock()
	return stopped && a.queue.Closed()
}
