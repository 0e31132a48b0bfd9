// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// A controller is stopped while its process continues to run (controllers may come and go): its queue is shut
// down, and its workers finish what is queued. The member must not forget the queue before: neither a drain nor
// the fence would wait for the work or end it.
func TestNoTwoMembersWorkOnAGainedItemAfterShutDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		time.Sleep(5 * time.Second)
		q := newTestQueue(a.Sharder)
		for i := range 100 {
			q.AddGained(cache.ObjectName{Namespace: "x", Name: objectName(i)})
		}
		q.ShutDown() // the workers are between two items
		// Another controller starts.
		other := shard.NewQueue(a.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
		defer other.ShutDown()

		b := start(t, cluster.Client("b"), "b")
		works := map[string]context.Context{}
		for {
			item, shutdown := q.Get() // each item takes long
			if shutdown {
				break
			}
			works[item.String()] = q.Context(context.Background(), item)
		}
		time.Sleep(10 * time.Second) // within the drain's grace and timeout
		n := 0
		for key, work := range works {
			if b.OwnsKey(key) && work.Err() == nil {
				n++
			}
		}
		if n > 0 {
			t.Errorf("two members work on each of %d of %d items; the contexts of the first have not ended", n, len(works))
		}
		for key := range works {
			q.Done(cache.ObjectName{Namespace: "x", Name: key[2:]})
		}
		end(t, a, b)
	})
}
