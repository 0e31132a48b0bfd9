// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// withoutFiles runs f while this process may open no file and no socket.
func withoutFiles(t *testing.T, f func()) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}

// A process that cannot use the lock of its Pod works, but neither does it take over the
// Lease of an earlier process of its Pod, nor does a later process take over its Lease.
func TestRun_WithoutThePodsLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const uid = "operator-scaling.tom-ludwig.github.io/pod-uid"
		cluster := shardtest.NewCluster()
		first := start(t, cluster.Client("1"), "a")
		time.Sleep(5 * time.Second)
		cluster.Break("1", shardtest.Unreachable) // it crashes
		_ = first.end()

		var second *member
		withoutFiles(t, func() {
			second = start(t, cluster.Client("2"), "a")
			time.Sleep(5 * time.Second)
		})
		if second.Ready() == nil {
			t.Error("a process without the lock has taken over a Lease that has not expired")
		}
		time.Sleep(15 * time.Second)
		oneOwnerEach(t, second)
		l := cluster.Leases(namespace)[0]
		if l.Annotations[uid] != "" || len(l.OwnerReferences) != 0 {
			t.Errorf("the Lease has the UID %q and the owners %v of a Pod whose lock its process does not hold", l.Annotations[uid], l.OwnerReferences)
		}
		if log := second.logged(time.Time{}); !contains(log, "cannot be determined") {
			t.Errorf("the log does not report the error: %q", log)
		}

		third := start(t, cluster.Client("3"), "a") // it gets the lock, and the second process is alive
		time.Sleep(30 * time.Second)
		oneOwnerEach(t, second)
		if third.Ready() == nil {
			t.Error("a process with the lock has taken over the Lease of a live process")
		}
		end(t, second)
		time.Sleep(5 * time.Second)
		oneOwnerEach(t, third)
		end(t, third)
	})
}

// Run gives up on work that does not end. Another process of the Pod waits until it has ended.
func TestRun_KeepsThePodsLockWhileWorkIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		first := start(t, cluster.Client("1"), "op-0", withPodUID(t, "uid"), func(c *shard.Config) { c.DrainTimeout = time.Second })
		queue := shard.NewQueue(first.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
		defer queue.ShutDown()
		time.Sleep(5 * time.Second)
		items := []cache.ObjectName{{Namespace: "default", Name: "foo-1"}, {Namespace: "default", Name: "foo-2"}}
		for _, item := range items {
			queue.Add(item)
			queue.Get()
		}
		_ = queue.Context(context.Background(), items[0])
		twin := start(t, cluster.Client("2"), "op-0", withPodUID(t, "uid"))
		if err := first.end(); !errors.Is(err, shard.ErrDrainTimeout) {
			t.Fatalf("Run returned %v", err)
		}
		for range len(items) {
			runtime.GC() // it closes sockets that nothing refers to
			time.Sleep(30 * time.Second)
			if twin.Ready() == nil {
				t.Fatal("another process of the Pod works while work is in flight")
			}
			queue.Done(items[0])
			items = items[1:]
		}
		// The first process had released a part: the twin waits for members that it does not know of (R49).
		time.Sleep(shard.DefaultLeaseDuration + 5*time.Second)
		oneOwnerEach(t, twin)
		end(t, twin)
	})
}
