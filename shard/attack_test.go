// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// R49, S1: a node is cut off, the Pod x on it is force-deleted, and the garbage collector deletes its
// Lease. Pod b of a rolling update stops while its watch lags by 5 s (less than WatchLagLimit), so it does
// not know of that. Pod a starts: the list from which its Lease watch starts is served while b is active, and
// answered 2 s later, after the quorum list that shows that b has left. a must wait for LeaseDuration.
// See TestAttackR49_AFirstListOlderThanTheQuorumListIsNoColdStart of package claim.
func TestAttackR49_ASlowFirstListDuringARollingUpdate(t *testing.T) {
	t.Skip("a takes this for a cold start, and works together with x until the fence of x")
	for name, slow := range map[string]time.Duration{"the first list of the watch is slow": 2 * time.Second, "control: it is not": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				lagging := newPlannedClient(cluster.Client("b"), func(string) trip { return trip{} })
				x := start(t, cluster.Client("x"), "x")
				b := start(t, lagging, "b")
				time.Sleep(20 * time.Second)
				oneOwnerEach(t, x, b)

				lagging.delay(5 * time.Second)
				cluster.Break("x", shardtest.Unreachable)
				time.Sleep(10 * time.Millisecond)
				cluster.Remove(namespace, "foo-x")

				var lists atomic.Int32
				a := start(t, newPlannedClient(cluster.Client("a"), func(verb string) trip {
					switch {
					case verb == "list" && lists.Add(1) == 2: // the first one checks the access
						return trip{back: slow}
					case verb == "get":
						return trip{there: 200 * time.Millisecond}
					}
					return trip{}
				}), "a")
				time.Sleep(100 * time.Millisecond)
				b.stop()
				if n := twoAtWork(20*time.Second, x, a); n > 0 {
					t.Errorf("two members may work on %d keys at once", n)
				}
			})
		})
	}
}
