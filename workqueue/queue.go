// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Ownership tells what this member may work on. All methods are called from many
// goroutines, with a lock of the queue held: they must not block and must not call
// the queue.
type Ownership interface {
	// State says what this member may do with a point of the hash space, fence aside.
	// Called once or twice for each Add and once for each Get.
	State(point uint64) ring.State
	// Fenced reports whether this member must not act at this moment. It reads the
	// clock, so that a process that was paused wakes up fenced. Called for each Get.
	Fenced() bool
}

// TimedOwnership may be implemented by an [Ownership]. Fenced has to read the clock, and the
// queue has to know when an item was handed out: with FencedAt, which is then called
// in the place of Fenced, the clock is read once for both.
type TimedOwnership interface {
	// FencedAt is Fenced, with the time at which it looked, as of time.Now.
	FencedAt() (now time.Time, fenced bool)
}

// Recorder counts items by what becomes of them. Its methods are called from many
// goroutines, once for each item, with no lock of the queue held. They must not block.
type Recorder interface {
	// Passed: Get handed the item out.
	Passed()
	// Parked: the item was put aside, by Add or by Get, until its partition is active
	// or the fence lifts. Not counted again while it is parked.
	Parked()
	// Readmitted: the item was parked and is now queued.
	Readmitted()
	// Dropped: the item's partition is not this member's; or the item was parked, or to
	// be parked, when the queue was shut down. The rate limiter has forgotten it.
	Dropped()
	// Refused: Get had the item in its hand and found the member fenced. The item is
	// parked.
	Refused()
	// Malformed: Get handed out an item for which Options.Point has returned the error.
	Malformed(item any, err error)
}

// Options of a [Queue]. Ownership and Point are required.
type Options[T comparable] struct {
	// Ownership tells what this member may work on.
	Ownership Ownership
	// Point returns the point of the hash space of the object that the item stands
	// for. It must always answer the same for the same item, and must not block. It is
	// called once for each Add and each Get, so it should not allocate either. For an
	// item that it returns an error for, see the package comment, Q8.
	Point func(item T) (uint64, error)
	// Config is client-go's: Name, MetricsProvider and Clock go to every layer. If it
	// brings a DelayingQueue, that takes the place of client-go's stock queue and
	// delaying layer: items are stored in it, and one that was added with AddAfter is
	// judged when Get meets it, not when its timer fires.
	Config workqueue.TypedRateLimitingQueueConfig[T]
	// Recorder counts; nil for none.
	Recorder Recorder
}

// Queue is a client-go rate limiting queue that admits and hands out only what this
// member may work on. Make it with [New].
//
// The methods of workqueue.TypedRateLimitingInterface and [Queue.Context] are for
// controllers; the others are for the owner of the state that [Ownership] shows.
// All may be called from any goroutine at any time.
type Queue[T comparable] struct {
	owner    Ownership
	timed    TimedOwnership // owner, if it is one
	point    func(item T) (uint64, error)
	recorder Recorder
	limiter  workqueue.TypedRateLimiter[T]

	// Where admitted items wait, and client-go's layers above this queue's filter:
	// limited -> delaying -> base -> inner.
	inner   workqueue.TypedInterface[T]
	limited workqueue.TypedRateLimitingInterface[T]

	epoch time.Time // what work.since counts from

	// mu guards what follows. Nothing but the Ownership is called while it is held.
	mu       sync.Mutex
	inFlight table[T]
	parked   map[T]parked // nil while empty
	arrivals uint64       // counts what was ever parked
	// unanswered is work for which Done was called while an effect of it was still under
	// way: it stays in InFlight. nil while empty; each of its tasks is done and has
	// effects > 0.
	unanswered map[*task]Work
	stopped    bool // nothing is parked any more
	onDone     func()
}

var _ workqueue.TypedRateLimitingInterface[string] = (*Queue[string])(nil)

// New makes a queue. As with client-go's constructors, a goroutine waits for
// AddAfter from now on, until ShutDown.
func New[T comparable](rateLimiter workqueue.TypedRateLimiter[T], o Options[T]) *Queue[T] {
	q := &Queue[T]{
		owner:    o.Ownership,
		point:    o.Point,
		recorder: o.Recorder,
		limiter:  rateLimiter,
		epoch:    time.Now(),
	}
	q.timed, _ = o.Ownership.(TimedOwnership)
	if q.recorder == nil {
		q.recorder = noRecorder{}
	}
	config := o.Config
	if config.DelayingQueue != nil {
		q.inner = config.DelayingQueue
		config.DelayingQueue = injected[T]{base[T]{q}, config.DelayingQueue}
	} else {
		q.inner = workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[T]{
			Name:            config.Name,
			MetricsProvider: config.MetricsProvider,
			Clock:           config.Clock,
			Queue:           new(fifo[T]),
		})
		config.DelayingQueue = workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[T]{
			Name:            config.Name,
			MetricsProvider: config.MetricsProvider,
			Clock:           config.Clock,
			Queue:           base[T]{q},
		})
	}
	q.limited = workqueue.NewTypedRateLimitingQueueWithConfig(rateLimiter, config)
	return q
}

// Add queues the item if its partition is active, parks it while its partition is
// claimed but not active, and otherwise drops it and forgets its retries.
func (q *Queue[T]) Add(item T) {
	point, err := q.point(item)
	if err != nil || q.owner.State(point) == ring.Active {
		q.inner.Add(item)
		return
	}
	q.parkOrDrop(item, point)
}

// Get blocks until there is an item that this member may work on, and returns it; or
// returns true if the queue was shut down and has nothing more to hand out. Call Done
// with the item when the work has ended.
func (q *Queue[T]) Get() (item T, shutdown bool) {
	for {
		item, shutdown = q.inner.Get()
		if shutdown || q.tryHandOut(item) {
			return item, shutdown
		}
	}
}

// Done says that the work on the item has ended. Its contexts are cancelled. If it was
// added again meanwhile, it is queued again. An item whose work was interrupted by a
// drain or a fence is added again by Done, so that no worker needs to care: see Q11.
func (q *Queue[T]) Done(item T) {
	// First out of the table: as soon as the inner queue knows, another worker may
	// get the item and enter it anew.
	q.mu.Lock()
	w, found := q.inFlight.take(item)
	t := w.task
	// Who changes the state says so first, and then marks the work. A worker that looks in
	// between, with Owns for instance, has stopped although nothing has marked it.
	interrupted := found && (t != nil && t.interrupted() || !q.allowed(w.location))
	if t == nil && !interrupted {
		q.mu.Unlock()
		q.inner.Done(item)
		return
	}
	onDone := q.onDone
	if t != nil {
		t.done = true
		if t.effects > 0 {
			if q.unanswered == nil {
				q.unanswered = make(map[*task]Work)
			}
			q.unanswered[t] = q.describe(item, &w)
		}
	}
	q.mu.Unlock()
	if t != nil {
		t.cancelAll(ErrDone)
	}
	if interrupted {
		// Like any Add, at a time when the item is out of the table and not yet given back:
		// the inner queue notes that it is to be queued by its Done, once with what the
		// worker may have added; a point that is not active has it parked or dropped, and
		// Readmit finds it if the drain ends, or is called off, between here and there.
		q.Add(item)
	}
	q.inner.Done(item)
	if interrupted && onDone != nil {
		onDone()
	}
}

// Len returns the number of queued items. Neither parked items nor those that wait
// for a timer are among them.
func (q *Queue[T]) Len() int { return q.inner.Len() }

// AddAfter adds the item after the duration. Whether this member may work on it is
// judged then. The timer can't be called off: one that fires for a partition that
// this member has lost is dropped.
func (q *Queue[T]) AddAfter(item T, duration time.Duration) { q.limited.AddAfter(item, duration) }

// AddRateLimited adds the item after as long as the rate limiter says.
func (q *Queue[T]) AddRateLimited(item T) { q.limited.AddRateLimited(item) }

// Forget tells the rate limiter that the item is not being retried any more.
func (q *Queue[T]) Forget(item T) { q.limited.Forget(item) }

// NumRequeues returns how often the item was added with AddRateLimited since it was
// last forgotten.
func (q *Queue[T]) NumRequeues(item T) int { return q.limited.NumRequeues(item) }

// ShutDown lets the queue ignore what is added from now on and drops what is parked.
// Get still hands out what is queued and may be worked on, and then says shutdown.
func (q *Queue[T]) ShutDown() { q.limited.ShutDown() }

// ShutDownWithDrain is ShutDown, and waits until Done was called for all that is in
// flight, or until ShutDown is called.
func (q *Queue[T]) ShutDownWithDrain() {
	q.limited.ShutDownWithDrain()
	q.limited.ShutDown() // the drain alone leaves the goroutine of the delaying layer behind
}

// ShuttingDown reports whether ShutDown or ShutDownWithDrain was called.
func (q *Queue[T]) ShuttingDown() bool { return q.inner.ShuttingDown() }
