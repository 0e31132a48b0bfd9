// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Ownership determines what this member may work on. All methods are called from many
// goroutines, with a lock of the queue held: they must not block and must not call the
// queue.
type Ownership interface {
	// State returns what this member may do with a point of the hash space, apart from the
	// fence. It is called once or twice for each Add and once for each Get.
	State(point uint64) ring.State
	// Fenced reports whether this member must not act at this moment. It reads the clock,
	// so that a process that was paused wakes up fenced. It is called for each Get.
	Fenced() bool
}

// TimedOwnership is an optional interface of an [Ownership]. Fenced has to read the clock,
// and the queue has to know when an item was handed out. With FencedAt, which the queue then
// calls instead of Fenced, the clock is read once for both.
type TimedOwnership interface {
	// FencedAt returns what Fenced returns, and the time for which it holds, as from time.Now.
	FencedAt() (now time.Time, fenced bool)
}

// Recorder counts items by their outcome. Its methods are called from many goroutines, once
// for each item, with no lock of the queue held. They must not block.
type Recorder interface {
	// Passed: Get handed the item out.
	Passed()
	// Parked: Add or Get parked the item until its partition is active or the fence is
	// lifted. It is not counted again while it is parked.
	Parked()
	// Readmitted: the item was parked and is now queued.
	Readmitted()
	// Dropped: this member does not own the item's partition; or the item was parked, or
	// was to be parked, when the queue was shut down. The rate limiter has forgotten it.
	Dropped()
	// Refused: Get took the item from the queue and found the member fenced. The item is
	// parked.
	Refused()
	// Malformed: Get handed out an item for which Options.Point returned the error.
	Malformed(item any, err error)
}

// Options of a [Queue]. Ownership and Point are required.
type Options[T comparable] struct {
	// Ownership determines what this member may work on.
	Ownership Ownership
	// Point returns the point of the hash space of the object that the item stands for. It
	// must always return the same point for the same item, and must not block. It is called
	// once for each Add and each Get, so it should not allocate either. For items for which
	// it returns an error, see the package comment, Q8.
	Point func(item T) (uint64, error)
	// Config is client-go's: Name, MetricsProvider and Clock are passed to every layer. If
	// it has a DelayingQueue, that replaces client-go's stock queue and delaying layer: items
	// are stored in it, and an item that was added with AddAfter is checked when Get finds
	// it, not when its timer fires.
	Config workqueue.TypedRateLimitingQueueConfig[T]
	// Recorder counts the outcomes. Nil means none.
	Recorder Recorder
}

// Queue is a client-go rate limiting queue that admits and hands out only what this member
// may work on. Create it with [New].
//
// The methods of workqueue.TypedRateLimitingInterface and [Queue.Context] are for
// controllers. The others are for the code that changes what [Ownership] returns. All
// methods may be called from any goroutine at any time.
type Queue[T comparable] struct {
	owner    Ownership
	timed    TimedOwnership // owner, if it implements TimedOwnership
	point    func(item T) (uint64, error)
	recorder Recorder
	limiter  workqueue.TypedRateLimiter[T]

	// inner stores the admitted items. limited is the top of client-go's layers above this
	// queue's filter: limited -> delaying -> base -> inner.
	inner   workqueue.TypedInterface[T]
	limited workqueue.TypedRateLimitingInterface[T]

	epoch time.Time // the zero of work.since

	// mu guards the fields below. Nothing but the Ownership is called while it is held.
	mu       sync.Mutex
	inFlight table[T]
	parked   map[T]parked // nil while empty
	arrivals uint64       // number of items that were ever parked
	// unfinished is work for which Done was called while an effect of it was still under
	// way. It stays in InFlight. The map is nil while empty; each of its tasks is done and
	// has effects > 0.
	unfinished map[*task]Work
	stopped    bool // the queue was shut down: nothing is parked any more
	onDone     func()
}

var _ workqueue.TypedRateLimitingInterface[string] = (*Queue[string])(nil)

// New creates a queue. As with client-go's constructors, a goroutine serves AddAfter from
// now on, until ShutDown.
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

// Add queues the item if its partition is active, and parks it if its partition is claimed
// but not active. Otherwise it drops the item and forgets its retries.
func (q *Queue[T]) Add(item T) {
	point, err := q.point(item)
	if err != nil || q.owner.State(point) == ring.Active {
		q.inner.Add(item)
		return
	}
	q.parkOrDrop(item, point)
}

// Get blocks until there is an item that this member may work on, and returns it. It returns
// shutdown = true if the queue was shut down and has nothing more to hand out. Call Done with
// the item when the work has ended.
func (q *Queue[T]) Get() (item T, shutdown bool) {
	for {
		item, shutdown = q.inner.Get()
		if shutdown || q.tryHandOut(item) {
			return item, shutdown
		}
	}
}

// Done marks the work on the item as ended and cancels its contexts. If the item was added
// again meanwhile, it is queued again. If a drain or a fence interrupted the work, Done adds
// the item again, so that workers need not handle this case: see Q11.
func (q *Queue[T]) Done(item T) {
	// First remove the item from the table: after the inner queue's Done, another worker
	// may get the item and enter it again.
	q.mu.Lock()
	w, ok := q.inFlight.take(item)
	t := w.task
	// The state changes first; then Drain or Fence marks the work. A worker that checks in
	// between, with Owns for instance, may have stopped although its work is not marked.
	interrupted := ok && (t != nil && t.interrupted() || !q.allowed(w.location))
	if t == nil && !interrupted {
		q.mu.Unlock()
		q.inner.Done(item)
		return
	}
	onDone := q.onDone
	if t != nil {
		t.done = true
		if t.effects > 0 {
			if q.unfinished == nil {
				q.unfinished = make(map[*task]Work)
			}
			q.unfinished[t] = q.describe(item, &w)
		}
	}
	q.mu.Unlock()
	if t != nil {
		t.cancelAll(ErrDone)
	}
	if interrupted {
		// This is an ordinary Add while the item is no longer in the table and the inner
		// queue's Done was not called yet. If the point is active, the inner queue records
		// the item and its Done queues it, only once even if the worker added it too. If
		// the point is not active, the item is parked or dropped; Readmit finds a parked
		// item even if the drain ends or is cancelled between Add and Done.
		q.Add(item)
	}
	q.inner.Done(item)
	if interrupted && onDone != nil {
		onDone()
	}
}

// Len returns the number of queued items. It counts neither parked items nor items that wait
// for a timer.
func (q *Queue[T]) Len() int { return q.inner.Len() }

// AddAfter adds the item after the duration. Whether this member may work on it is checked
// then. The timer cannot be cancelled: if it fires for a partition that this member has
// lost, the item is dropped.
func (q *Queue[T]) AddAfter(item T, duration time.Duration) { q.limited.AddAfter(item, duration) }

// AddRateLimited adds the item after the delay that the rate limiter returns.
func (q *Queue[T]) AddRateLimited(item T) { q.limited.AddRateLimited(item) }

// Forget lets the rate limiter forget the item's failures: it is no longer being retried.
func (q *Queue[T]) Forget(item T) { q.limited.Forget(item) }

// NumRequeues returns how often the item was added with AddRateLimited since it was
// last forgotten.
func (q *Queue[T]) NumRequeues(item T) int { return q.limited.NumRequeues(item) }

// ShutDown makes the queue ignore all later Adds and drops the parked items. Get still hands
// out the queued items that this member may work on, and then returns shutdown = true.
func (q *Queue[T]) ShutDown() { q.limited.ShutDown() }

// ShutDownWithDrain does what ShutDown does, and waits until Done was called for all items in
// flight, or until ShutDown is called.
func (q *Queue[T]) ShutDownWithDrain() {
	q.limited.ShutDownWithDrain()
	q.limited.ShutDown() // the drain alone does not stop the delaying layer's goroutine
}

// ShuttingDown reports whether ShutDown or ShutDownWithDrain was called.
func (q *Queue[T]) ShuttingDown() bool { return q.inner.ShuttingDown() }
