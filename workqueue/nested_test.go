// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"context"
	"testing"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Work of one queue passes its context to another queue's Context.
func TestQ6_ContextDerivedFromAnotherQueuesContextEndsWithIt(t *testing.T) {
	t.Skip("undecided: Context does not propagate the cancellation of its parent, so not that of another queue either")
	a, b := newOwner(ring.Active), newOwner(ring.Active)
	outer, _ := newQueue(t, a)
	inner, _ := newQueue(t, b)
	outer.Add(1)
	get(t, outer)
	inner.Add(2)
	get(t, inner)
	ctx := inner.Context(outer.Context(context.Background(), 1), 2)
	a.set(1, ring.Pending)
	endWork(outer, 1)
	if err := ctx.Err(); err == nil {
		t.Errorf("work on partition 1 continues after its drain: %v", context.Cause(ctx))
	}
	if err := Check(ctx); err == nil {
		t.Error("Check allows effects of work whose outer partition is drained")
	}
}
