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

// withPodUID sets the UID of a member's Pod. The UID is unique to the test and to this run of
// the tests, because all processes of a machine share the lock of a Pod.
func withPodUID(t *testing.T, uid string) func(*shard.Config) {
	return func(c *shard.Config) {
		c.PodUID = podUID(uid + t.Name())
	}
}

// twoAtWork returns the highest number of keys, during the given time, that more than one of
// the members may work on.
func twoAtWork(d time.Duration, members ...*member) (worst int) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(25 * time.Millisecond) {
		n := 0
		for _, who := range owners(members...) {
			if len(who) > 1 {
				n++
			}
		}
		worst = max(worst, n)
	}
	return worst
}

// A member is cut off, but not fenced yet. Its Pod is force-deleted, and the garbage collector
// deletes its Lease. The new member has watched that Lease.
func TestSameName_AHeldLeaseIsDeleted(t *testing.T) {
	for _, test := range []struct{ name, pod string }{
		{"a Pod of the same name", "op-0"},
		{"control: a Pod of another name", "op-1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				old := start(t, cluster.Client("old"), "op-0", withPodUID(t, "uid-1"))
				time.Sleep(10 * time.Second)
				oneOwnerEach(t, old)
				fresh := start(t, cluster.Client("fresh"), test.pod, withPodUID(t, "uid-2"))
				if test.pod == "op-0" {
					time.Sleep(3 * time.Second)
				}
				cluster.Break("old", shardtest.Unreachable)
				time.Sleep(100 * time.Millisecond)
				cluster.Remove(namespace, "foo-op-0")
				if n := twoAtWork(20*time.Second, old, fresh); n > 0 {
					t.Errorf("two members may work on %d keys at once", n)
				}
				oneOwnerEach(t, fresh) // within a lease duration and some seconds
				for _, m := range []*member{old, fresh} {
					_ = m.end()
				}
			})
		})
	}
}

func TestSameName_AHeldLeaseIsDeletedWithASlowPeer(t *testing.T) {
	heavy(t)
	for _, slow := range []time.Duration{5 * time.Millisecond, 400 * time.Millisecond, 2 * time.Second} {
		for seed := range uint64(10) {
			t.Run(fmt.Sprint(slow, "/seed=", seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cluster := shardtest.NewCluster()
					old := start(t, cluster.Client("old"), "op-0", withPodUID(t, "uid-1"))
					w := newFaultyClient(cluster.Client("peer"), seed)
					peer := start(t, w, "op-1", withPodUID(t, "uid-p"))
					time.Sleep(10 * time.Second)
					oneOwnerEach(t, old, peer)
					fresh := start(t, cluster.Client("fresh"), "op-0", withPodUID(t, "uid-2"))
					time.Sleep(3 * time.Second)
					w.set(false, slow)
					time.Sleep(time.Second)
					cluster.Break("old", shardtest.Unreachable)
					cluster.Remove(namespace, "foo-op-0")
					if n := twoAtWork(10*time.Second, old, fresh, peer); n > 0 {
						t.Errorf("two members may work on %d keys at once", n)
					}
					w.set(false, 0)
					time.Sleep(15 * time.Second)
					oneOwnerEach(t, fresh, peer)
					for _, m := range []*member{old, fresh, peer} {
						_ = m.end()
					}
				})
			})
		}
	}
}

// While a member whose Lease was deleted waits for its work to end, another process with
// its name works and loses its Lease, too. The member's next machine must learn of it.
func TestSameName_AHeldLeaseIsDeletedBetweenTwoMachines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		first := start(t, cluster.Client("first"), "op-0", withPodUID(t, "uid-1"))
		queue := shard.NewQueue(first.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
		defer queue.ShutDown()
		time.Sleep(10 * time.Second)
		oneOwnerEach(t, first)
		second := start(t, cluster.Client("second"), "op-0", withPodUID(t, "uid-2"))
		time.Sleep(5 * time.Second)
		queue.Add(cache.ObjectName{Namespace: "default", Name: "foo-1"})
		item, _ := queue.Get()
		cluster.Remove(namespace, "foo-op-0")
		if n := twoAtWork(18*time.Second, first, second); n > 0 {
			t.Errorf("two members may work on %d keys at once", n)
		}
		oneOwnerEach(t, second)
		cluster.Break("second", shardtest.Unreachable)
		cluster.Remove(namespace, "foo-op-0")
		time.Sleep(100 * time.Millisecond)
		queue.Done(item)
		if n := twoAtWork(20*time.Second, first, second); n > 0 {
			t.Errorf("two members may work on %d keys at once", n)
		}
		oneOwnerEach(t, first)
		for _, m := range []*member{first, second} {
			_ = m.end()
		}
	})
}

// A process that is proven to have ended blocks nothing: the new member works at once.
func TestSameName_AnEndedProcessBlocksNothing(t *testing.T) {
	for _, test := range []struct {
		name  string
		uid   string
		leave func(*shardtest.Cluster, *member)
	}{
		{"a release, another Pod", "uid-2", func(_ *shardtest.Cluster, old *member) { _ = old.end() }},
		{"a release, the same Pod", "uid-1", func(_ *shardtest.Cluster, old *member) { _ = old.end() }},
		{"an end without a release, the same Pod", "uid-1", func(cluster *shardtest.Cluster, old *member) {
			cluster.Break("old", shardtest.Unreachable)
			_ = old.end()
		}},
		{"and its Lease is deleted", "uid-1", func(cluster *shardtest.Cluster, old *member) {
			cluster.Break("old", shardtest.Unreachable)
			_ = old.end()
			time.AfterFunc(3*time.Millisecond, func() { cluster.Remove(namespace, "foo-op-0") })
		}},
	} {
		for _, watched := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/watched=%v", test.name, watched), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cluster := shardtest.NewCluster()
					old := start(t, cluster.Client("old"), "op-0", withPodUID(t, "uid-1"))
					time.Sleep(10 * time.Second)
					oneOwnerEach(t, old)
					if !watched {
						test.leave(cluster, old)
					}
					fresh := start(t, cluster.Client("fresh"), "op-0", withPodUID(t, test.uid))
					if watched {
						time.Sleep(5 * time.Second)
						test.leave(cluster, old)
					}
					time.Sleep(2500 * time.Millisecond) // including one second of StartupSettle
					oneOwnerEach(t, fresh)
					_ = fresh.end()
				})
			})
		}
	}
}

// A member's own Lease is deleted by hand while it works. The member stops all work, joins
// again under the same name, and does not wait for its own earlier claims.
func TestSameName_ADeletedLeaseOfItsOwnBlocksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "op-0", withPodUID(t, "uid-1"))
		time.Sleep(10 * time.Second)
		oneOwnerEach(t, a)
		for range 3 { // one deletion after the other, also while the member joins
			cluster.Remove(namespace, "foo-op-0")
			time.Sleep(700 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		oneOwnerEach(t, a)
		_ = a.end()
	})
}
