// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue_test

import (
	"context"
	"errors"
	"testing"

	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

type fencedOwner struct{ fenced bool }

func (fencedOwner) State(uint64) ring.State { return ring.Active }
func (o *fencedOwner) Fenced() bool         { return o.fenced }

func TestCheck(t *testing.T) {
	owner := &fencedOwner{}
	q := workqueue.New(clientworkqueue.DefaultTypedControllerRateLimiter[string](), workqueue.Options[string]{
		Ownership: owner,
		Point: func(item string) (uint64, error) {
			if item == "unkeyed" {
				return 0, errors.New("no point")
			}
			return 7, nil
		},
	})
	defer q.ShutDown()
	work := func(item string) context.Context {
		q.Add(item)
		got, _ := q.Get()
		return q.Context(context.Background(), got)
	}
	ctx := work("a")
	if p, ok := workqueue.FromContext(ctx); !ok || p.Point != 7 || p.Owner != workqueue.Ownership(owner) {
		t.Errorf("FromContext = %+v, %v", p, ok)
	}
	if err := workqueue.Check(ctx); err != nil {
		t.Error(err)
	}
	owner.fenced = true // Fence was not called yet
	if err := workqueue.Check(ctx); !errors.Is(err, workqueue.ErrFenced) || ctx.Err() != nil {
		t.Errorf("Check of a fenced member's work: %v", err)
	}
	owner.fenced = false
	q.Done("a")
	if err := workqueue.Check(ctx); !errors.Is(err, workqueue.ErrDone) {
		t.Errorf("Check of work that is done: %v", err)
	}
	if q.Len() != 1 {
		t.Fatal("the item of the refused work is not queued again")
	}
	q.Get()
	q.Done("a")
	derived, cancel := context.WithCancel(work("a"))
	cancel()
	if err := workqueue.Check(derived); err != context.Canceled {
		t.Errorf("Check of a context that its caller ended: %v", err)
	}
	q.Drain(func(uint64) bool { return true })
	if err := workqueue.Check(derived); err != context.Canceled {
		t.Errorf("Check while draining, before Cancel: %v", err)
	}
	q.Cancel(func(uint64) bool { return true })
	if err := workqueue.Check(derived); err != workqueue.ErrDraining {
		t.Errorf("Check of a context that its caller ended, while draining: %v", err)
	}
	q.Done("a")
	if q.Len() != 1 {
		t.Fatal("the item of the interrupted work is not queued again")
	}
	q.Get()
	q.Done("a")
	if _, ok := workqueue.FromContext(work("unkeyed")); ok {
		t.Error("an item without a point has an assignment")
	}
	q.Done("unkeyed")
	if err := workqueue.Check(context.Background()); err != nil {
		t.Errorf("Check of a context that comes from no queue: %v", err)
	}
}
