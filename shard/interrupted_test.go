// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// A member joins, and leaves again before the drain for it has ended. One piece of work
// has stopped for the drain, as ErrDraining requires. Another one on the same partition
// takes longer, so that the partition is not released.
func TestG4_InterruptedWorkIsDoneAgainWhenTheDrainIsCancelled(t *testing.T) {
	predecessor(t, func(t *testing.T, cluster *shardtest.Cluster, objects *objects) {
		for i := range 1500 {
			objects.write(objectName(i))
		}
		a := control(t, cluster, objects, "a", 0)
		time.Sleep(10 * time.Second)
		hasty, slow := twoOfOnePartition(t, a.taken(), "b")
		a.queue.AddRateLimited(hasty) // it has failed before
		a.queue.AddRateLimited(slow)
		time.Sleep(time.Second)
		stopped := make(chan error, 2)
		for range 2 {
			item, _ := a.queue.Get()
			ctx := a.queue.Context(context.Background(), item)
			go func() {
				<-ctx.Done()
				if item == slow {
					time.Sleep(5 * time.Second)
				} else {
					stopped <- context.Cause(ctx)
				}
				a.queue.Done(item)
			}()
		}
		b := start(t, cluster.Client("b"), "b")
		if cause := <-stopped; !errors.Is(cause, shard.ErrDraining) {
			t.Errorf("the work was interrupted with %v", cause)
		}
		time.Sleep(2 * time.Second)
		if a.queue.Len() != 0 || a.member.Parked() == 0 {
			t.Errorf("%d queued and %d parked while the partition is drained", a.queue.Len(), a.member.Parked())
		}
		end(t, b)
		time.Sleep(time.Minute)
		again := a.taken()
		for _, item := range []cache.ObjectName{hasty, slow} {
			if !a.OwnsKey(item.String()) || !slices.Contains(again, item.String()) {
				t.Errorf("a owns %v: %v; it is among the %d objects that are to be worked on: %v",
					item, a.OwnsKey(item.String()), len(again), slices.Contains(again, item.String()))
			}
		}
		a.close(t)
	})
}

// twoOfOnePartition returns two of the keys that are in one partition. The ring of a and b
// assigns that partition to the owner.
func twoOfOnePartition(t *testing.T, keys []string, owner string) (one, two cache.ObjectName) {
	t.Helper()
	parameters := ring.DefaultParameters()
	r, err := ring.New(parameters, []string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	first := map[int]cache.ObjectName{}
	for _, key := range keys {
		name, err := cache.ParseObjectName(key)
		if err != nil {
			t.Fatal(err)
		}
		p := ring.PartitionOf(ring.PointOfName(name.Namespace, name.Name), parameters.Partitions)
		if who, _ := r.Owner(p); who != owner {
			continue
		}
		if other, found := first[p]; found {
			return other, name
		}
		first[p] = name
	}
	t.Fatal("no two keys are in one partition")
	return one, two
}
