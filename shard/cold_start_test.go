// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// R49, S1: a node is cut off, the Pod x on it is force-deleted, and the garbage collector deletes its
// Lease. The watch of b, the only other member, lags by 5 s (less than WatchLagLimit), so b does not
// know that when it is stopped. It leaves its void Lease, which shows the one that starts next that
// members were at work, but not all that it must know.
//
// R39: another one that starts meanwhile, c, must wait, too, and is stopped before it may work. What has
// shown it that members were at work must not be gone for the next one.
func TestR49_AReleasedLeaseIsNoColdStart(t *testing.T) {
	for _, tt := range []struct {
		next      string // "b": a Pod of the same name
		meanwhile bool
	}{{"a", false}, {"b", false}, {"a", true}, {"b", true}} {
		t.Run(fmt.Sprint(tt.next, tt.meanwhile), func(t *testing.T) {
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
				if tt.meanwhile {
					c := start(t, cluster.Client("c"), "c")
					time.Sleep(time.Second)
					c.stop()
				}
				a := start(t, cluster.Client("a"), tt.next, withPodUID(t, "uid-2"))
				if n := twoAtWork(20*time.Second, x, a); n > 0 {
					t.Errorf("two members may work on %d keys at once", n)
				}
				oneOwnerEach(t, a)
			})
		})
	}
}

// R29, R39, S1: a node is cut off, the Pod x on it is force-deleted, and the garbage collector deletes
// its Lease. The only other member, b, has seen that and has a tombstone. b is stopped, as by a
// Deployment with the strategy Recreate. It sees no held Lease, but it must not leave without a trace of
// the tombstone: for its replacement, a, that would be a cold start.
func TestR39_TheLastMemberLeavesItsTombstonesToTheNextOne(t *testing.T) {
	for name, c := range map[string]struct {
		early   bool          // a starts before b stops
		pause   time.Duration // between the stop of b and the start of a
		collect bool          // a starts when b has stopped, and the garbage collector deletes b's Lease first
	}{
		"a starts a second after b stops":             {pause: time.Second},
		"a starts at once":                            {},
		"a starts when b and its Lease are gone":      {collect: true},
		"control: a starts half a second before that": {early: true, pause: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				x := start(t, cluster.Client("x"), "x")
				b := start(t, cluster.Client("b"), "b")
				time.Sleep(20 * time.Second)
				oneOwnerEach(t, x, b)
				cluster.Break("x", shardtest.Unreachable)
				time.Sleep(100 * time.Millisecond)
				cluster.Remove(namespace, "foo-x")
				time.Sleep(time.Second)
				var a *member
				if c.early {
					a = start(t, cluster.Client("a"), "a")
					time.Sleep(500 * time.Millisecond)
				}
				stopped := time.Now()
				b.stop()
				if c.collect {
					if err := <-b.done; err != nil {
						t.Error(err)
					}
					cluster.Remove(namespace, "foo-b")
				}
				time.Sleep(c.pause)
				if a == nil {
					a = start(t, cluster.Client("a"), "a")
				}
				if n := twoAtWork(20*time.Second, x, a); n > 0 {
					t.Errorf("two members may work on %d keys at once", n)
				}
				oneOwnerEach(t, a)
				if c.collect {
					if left := cluster.Leases(namespace); len(left) != 1 {
						t.Errorf("%d Leases are left", len(left))
					}
					if !contains(b.logged(stopped), "stops later") {
						t.Errorf("b does not say what it waits for: %q", b.logged(stopped))
					}
				} else if err := <-b.done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// R39, S1: a drains, with an item in flight. b renews: it is a's heir. Only then is x cut off and its Lease
// deleted. a sees that and has a tombstone; the watch of b lags by 5 s (less than WatchLagLimit), so b has
// none. The item ends. b's record is newer than a's drain, but older than a's tombstone, so a does not
// leave yet. b stops before its watch shows the deletion. The garbage collector deletes both Leases.
func TestR39_AnHeirThatIsOlderThanTheTombstone(t *testing.T) {
	for name, lag := range map[string]time.Duration{"the watch of the heir lags": 5 * time.Second, "it does not": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				lagging := newPlannedClient(cluster.Client("b"), func(string) trip { return trip{} })
				x := start(t, cluster.Client("x"), "x")
				a := start(t, cluster.Client("a"), "a")
				b := start(t, lagging, "b")
				queue := shard.NewQueue(a.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
				t.Cleanup(queue.ShutDown)
				time.Sleep(20 * time.Second)
				oneOwnerEach(t, x, a, b)
				var item cache.ObjectName
				for _, key := range manyKeys {
					if a.OwnsKey(key) {
						item, _ = cache.ParseObjectName(key)
					}
				}
				queue.Add(item)
				queue.Get()
				a.stop()
				time.Sleep(3500 * time.Millisecond) // b has renewed its Lease
				lagging.delay(lag)
				cluster.Break("x", shardtest.Unreachable)
				time.Sleep(10 * time.Millisecond)
				cluster.Remove(namespace, "foo-x")
				time.Sleep(100 * time.Millisecond)
				queue.Done(item)
				time.Sleep(100 * time.Millisecond)
				b.stop()
				for name, m := range map[string]*member{"foo-a": a, "foo-b": b} {
					if err := <-m.done; err != nil {
						t.Error(err)
					}
					cluster.Remove(namespace, name) // the garbage collector
				}
				c := start(t, cluster.Client("c"), "c")
				if n := twoAtWork(20*time.Second, x, c); n > 0 {
					t.Errorf("two members may work on %d keys at once", n)
				}
				oneOwnerEach(t, c)
			})
		})
	}
}
