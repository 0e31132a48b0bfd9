// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

func leaseLabels(labels map[string]string) func(*shard.Config) {
	return func(c *shard.Config) { c.LeaseLabels = labels }
}

// Members select their peers only by the label of the ring. A rolling update that adds,
// changes and removes other labels must not divide the ring.
func TestLeaseLabels_ARollingUpdateDoesNotDivideTheRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		pods := []string{"a", "b", "c"}
		members := map[string]*member{}
		all := func() (list []*member) {
			for _, pod := range pods {
				list = append(list, members[pod])
			}
			return list
		}
		steps := []map[string]string{
			nil,
			{"team": "x"},                 // adds one
			{"team": "y"},                 // changes it
			{"team": "y", "env": "prod"},  // adds a second one
			{"example.com/env": "staged"}, // removes both, and adds another
			nil,                           // removes all
		}
		for _, pod := range pods {
			members[pod] = start(t, cluster.Client(pod), pod, leaseLabels(steps[0]))
		}
		time.Sleep(10 * time.Second)
		oneOwnerEach(t, all()...)
		for n, labels := range steps[1:] {
			for _, pod := range pods {
				old := members[pod]
				if err := old.end(); err != nil {
					t.Errorf("%s: %v", pod, err)
				}
				members[pod] = start(t, cluster.Client(pod), pod, leaseLabels(labels))
				if two := twoAtWork(3*time.Second, all()...); two > 0 {
					t.Fatalf("step %d, %s: two members may work on %d keys at once", n+1, pod, two)
				}
				oneOwnerEach(t, all()...)
				if got := members[pod].Members(); len(got) != len(pods) {
					t.Errorf("step %d: %s sees the members %q", n+1, pod, got)
				}
			}
			for _, l := range cluster.Leases(namespace) {
				got := maps.Clone(l.Labels)
				delete(got, "operator-scaling.tom-ludwig.github.io/ring")
				if !maps.Equal(got, labels) {
					t.Errorf("step %d: the Lease %s has the labels %v, want %v", n+1, l.Name, got, labels)
				}
			}
		}
		for _, m := range all() {
			_ = m.end()
		}
	})
}

// A member with other labels evicts a crashed member and deletes its Lease.
func TestLeaseLabels_AMemberWithOtherLabelsIsEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a", leaseLabels(map[string]string{"team": "x"}))
		b := start(t, cluster.Client("b"), "b", leaseLabels(map[string]string{"team": "y"}))
		time.Sleep(10 * time.Second)
		oneOwnerEach(t, a, b)
		cluster.Break("b", shardtest.Unreachable)
		time.Sleep(17 * time.Second)
		oneOwnerEach(t, a)
		time.Sleep(20 * time.Second)
		if n := len(cluster.Leases(namespace)); n != 1 {
			t.Errorf("%d Leases are left", n)
		}
		_ = a.end()
		_ = b.end()
	})
}

// LeasePrefix does not divide a ring either: it affects only the names of the Leases.
func TestLeasePrefix_DoesNotDivideARing(t *testing.T) {
	prefix := func(prefix string) func(*shard.Config) {
		return func(c *shard.Config) { c.LeasePrefix = prefix }
	}
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a", prefix("one-"))
		b := start(t, cluster.Client("b"), "b", prefix("two-"))
		time.Sleep(10 * time.Second)
		oneOwnerEach(t, a, b)

		// The same Pod name with both prefixes, as in a rolling update of a StatefulSet
		// whose Pod was force-deleted: two members with one name. No key has two owners,
		// and each key has one after the first member has ended.
		fresh := start(t, cluster.Client("fresh"), "b", prefix("one-"), withPodUID(t, "uid-2"))
		if two := twoAtWork(10*time.Second, a, b, fresh); two > 0 {
			t.Errorf("two members may work on %d keys at once", two)
		}
		unowned := 0
		for _, who := range owners(a, b, fresh) {
			if len(who) == 0 {
				unowned++
			}
		}
		t.Logf("two live members of one name: %d of 1000 keys have no owner; ready: %v, %v, %v", unowned, a.Ready(), b.Ready(), fresh.Ready())
		cluster.Break("b", shardtest.Unreachable)
		time.Sleep(100 * time.Millisecond)
		cluster.Remove(namespace, "two-b")
		if two := twoAtWork(20*time.Second, a, b, fresh); two > 0 {
			t.Errorf("two members may work on %d keys at once", two)
		}
		oneOwnerEach(t, a, fresh)
		for _, m := range []*member{a, b, fresh} {
			_ = m.end()
		}
	})
}

// A program changes the map that it has configured, perhaps for its next ring, while the member
// renews its Lease.
func TestLeaseLabels_AreCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		labels := map[string]string{"team": "x"}
		a := start(t, cluster.Client("a"), "a", leaseLabels(labels))
		labels["team"] = "not a label"
		time.Sleep(5 * time.Second)
		if got := cluster.Leases(namespace)[0].Labels["team"]; got != "x" {
			t.Errorf("the Lease has the label team=%q", got)
		}
		end(t, a)
	})
}

// A user removes the ring's label from the Lease of a member that is at work: its peers no
// longer see the Lease, but the member still works.
func TestRingLabel_RemovedFromAMemberAtWork(t *testing.T) {
	for name, cut := range map[string]bool{"that can write": false, "that is cut off": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				a, b := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")
				time.Sleep(10 * time.Second)
				oneOwnerEach(t, a, b)
				if cut {
					cluster.Break("b", shardtest.Unreachable)
				}
				for _, l := range cluster.Leases(namespace) {
					if l.Name == "foo-b" {
						delete(l.Labels, "operator-scaling.tom-ludwig.github.io/ring")
						cluster.Put(&l)
					}
				}
				if two := twoAtWork(20*time.Second, a, b); two > 0 {
					t.Errorf("two members may work on %d keys at once", two)
				}
				if cut {
					oneOwnerEach(t, a)
				} else {
					oneOwnerEach(t, a, b) // the next renewal of b restores the label
				}
				_ = a.end()
				_ = b.end()
			})
		})
	}
}
