// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// leaseOf returns a Lease as it is on the server.
func leaseOf(t *testing.T, c *shardtest.Cluster, name string) coordinationv1.Lease {
	t.Helper()
	for _, l := range c.Leases(namespace) {
		if l.Name == name {
			return *l.DeepCopy()
		}
	}
	t.Fatalf("Lease %s does not exist", name)
	return coordinationv1.Lease{}
}

// oneOwnerAtMost fails if a key has two owners at any time.
func oneOwnerAtMost(t *testing.T, d time.Duration, members ...*member) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		for key, who := range owners(members...) {
			if len(who) > 1 {
				t.Fatalf("%q may work on %s", who, key)
			}
		}
	}
}

// A user removes all annotations from the Lease of a member that works and cannot restore
// them, and a new member starts: for it, the Lease is not foreign (R32, R50).
func TestR50_ALeaseOfAMemberIsNotForeignToANewcomer(t *testing.T) {
	heavy(t)
	for name, others := range map[string]int{"alone": 0, "with another member": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				b := start(t, cluster.Client("b"), "b")
				members := []*member{b}
				if others > 0 {
					members = append(members, start(t, cluster.Client("a"), "a"))
				}
				time.Sleep(10 * time.Second)
				oneOwnerEach(t, members...)
				cluster.Break("b", shardtest.Unreachable)
				l := leaseOf(t, cluster, "foo-b")
				l.Annotations = nil
				cluster.Put(&l)
				members = append(members, start(t, cluster.Client("c"), "c"))
				oneOwnerAtMost(t, 20*time.Second, members...)
				b.end()
				end(t, members[1:]...)
			})
		})
	}
}

// The record of a Lease that was released or evicted is applied again to the Lease that a
// later incarnation of the same name holds, and works with: it is an edit (R32, R45).
func TestR45_AnOldVoidRecordIsNoRelease(t *testing.T) {
	heavy(t)
	for name, crash := range map[string]bool{"released": false, "evicted": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				a, b := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")
				time.Sleep(10 * time.Second)
				oneOwnerEach(t, a, b)
				if crash {
					cluster.Break("b", shardtest.Unreachable)
					time.Sleep(20 * time.Second)
				}
				_ = b.end()
				void := leaseOf(t, cluster, "foo-b")
				if *void.Spec.HolderIdentity != "" {
					t.Fatal("the Lease is not void")
				}
				cluster.ClearFault("b")
				b = start(t, cluster.Client("b"), "b", func(c *shard.Config) { c.PodUID = podUID("b2") })
				time.Sleep(10 * time.Second)
				oneOwnerEach(t, a, b)
				cluster.Break("b", shardtest.Unreachable)
				l := leaseOf(t, cluster, "foo-b")
				l.Annotations, l.Spec = void.Annotations, void.Spec
				cluster.Put(&l)
				oneOwnerAtMost(t, 20*time.Second, a, b)
				_ = b.end()
				end(t, a)
			})
		})
	}
}

// A member with a long lease duration has left. An hour later all members crash: the members
// that follow them do not wait for that duration (L1, R49).
func TestR49_ADurationIsForgottenWithItsMember(t *testing.T) {
	heavy(t)
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a, b := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")
		long := start(t, cluster.Client("long"), "long", func(c *shard.Config) { c.LeaseDuration = 10 * time.Minute })
		time.Sleep(10 * time.Second)
		oneOwnerEach(t, a, b, long)
		end(t, long)
		time.Sleep(time.Hour)
		cluster.Break("a", shardtest.Unreachable)
		cluster.Break("b", shardtest.Unreachable)
		_, _ = a.end(), b.end()
		c, d := start(t, cluster.Client("c"), "c"), start(t, cluster.Client("d"), "d")
		time.Sleep(20 * time.Second)
		oneOwnerEach(t, c, d)
		end(t, c, d)
	})
}

// A void Lease has lost its label: a new process of its Pod name still joins (R50).
func TestR50_AVoidLeaseWithoutALabelIsNotForeign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a, b := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")
		time.Sleep(3 * time.Second)
		end(t, b)
		l := leaseOf(t, cluster, "foo-b")
		l.Labels = nil
		cluster.Put(&l)
		b = start(t, cluster.Client("b"), "b")
		time.Sleep(5 * time.Second)
		oneOwnerEach(t, a, b)
		end(t, a, b)
	})
}
