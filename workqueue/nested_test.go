// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"context"
	"testing"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Work of one queue passes its context to another queue's Context. The result follows the item
// of the other queue only. That is safe: the drain of the outer item waits for its Done, and
// the fence ends both.
func TestQ6_ContextOfTwoItemsFollowsTheInner(t *testing.T) {
	o := newOwner(ring.Active)
	outer, _ := newQueue(t, o)
	inner, _ := newQueue(t, o)
	outer.Add(1)
	get(t, outer)
	inner.Add(2)
	get(t, inner)
	outerCtx := outer.Context(context.Background(), 1)
	ctx := inner.Context(outerCtx, 2)
	o.set(1, ring.Pending)
	endWork(outer, 1)
	if Check(outerCtx) != ErrDraining {
		t.Errorf("the outer work continues: %v", Check(outerCtx))
	}
	if err := Check(ctx); err != nil {
		t.Errorf("the inner work ends with its outer item: %v", err)
	}
	if n := len(outer.InFlight()); n != 1 {
		t.Errorf("%d outer items are in flight: the drain does not wait for Done", n)
	}
	o.fenced.Store(true)
	if err := Check(ctx); err != ErrFenced {
		t.Errorf("the inner work continues at the fence: %v", err)
	}
}
