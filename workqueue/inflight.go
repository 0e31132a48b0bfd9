// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Work is an item that Get has handed out and for which Done was not called yet, or for
// which Done was called while an effect begun with [Assignment.Begin] has not ended.
type Work struct {
	Item  any       // the item as it was added
	Point uint64    // of the object that the item stands for
	Since time.Time // when it was handed out, by the real clock
}

// location is an item's place in the hash space.
type location struct {
	point   uint64
	unkeyed bool // Point returned an error: the item belongs to no partition
}

// state returns what this member may do with items at a location, apart from the fence.
func (q *Queue[T]) state(at location) ring.State {
	if at.unkeyed {
		return ring.Active
	}
	return q.owner.State(at.point)
}

// allowed reports whether this member may work on items at a location at this moment. Call
// it with mu held.
func (q *Queue[T]) allowed(at location) bool {
	return q.state(at) == ring.Active && !q.owner.Fenced()
}

// fence reports whether the member is fenced and, if it is not, the time since the epoch.
func (q *Queue[T]) fence() (since time.Duration, fenced bool) {
	if q.timed != nil {
		now, fenced := q.timed.FencedAt()
		return now.Sub(q.epoch), fenced
	}
	if q.owner.Fenced() {
		return 0, true
	}
	return time.Since(q.epoch), false
}

// tryHandOut takes an item that the inner queue has just returned. If this member may work
// on it, tryHandOut enters it into the table of work in flight. Otherwise it parks or drops
// the item, calls the inner queue's Done, and returns false.
//
// Why InFlight, called after a change of State, misses no Get that still saw the old state:
// tryHandOut calls State and enters the item in one critical section of mu, and InFlight
// reads the table in another. If tryHandOut's comes first, InFlight sees the entry, or Done
// has removed it. If InFlight's comes first, the change came before it too, and tryHandOut
// sees the change. The same holds for Fenced and Fence, and for State and Drain.
func (q *Queue[T]) tryHandOut(item T) bool {
	point, err := q.point(item)
	at := location{point: point, unkeyed: err != nil}

	q.mu.Lock()
	state := q.state(at)
	fenced := false
	if state == ring.Active {
		var since time.Duration
		if since, fenced = q.fence(); !fenced {
			q.inFlight.put(item, at, since)
			if q.parked != nil {
				delete(q.parked, item) // this hand-out serves the parked item too
			}
			q.mu.Unlock()
			if err != nil {
				q.recorder.Malformed(item, err)
			}
			q.recorder.Passed()
			return true
		}
	}
	notOwned := state != ring.Active && state != ring.Pending
	outcome := nothing
	if !notOwned {
		outcome = q.park(item, at)
	}
	q.mu.Unlock()

	if fenced {
		q.recorder.Refused()
	}
	outcome(q.recorder)
	if notOwned {
		q.drop(item)
	}
	q.inner.Done(item)
	return false
}

// Context returns a context for the work on an item that Get has handed out. It is
// cancelled with the cause [ErrDraining] when the item's partition is drained, with
// [ErrFenced] when the member is fenced, and with [ErrDone] by Done. If one of these has
// already happened, the context is returned cancelled. See [FromContext] for what else it
// carries.
//
// It has the values and the deadline of ctx, but does not end when ctx is cancelled. A
// process that shuts down cancels its root context. If that cancelled the work too, the work
// could break off with a request under way and call Done before the server has responded.
// The drain that follows would find nothing to wait for, and the next owner would begin
// while the server still processes the request. Therefore the drain ends the work, and the
// caller's context does not.
//
// If ctx comes from the Context of another queue, the result follows this queue's item only:
// a drain of the other item does not cancel it, and [Check] does not see it. Use both
// contexts for work that belongs to two items.
func (q *Queue[T]) Context(ctx context.Context, item T) context.Context {
	deadline, limited := ctx.Deadline()
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	if limited {
		timed, stop := context.WithDeadline(ctx, deadline)
		end := cancel
		ctx, cancel = timed, func(cause error) { end(cause); stop() }
	}
	at, t, cause := q.attach(item, cancel)
	if cause != nil {
		cancel(cause)
	}
	if at.unkeyed {
		return ctx
	}
	return context.WithValue(ctx, assignmentKey{}, Assignment{Owner: q.owner, Point: at.point, work: handedOut[T]{q, t, ctx}})
}

// attach registers the context with the item's work, or returns the cause for which the work
// must not continue.
func (q *Queue[T]) attach(item T, cancel context.CancelCauseFunc) (location, *task, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := q.inFlight.find(item)
	if w == nil {
		return location{unkeyed: true}, nil, ErrDone
	}
	t := w.ensureTask()
	if t.cause == nil {
		t.cancels = append(t.cancels, cancel)
	}
	return w.location, t, t.cause
}

// handedOut is an Assignment's link to its work: one hand-out, from Get to Done, whatever
// happens to the item later.
type handedOut[T comparable] struct {
	q    *Queue[T]
	task *task
	ctx  context.Context // the work's own
}

func (h handedOut[T]) context() context.Context { return h.ctx }

// refuse records that an effect of the work was refused because the member is fenced.
func (h handedOut[T]) refuse() {
	h.q.mu.Lock()
	defer h.q.mu.Unlock()
	h.task.refused = true
}

func (h handedOut[T]) begin() (end func(), err error) {
	h.q.mu.Lock()
	defer h.q.mu.Unlock()
	switch {
	case h.task.cause != nil:
		return nil, h.task.cause
	case h.task.done:
		return nil, ErrDone
	}
	h.task.effects++
	return sync.OnceFunc(h.end), nil
}

func (h handedOut[T]) end() {
	h.q.mu.Lock()
	h.task.effects--
	last := h.task.done && h.task.effects == 0
	if last {
		delete(h.q.unfinished, h.task)
	}
	onDone := h.q.onDone
	h.q.mu.Unlock()
	if last && onDone != nil {
		onDone()
	}
}

// Drain cancels the contexts of the work in flight on the points for which draining returns
// true. The function set with [Queue.OnDone] is called when that work ends. State must
// already report that these points are not active. draining must not block; it is called
// with no lock held. Drain does not wait.
func (q *Queue[T]) Drain(draining func(point uint64) bool) {
	hit := make(map[uint64]bool)
	q.mu.Lock()
	q.inFlight.each(func(_ T, w *work) { hit[w.point] = false })
	q.mu.Unlock()
	for point := range hit {
		hit[point] = draining(point)
	}
	// Nothing was handed out on these points meanwhile, because State changed before.
	q.end(ErrDraining, func(w *work) bool { return !w.unkeyed && hit[w.point] })
}

// Fence cancels the contexts of all work in flight. Fenced must already return true. Fence
// does not wait.
func (q *Queue[T]) Fence() {
	q.end(ErrFenced, func(*work) bool { return true })
}

// FenceIf does what [Queue.Fence] does, if the member is still fenced when the work is
// marked. The function fenced determines that; like the Ownership, it is called with a lock
// held. Use FenceIf where one goroutine notices the fence while another may lift it: work
// that was handed out after the fence was lifted is not affected.
func (q *Queue[T]) FenceIf(fenced func() bool) {
	q.end(ErrFenced, func(*work) bool { return fenced() })
}

// end marks the chosen work with the cause and cancels its contexts.
func (q *Queue[T]) end(cause error, chosen func(*work) bool) {
	var cancels []context.CancelCauseFunc
	q.mu.Lock()
	q.inFlight.each(func(_ T, w *work) {
		if !chosen(w) {
			return
		}
		if t := w.ensureTask(); t.cause == nil {
			t.cause = cause
			cancels = append(cancels, t.cancels...)
		}
	})
	q.mu.Unlock()
	for _, cancel := range cancels {
		cancel(cause)
	}
}

// InFlight lists the work in flight, oldest first. After State has changed, a point that is
// not active and not in the list has no work in flight, and gets none until State reports it
// active again. Items without a point (Q8) are not listed: they belong to no partition.
func (q *Queue[T]) InFlight() []Work {
	var list []Work
	q.mu.Lock()
	q.inFlight.each(func(item T, w *work) {
		if !w.unkeyed {
			list = append(list, q.describe(item, w))
		}
	})
	for _, w := range q.unfinished {
		list = append(list, w)
	}
	q.mu.Unlock()
	slices.SortFunc(list, func(a, b Work) int { return a.Since.Compare(b.Since) })
	return list
}

func (q *Queue[T]) describe(item T, w *work) Work {
	return Work{Item: item, Point: w.point, Since: q.epoch.Add(w.since)}
}

// OnDone sets the function that is called after each Done of interrupted work (Q11), and
// after the last effect (see [Assignment.Begin]) of work that was done before. By then
// InFlight no longer lists the work. The function is called on the goroutine that calls Done
// or ends the effect, with no lock held, and must not block. Nil means none.
func (q *Queue[T]) OnDone(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.onDone = f
}
