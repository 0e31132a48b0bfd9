// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"context"
)

// Assignment says under which ownership a piece of work was handed out. It travels in
// the contexts of [Queue.Context]; an item without a point (Q8) has none.
type Assignment struct {
	// Owner is the Ownership of the queue.
	Owner Ownership
	// Point is that of the item.
	Point uint64

	work interface {
		context() context.Context
		refuse()
		begin() (end func(), err error)
	}
}

// Context returns the work's own context, as [Queue.Context] made it. A context that was
// derived from it may have ended earlier.
func (p Assignment) Context() context.Context { return p.work.context() }

// Begin says that the work begins to do something that can't be called back once it
// has begun, such as a request that changes an object. Until end is called the work
// stays in [Queue.InFlight], even after Done, so that no drain ends meanwhile. Begin
// returns an error if the work may not go on: the cause with which its context has ended.
//
// Any goroutine may call both. A second call of end does nothing.
func (p Assignment) Begin() (end func(), err error) { return p.work.begin() }

type permitKey struct{}

// FromContext returns the permit of a context that comes from [Queue.Context], or
// is derived from one.
func FromContext(ctx context.Context) (Assignment, bool) {
	p, ok := ctx.Value(permitKey{}).(Assignment)
	return p, ok
}

// Check returns why the work that the context belongs to must not have effects any
// more: the cause with which the work's context has ended; [ErrFenced] if the member is
// fenced although the work's context has not ended yet, as in a process that was paused; or
// the cause with which a context that the caller has derived has ended. It returns
// nil for work that may go on, and for a context that does not come from a queue.
//
// Work to which it has answered [ErrFenced] counts as interrupted (Q11), even if the member
// is not fenced any more when it calls Done.
func Check(ctx context.Context) error {
	p, ok := FromContext(ctx)
	if !ok {
		return nil
	}
	if work := p.Context(); work.Err() != nil {
		return context.Cause(work)
	}
	if p.Owner.Fenced() {
		p.work.refuse()
		return ErrFenced
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
