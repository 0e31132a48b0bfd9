// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"context"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Queue is a client-go rate limiting queue that admits and hands out only what this member
// may work on. Create it with [New].
//
// The methods of workqueue.TypedRateLimitingInterface, [Queue.GetWithContext] and
// [Queue.Context] are for controllers. The others are for the code that changes what
// [Ownership] returns. All methods may be called from any goroutine at any time.
type Queue[T comparable] struct {
	owner        Ownership
	timed        TimedOwnership // owner, if it implements TimedOwnership
	point        func(item T) (uint64, error)
	onForeignAdd func(item T)
	recorder     Recorder
	limiter      workqueue.TypedRateLimiter[T]
	timers       workqueue.TypedDelayingInterface[T] // serves AddAfter
	epoch        time.Time                           // the zero of entry.since

	// mu guards the fields below. While it is held, nothing is called but the Ownership and,
	// as in client-go, the metrics.
	mu    sync.Mutex
	wake  sync.Cond // an item is queued, the fence may have been lifted, or the queue was shut down
	items table[T]
	meter meter[T]
	// handOuts is how many items were handed out.
	handOuts uint
	// unfinished is work for which Done was called while an effect of it was still under
	// way. It stays in InFlight. Each of its tasks is done and has an effect that is under way.
	unfinished   map[*task]Work
	shuttingDown bool
	draining     bool          // ShutDownWithDrain waits for Done
	untouched    time.Duration // after the shutdown: since when, from epoch, nothing was taken; 0 if not known
	onDone       func()
}

var _ workqueue.TypedRateLimitingInterface[string] = (*Queue[string])(nil)

// New creates a queue. As with client-go's constructors, a goroutine serves AddAfter from
// now on, until ShutDown. New panics without a rate limiter, an Ownership or a Point.
func New[T comparable](rateLimiter workqueue.TypedRateLimiter[T], o Options[T]) *Queue[T] {
	switch {
	case rateLimiter == nil:
		panic("workqueue.New: the rate limiter is nil")
	case o.Ownership == nil:
		panic("workqueue.New: Options.Ownership is nil")
	case o.Point == nil:
		panic("workqueue.New: Options.Point is nil")
	}
	q := newCore[T](o.Ownership)
	q.point, q.onForeignAdd, q.limiter = o.Point, o.OnForeignAdd, rateLimiter
	if o.Recorder != nil {
		q.recorder = o.Recorder
	}
	q.meter = newMeter(q, o.Config)
	q.timers = timersOf(q, o.Config)
	return q
}

// newCore returns a queue without what only Add, and what is above it, need. It starts nothing.
func newCore[T comparable](owner Ownership) *Queue[T] {
	q := &Queue[T]{owner: owner, recorder: noRecorder{}, epoch: time.Now()}
	q.wake.L = &q.mu
	q.timed, _ = owner.(TimedOwnership)
	return q
}

// Add queues the item if its partition is active, and parks it if its partition is claimed
// but not active. Otherwise it drops the item and forgets its retries.
func (q *Queue[T]) Add(item T) {
	if q.add(item, queued) && q.onForeignAdd != nil {
		q.onForeignAdd(item)
	}
}

// AddGained is Add for the items of a replay: there may be many of them at once, and most need no
// work. Items that are added in another way, such as those of live events and of retries, do not
// wait behind them (Q12). An item that waits as a gained one and is added in another way is a
// gained one no more. For an item that is known already, AddGained is Add.
func (q *Queue[T]) AddGained(item T) {
	if q.add(item, gained) && q.onForeignAdd != nil {
		q.onForeignAdd(item)
	}
}

// gainedShare is the number of items of which one, at least, is a gained one while there are any.
const gainedShare = 8

// add is Add or AddGained, and reports whether the item belongs to another member.
func (q *Queue[T]) add(item T, to place) (foreign bool) {
	mustBeKey(item)
	point, err := q.locate(item)
	q.mu.Lock()
	state := q.state(point, err != nil)
	if foreign = state != ring.Active && state != ring.Pending; foreign || q.shuttingDown {
		q.mu.Unlock()
		if state != ring.Active {
			q.drop(item)
		}
		return foreign
	}
	outcome := nothing
	switch e := q.items.entries[item]; {
	case e == nil && state == ring.Active:
		e = q.items.put(item, point, err != nil, to)
		e.byGain = to == gained
		q.meter.add(e)
		q.wake.Signal()
	case e == nil:
		e = q.items.put(item, point, err != nil, parked)
		e.byGain = to == gained
		q.meter.add(e)
		outcome = Recorder.Parked
	case e.place == inFlight:
		if !e.again {
			e.again = true
			q.meter.add(e)
		}
	case e.place == remembered:
		q.meter.add(e)
		outcome = q.wait(e, state)
	case e.place == parked:
		e.byGain = e.byGain && to == gained
		outcome = q.wait(e, state)
	case e.place == gained && to == queued:
		e.byGain = false
		q.items.move(e, queued)
	}
	q.mu.Unlock()
	outcome(q.recorder)
	return false
}

// mustBeKey panics for an item that cannot be the key of a map, such as a slice in a queue of
// an interface type. client-go's queue panics too. The panic must not come later: with mu held,
// it would leave the queue locked.
func mustBeKey[T comparable](item T) { _ = map[T]struct{}(nil)[item] }

// wait queues or parks an item whose state, with mu held, is Active or Pending. It must still
// be parked then: Readmit is called after every change of the state and takes mu, so either
// it finds the item here, or State has already returned the result of the change.
func (q *Queue[T]) wait(e *entry[T], state ring.State) (outcome func(Recorder)) {
	was := e.place
	switch {
	case state == ring.Active:
		if e.byGain {
			q.items.move(e, gained)
		} else {
			q.items.move(e, queued)
		}
		q.wake.Signal()
		if was == parked {
			return Recorder.Readmitted
		}
	case was != parked:
		q.items.move(e, parked)
		return Recorder.Parked
	}
	return nothing
}

func nothing(Recorder) {}

// drop forgets an item that another member owns, or that was dropped by the shutdown.
func (q *Queue[T]) drop(item T) {
	q.forget(item)
	q.recorder.Dropped()
}

// Get blocks until there is an item that this member may work on, and returns it. It returns
// shutdown = true if the queue was shut down and has nothing more to hand out. Call Done with
// the item when the work has ended.
//
// Why InFlight, called after a change of State, misses no Get that still saw the old state:
// Get calls State and moves the item to the work in flight in one critical section of mu, and
// InFlight reads that list in another. If Get's comes first, InFlight sees the item, or Done
// has removed it. If InFlight's comes first, the change came before it too, and Get sees the
// change. The same holds for Fenced and Fence, and for State and Drain.
func (q *Queue[T]) Get() (item T, shutdown bool) {
	q.mu.Lock()
	for refused := false; ; {
		e := q.next()
		if e == nil {
			if q.shuttingDown {
				q.mu.Unlock()
				return item, true
			}
			q.wake.Wait()
			continue
		}
		state, fenced := q.state(e.point, e.unkeyed), false
		if state == ring.Active {
			if e.since, fenced = q.fence(); !fenced {
				item = e.item
				unkeyed := e.unkeyed
				e.byGain = false
				q.items.move(e, inFlight)
				q.handOuts++
				q.untouched = 0
				q.meter.get(e)
				q.mu.Unlock()
				if unkeyed {
					_, err := q.locate(item)
					q.recorder.Malformed(item, err)
				}
				q.recorder.Passed()
				return item, false
			}
			if !q.shuttingDown && refused {
				q.wake.Wait()
				continue
			}
		}
		outcome := q.reject(e, state)
		q.mu.Unlock()
		if fenced {
			refused = true
			q.recorder.Refused()
		}
		outcome(q.recorder)
		q.mu.Lock()
	}
}

// next returns the item that Get looks at next, or nil.
func (q *Queue[T]) next() *entry[T] {
	e, g := q.items.lists[queued].first, q.items.lists[gained].first
	if e == nil || g != nil && q.handOuts%gainedShare == gainedShare-1 {
		return g
	}
	return e
}

// reject parks or drops an item that waits, because of its state, or keeps it.
func (q *Queue[T]) reject(e *entry[T], state ring.State) (outcome func(Recorder)) {
	switch {
	case !q.shuttingDown && state == ring.Active: // for the fence
		return nothing
	case !q.shuttingDown && state == ring.Pending:
		return q.wait(e, state)
	}
	item := e.item
	q.meter.drop(e)
	q.items.remove(e)
	return func(Recorder) { q.drop(item) }
}

// GetWithContext is Get and [Queue.Context] in one call. After a shutdown it returns ctx.
func (q *Queue[T]) GetWithContext(ctx context.Context) (item T, work context.Context, shutdown bool) {
	item, shutdown = q.Get()
	if shutdown {
		return item, ctx, true
	}
	return item, q.Context(ctx, item), false
}

// Done marks the work on the item as ended and cancels its contexts. If the item was added
// again meanwhile, it is queued again. If a drain or a fence interrupted the work, Done adds
// the item again, so that workers need not handle this case: see Q11.
func (q *Queue[T]) Done(item T) {
	mustBeKey(item)
	q.mu.Lock()
	e := q.items.entries[item]
	if e == nil || e.place != inFlight {
		q.mu.Unlock()
		return
	}
	state, t := q.state(e.point, e.unkeyed), e.task
	// The state changes first; then Drain or Fence marks the work. A worker that checks in
	// between, with Owns for instance, may have stopped although its work is not marked.
	interrupted := t != nil && t.interrupted() || state != ring.Active || q.stopped()
	onDone := q.onDone
	var ends []func(error)
	if t != nil {
		e.task, ends = nil, t.finish()
		if t.underWay() {
			if q.unfinished == nil {
				q.unfinished = make(map[*task]Work)
			}
			q.unfinished[t] = q.describe(e)
		}
	}
	outcome := q.settle(e, state, interrupted)
	if q.draining && q.items.lists[inFlight].n == 0 {
		q.wake.Broadcast()
	}
	q.mu.Unlock()
	for _, end := range ends {
		end(ErrDone)
	}
	outcome(q.recorder)
	if interrupted && onDone != nil {
		onDone()
	}
}

// settle finds the next place of an item whose work has ended. If it is to be worked on
// again, this is an Add: the item is queued, parked or dropped.
func (q *Queue[T]) settle(e *entry[T], state ring.State, interrupted bool) (outcome func(Recorder)) {
	again := e.again
	if !again && interrupted && !q.shuttingDown {
		again = true
		q.meter.add(e)
	}
	q.meter.done(e)
	e.again = false
	switch {
	case again && state == ring.Active:
		return q.wait(e, state)
	case again:
		return q.reject(e, state)
	case e.failed && !q.shuttingDown:
		q.items.move(e, remembered)
	default:
		q.items.remove(e)
	}
	return nothing
}

// Len returns the number of queued items, with the gained ones. It counts neither parked items nor items that wait
// for a timer.
func (q *Queue[T]) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting()
}

// waiting returns the number of items that Get may hand out.
func (q *Queue[T]) waiting() int { return q.items.lists[queued].n + q.items.lists[gained].n }

// AddAfter adds the item after the duration. Whether this member may work on it is checked
// then. The timer cannot be cancelled: if it fires for a partition that this member has
// lost, the item is dropped.
func (q *Queue[T]) AddAfter(item T, duration time.Duration) { q.timers.AddAfter(item, duration) }
