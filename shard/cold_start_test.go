// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// R49, S1: a node is cut off, the Pod x on it is force-deleted, and the garbage collector deletes its
// Lease. The watch of b, the only other member, lags by 5 s (less than WatchLagLimit), so b does not
// know that when it is stopped. It leaves its void Lease, which shows the one that starts next that
// members were at work, but not all that it must know.
func TestR49_AReleasedLeaseIsNoColdStart(t *testing.T) {
	for _, next := range []string{"a", "b"} { // "b": a Pod of the same name
		t.Run(next, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				lagging := newPlannedClient(cluster.Client("b"), func(string) trip { return trip{} })
				x := start(t, cluster.Client("x"), "x")
				b := start(t, lagging, "b", withPodUID(t, "uid-1"))
				time.Sleep(20 * time.Second)
				oneOwnerEach(t, x, b)
				lagging.delay(5 * time.Second)
				cluster.Break("x", shardtest.Unreachable)
				time.Sleep(10 * time.Millisecond)
				cluster.Remove(namespace, "foo-x")
				b.stop()
				time.Sleep(200 * time.Millisecond)
				a := start(t, cluster.Client("a"), next, withPodUID(t, "uid-2"))
				if n := twoAtWork(20*time.Second, x, a); n > 0 {
					t.Errorf("two members may work on %d keys at once", n)
				}
				oneOwnerEach(t, a)
			})
		})
	}
}
