// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"context"
	"slices"
	"sync/atomic"
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

// task is the part of work that few items need. The queue's mutex guards it.
type task struct {
	cause    error // why the work must end; nil while it may continue
	cancels  []context.CancelCauseFunc
	draining bool      // Drain has covered the work
	refused  bool      // Check found the member fenced, so an effect of the work was refused
	effects  []*effect // begun with Assignment.Begin and not ended

	done atomic.Bool // Done was called; set with the mutex held
}

// effect is one that work has begun.
type effect struct {
	abort   func(cause error)
	settled bool // it has had its effect, or will not have any
}

// interrupted reports whether the work may have stopped before its end, because of a
// drain or a fence.
func (t *task) interrupted() bool { return t.cause != nil || t.draining || t.refused }

// underWay reports whether an effect of the work may still happen.
func (t *task) underWay() bool {
	return slices.ContainsFunc(t.effects, func(x *effect) bool { return !x.settled })
}

// finish marks the work as done, and returns what the end of its contexts has to call: effects
// that are settled, such as a response that is still being read, end with the work.
func (t *task) finish() (ends []func(cause error)) {
	t.done.Store(true)
	for _, cancel := range t.cancels {
		ends = append(ends, cancel)
	}
	t.effects = slices.DeleteFunc(t.effects, func(x *effect) bool {
		if x.settled {
			ends = append(ends, x.abort)
		}
		return x.settled
	})
	return ends
}

// state returns what this member may do with an item, apart from the fence.
func (q *Queue[T]) state(point uint64, unkeyed bool) ring.State {
	if unkeyed {
		return ring.Active
	}
	return q.owner.State(point)
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

// stopped reports whether the worker may have learned, other than from Check, that the member
// is fenced.
func (q *Queue[T]) stopped() bool {
	if q.timed != nil {
		return q.timed.Stopped()
	}
	return q.owner.Fenced()
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
// a drain of the other item does not cancel it, and [Check] does not see it. It waits for the
// other queue's Done. Use both contexts for work that should stop for either item.
func (q *Queue[T]) Context(ctx context.Context, item T) context.Context {
	deadline, limited := ctx.Deadline()
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	if limited {
		timed, stop := context.WithDeadline(ctx, deadline)
		end := cancel
		ctx, cancel = timed, func(cause error) { end(cause); stop() }
	}
	a, t, cause := q.attach(item, cancel)
	if cause != nil {
		cancel(cause)
	}
	a.work = handedOut[T]{q, t, ctx}
	if outer, ok := ctx.Value(assignmentKey{}).(Assignment); ok {
		a.outer = &outer
	}
	return context.WithValue(ctx, assignmentKey{}, a)
}

// attach registers the context with the item's work, or returns the cause for which the work
// must not continue.
func (q *Queue[T]) attach(item T, cancel context.CancelCauseFunc) (Assignment, *task, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.items.entries[item]
	if e == nil || e.place != inFlight {
		return Assignment{Owner: q.owner, unkeyed: true}, nil, ErrDone
	}
	t := e.ensureTask()
	if t.cause == nil {
		t.cancels = append(t.cancels, cancel)
	}
	return Assignment{Owner: q.owner, Point: e.point, unkeyed: e.unkeyed}, t, t.cause
}

// handedOut is an Assignment's link to its work: one hand-out, from Get to Done, whatever
// happens to the item later.
type handedOut[T comparable] struct {
	q    *Queue[T]
	task *task
	ctx  context.Context // the work's own
}

func (h handedOut[T]) context() context.Context { return h.ctx }

// over reports whether Done was called. It takes no lock.
func (h handedOut[T]) over() bool { return h.task.done.Load() }

// refuse records that an effect of the work was refused because the member is fenced.
func (h handedOut[T]) refuse() {
	h.q.mu.Lock()
	defer h.q.mu.Unlock()
	h.task.refused = true
}

func (h handedOut[T]) begin(abort func(cause error)) (settled, end func(), err error) {
	h.q.mu.Lock()
	defer h.q.mu.Unlock()
	switch {
	case h.task.cause != nil:
		return nil, nil, h.task.cause
	case h.task.done.Load():
		return nil, nil, ErrDone
	}
	x := &effect{abort: abort}
	h.task.effects = append(h.task.effects, x)
	return func() { h.settle(x, false) }, func() { h.settle(x, true) }, nil
}

// settle records that an effect has had its effect and, if it has ended, forgets it.
func (h handedOut[T]) settle(x *effect, ended bool) {
	h.q.mu.Lock()
	t := h.task
	done := t.done.Load()
	last := done && !x.settled
	x.settled = true
	last = last && !t.underWay()
	if last {
		delete(h.q.unfinished, t)
	}
	abort := !ended && done && slices.Contains(t.effects, x)
	if ended || done {
		t.effects = slices.DeleteFunc(t.effects, func(y *effect) bool { return y == x })
	}
	onDone := h.q.onDone
	h.q.mu.Unlock()
	if abort {
		x.abort(ErrDone)
	}
	if last && onDone != nil {
		onDone()
	}
}

// Drain begins the drain of the points for which draining returns true: the work in flight on
// them may end by itself, and counts as interrupted (Q11). The function set with
// [Queue.OnDone] is called when that work ends. The queued items of these points are parked.
// State must already report that the points are not active. draining must not block; it is
// called with no lock held. Drain does not wait.
func (q *Queue[T]) Drain(draining func(point uint64) bool) {
	q.end(nil, q.onPoints(draining))
	q.Readmit()
}

// Cancel cancels the contexts of the work in flight on the points for which draining returns
// true, with the cause [ErrDraining]. Call it after Drain, for what has not ended by itself.
// What holds for Drain holds for Cancel.
func (q *Queue[T]) Cancel(draining func(point uint64) bool) {
	q.end(ErrDraining, q.onPoints(draining))
}

// onPoints chooses the work in flight on the points for which draining returns true.
func (q *Queue[T]) onPoints(draining func(point uint64) bool) func(*entry[T]) bool {
	hit := make(map[uint64]bool)
	q.mu.Lock()
	q.items.each(inFlight, func(e *entry[T]) { hit[e.point] = false })
	q.mu.Unlock()
	for point := range hit {
		hit[point] = draining(point)
	}
	// Nothing is handed out on these points meanwhile, because State changed before.
	return func(e *entry[T]) bool { return !e.unkeyed && hit[e.point] }
}

// Fence cancels the contexts of all work in flight, and aborts all its effects, even after
// Done. Fenced must already return true. Fence does not wait.
func (q *Queue[T]) Fence() {
	q.FenceIf(func() bool { return true })
}

// FenceIf does what [Queue.Fence] does, if the member is still fenced when the work is
// marked. The function fenced determines that; like the Ownership, it is called with a lock
// held. Use FenceIf where one goroutine notices the fence while another may lift it: work
// that was handed out after the fence was lifted is not affected.
func (q *Queue[T]) FenceIf(fenced func() bool) {
	q.end(ErrFenced, func(*entry[T]) bool { return fenced() })
	q.mu.Lock()
	var aborted []*effect
	for t := range q.unfinished {
		if fenced() {
			aborted = append(aborted, t.effects...)
		}
	}
	q.mu.Unlock()
	for _, x := range aborted {
		x.abort(ErrFenced)
	}
}

// end marks the chosen work with the cause and cancels its contexts. Without a cause, it only
// marks the work as draining.
func (q *Queue[T]) end(cause error, chosen func(*entry[T]) bool) {
	var cancels []context.CancelCauseFunc
	var aborted []*effect
	q.mu.Lock()
	q.items.each(inFlight, func(e *entry[T]) {
		if !chosen(e) {
			return
		}
		t := e.ensureTask()
		switch {
		case cause == nil:
			t.draining = true
		case t.cause == nil:
			t.cause = cause
			cancels = append(cancels, t.cancels...)
		}
		if cause == ErrFenced {
			aborted = append(aborted, t.effects...)
		}
	})
	q.mu.Unlock()
	for _, cancel := range cancels {
		cancel(cause)
	}
	for _, x := range aborted {
		x.abort(cause)
	}
}

// InFlight lists the work in flight, oldest first. After State has changed, a point that is
// not active and not in the list has no work in flight, and gets none until State reports it
// active again. Items without a point (Q8) are not listed: they belong to no partition.
func (q *Queue[T]) InFlight() []Work {
	var list []Work
	q.mu.Lock()
	q.items.each(inFlight, func(e *entry[T]) {
		if !e.unkeyed {
			list = append(list, q.describe(e))
		}
	})
	for _, w := range q.unfinished {
		list = append(list, w)
	}
	q.mu.Unlock()
	slices.SortFunc(list, func(a, b Work) int { return a.Since.Compare(b.Since) })
	return list
}

func (q *Queue[T]) describe(e *entry[T]) Work {
	return Work{Item: e.item, Point: e.point, Since: q.epoch.Add(e.since)}
}

// OnDone sets the function that is called after each Done of interrupted work (Q11), and
// after the last effect (see [Assignment.Begin]) of work that was done before. By then
// InFlight no longer lists the work. The function is called on the goroutine that calls Done
// or settles the effect, with no lock held, and must not block. Nil means none.
func (q *Queue[T]) OnDone(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.onDone = f
}
