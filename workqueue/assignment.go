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

	work interface {
		context() context.Context
		refuse()
		begin() (end func(), err error)
	}
}

// Context returns the work's own context, as [Queue.Context] created it. A context that was
// derived from it may have ended earlier.
func (a Assignment) Context() context.Context { return a.work.context() }

// Begin records that the work begins an effect that cannot be stopped once it has begun,
// such as a request that changes an object. Until end is called, the work stays in
// [Queue.InFlight], even after Done, so that no drain ends meanwhile. If the work must not
// continue, Begin returns the cause with which its context has ended.
//
// Begin and end may be called from any goroutine. A second call of end does nothing.
func (a Assignment) Begin() (end func(), err error) { return a.work.begin() }

type assignmentKey struct{}

// FromContext returns the assignment of a context that comes from [Queue.Context] or is
// derived from one.
func FromContext(ctx context.Context) (Assignment, bool) {
	a, ok := ctx.Value(assignmentKey{}).(Assignment)
	return a, ok
}

// Check returns an error if the work that the context belongs to must have no more effects:
// the cause with which the work's context has ended; [ErrFenced] if the member is fenced
// although the work's context has not ended yet, as in a process that was paused; or the
// cause with which a context that the caller derived has ended. It returns nil for work that
// may continue, and for a context that does not come from a queue.
//
// Work for which Check has returned [ErrFenced] counts as interrupted (Q11), even if the
// member is no longer fenced when Done is called.
func Check(ctx context.Context) error {
	a, ok := FromContext(ctx)
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
