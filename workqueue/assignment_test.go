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

type permitOwner struct{ fenced bool }

func (permitOwner) State(uint64) ring.State { return ring.Active }
func (o *permitOwner) Fenced() bool         { return o.fenced }

func TestCheck_KnowsMoreThanTheContext(t *testing.T) {
	owner := &permitOwner{}
	q := workqueue.New(clientworkqueue.DefaultTypedControllerRateLimiter[string](), workqueue.Options[string]{
		Ownership: owner,
		Point: func(item string) (uint64, error) {
			if item == "nowhere" {
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
		t.Errorf("permit %+v %v", p, ok)
	}
	if err := workqueue.Check(ctx); err != nil {
		t.Error(err)
	}
	owner.fenced = true // nobody has called Fence yet
	if err := workqueue.Check(ctx); !errors.Is(err, workqueue.ErrFenced) || ctx.Err() != nil {
		t.Errorf("check of a fenced member's work: %v", err)
	}
	owner.fenced = false
	q.Done("a")
	if err := workqueue.Check(ctx); !errors.Is(err, workqueue.ErrDone) {
		t.Errorf("check of work that is done: %v", err)
	}
	if q.Len() != 1 {
		t.Fatal("what the fence had refused is not queued again")
	}
	q.Get()
	q.Done("a")
	derived, cancel := context.WithCancel(work("a"))
	cancel()
	if err := workqueue.Check(derived); err != context.Canceled {
		t.Errorf("check of a context that its caller has ended: %v", err)
	}
	q.Drain(func(uint64) bool { return true })
	if err := workqueue.Check(derived); err != workqueue.ErrDraining {
		t.Errorf("check of a context that its caller has ended, while draining: %v", err)
	}
	q.Done("a")
	if q.Len() != 1 {
		t.Fatal("what the drain has interrupted is not queued again")
	}
	q.Get()
	q.Done("a")
	if _, ok := workqueue.FromContext(work("nowhere")); ok {
		t.Error("an item that lies nowhere has a permit")
	}
	q.Done("nowhere")
	if err := workqueue.Check(context.Background()); err != nil {
		t.Errorf("check of a context of no queue: %v", err)
	}
}
