// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"context"
)

// Permit says under which ownership a piece of work was handed out. It travels in
// the contexts of [Queue.Context]; an item without a point (Q8) has none.
type Permit struct {
	// Owner is the Ownership of the queue.
	Owner Ownership
	// Point is that of the item.
	Point uint64
}

type permitKey struct{}

// FromContext returns the permit of a context that comes from [Queue.Context], or
// is derived from one.
func FromContext(ctx context.Context) (Permit, bool) {
	p, ok := ctx.Value(permitKey{}).(Permit)
	return p, ok
}

// Check returns why the work that the context belongs to must not have effects any
// more: the cause with which the context has ended, or [ErrFenced] if the member is fenced
// although nobody has noticed it yet, as in a process that was paused. It returns
// nil for work that may go on, and for a context that is not of a queue and has not
// ended.
func Check(ctx context.Context) error {
	p, ok := FromContext(ctx)
	if !ok {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if p.Owner.Fenced() {
		return ErrFenced
	}
	return nil
}
