// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"

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
