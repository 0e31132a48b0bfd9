// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"context"
)

// Assignment is the ownership under which a piece of work was handed out. The contexts of
// [Queue.Context] carry it; an item without a point (Q8) has none.
type Assignment struct {
	// Owner is the Ownership of the queue.
	Owner Ownership
	// Point is the item's point of the hash space.
	Point uint64

	unkeyed bool        // FromContext does not return it: there is no point, or no work
	outer   *Assignment // of the context that was passed to Queue.Context, or nil
	work    interface {
		context() context.Context
		over() bool
		refuse()
		begin(abort func(cause error)) (settled, end func(), err error)
	}
}

// Context returns the work's own context, as [Queue.Context] created it. A context that was
// derived from it may have ended earlier.
func (a Assignment) Context() context.Context { return a.work.context() }

// Begin records that the work begins an effect that cannot be stopped once it has begun,
// such as a request that changes an object. Until settled is called, the work stays in
// [Queue.InFlight], even after Done, so that no drain ends meanwhile. Call settled when the
// effect has happened or cannot happen any more, and end when nothing of it remains, such as a
// response that is still being read.
//
// Until end is called, abort is called on Fence; and on Done once the effect is settled. A
// drain does not call it. It may be called more than once, and must not block.
//
// If the work must not continue, Begin returns the cause with which its context has ended.
// Begin, settled and end may be called from any goroutine. Further calls of settled and end
// do nothing.
func (a Assignment) Begin(abort func(cause error)) (settled, end func(), err error) {
	return a.work.begin(abort)
}

type assignmentKey struct{}

// FromContext returns the assignment of a context that comes from [Queue.Context] or is
// derived from one.
func FromContext(ctx context.Context) (Assignment, bool) {
	a, ok := ctx.Value(assignmentKey{}).(Assignment)
	return a, ok && !a.unkeyed
}

// InWork reports whether a context comes from [Queue.Context] or is derived from one, also for
// work on an item without a point (Q8).
func InWork(ctx context.Context) bool {
	_, ok := ctx.Value(assignmentKey{}).(Assignment)
	return ok
}

// Check returns an error if the work that the context belongs to must have no more effects:
// the cause with which the work's context has ended; [ErrFenced] if the member is fenced
// although the work's context has not ended yet, as in a process that was paused; or the
// cause with which a context that the caller derived has ended. It returns nil for work that
// may continue, and for a context that does not come from a queue. Work on an item without a
// point (Q8) is checked too.
//
// Work for which Check has returned [ErrFenced] counts as interrupted (Q11), even if the
// member is no longer fenced when Done is called.
func Check(ctx context.Context) error {
	a, ok := ctx.Value(assignmentKey{}).(Assignment)
	if !ok {
		return nil
	}
	if work := a.Context(); work.Err() != nil {
		return context.Cause(work)
	}
	if a.Owner.Fenced() {
		a.work.refuse()
		return ErrFenced
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
