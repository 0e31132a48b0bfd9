// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue_test

import (
	"context"
	"fmt"
	"sync/atomic"

	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// ownership implements what package shard implements for users. One partition has the
// given state; this member owns no others.
type ownership struct {
	partition int
	state     atomic.Uint32
}

func (o *ownership) State(point uint64) ring.State {
	if ring.PartitionOf(point, ring.DefaultPartitions) != o.partition {
		return ring.NotOwned
	}
	return ring.State(o.state.Load())
}

func (o *ownership) Fenced() bool { return false }

// An item during a handover: it is parked while its partition is pending, handed out once
// the partition is active, and its context is cancelled when the partition is drained.
// Users get their queue from shard.NewQueue; the Sharder then does what "the loop" does
// here.
func Example() {
	item := cache.ObjectName{Namespace: "default", Name: "foo"}
	point := func(item cache.ObjectName) (uint64, error) { return ring.PointOfName(item.Namespace, item.Name), nil }

	p, _ := point(item)
	own := &ownership{partition: ring.PartitionOf(p, ring.DefaultPartitions)}
	own.state.Store(uint32(ring.Pending))

	queue := workqueue.New(clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName](),
		workqueue.Options[cache.ObjectName]{Ownership: own, Point: point})
	defer queue.ShutDown()

	queue.Add(cache.ObjectName{Namespace: "default", Name: "of-another-member"})
	queue.Add(item)
	fmt.Println("queued:", queue.Len(), "parked:", queue.Parked())

	// The loop: the partition is active.
	own.state.Store(uint32(ring.Active))
	queue.Readmit()

	// A worker.
	got, _ := queue.Get()
	ctx := queue.Context(context.Background(), got)
	fmt.Println("working on", got)

	// The loop: another member wants the partition.
	own.state.Store(uint32(ring.Pending))
	queue.OnDone(func() { fmt.Println("in flight:", len(queue.InFlight())) })
	all := func(uint64) bool { return true }
	queue.Drain(all)  // the work may end by itself,
	queue.Cancel(all) // but not for long

	// The worker notices this, stops and calls Done. The loop may then release the partition.
	<-ctx.Done()
	fmt.Println(context.Cause(ctx))
	queue.Done(got)

	// Output:
	// queued: 0 parked: 1
	// working on default/foo
	// workqueue: the item's partition is being drained
	// in flight: 0
}
