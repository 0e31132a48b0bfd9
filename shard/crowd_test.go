// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// bogusLease returns a copy of a member's Lease that another client may have made: that of an
// active member, with a valid checksum, which no member renews.
func bogusLease(of *coordinationv1.Lease, name string) *coordinationv1.Lease {
	l := of.DeepCopy()
	l.Name, l.UID, l.Spec.HolderIdentity = "foo-"+name, types.UID("uid-"+name), new(name+"_1")
	l.ResourceVersion = ""
	l.Annotations["operator-scaling.tom-ludwig.github.io/member"] = name
	delete(l.Annotations, "operator-scaling.tom-ludwig.github.io/pod-uid")
	l.Annotations[inspect.AnnotationChecksum] = inspect.Checksum(l)
	return l
}

// template returns the Lease of a member that was active.
func template(t *testing.T) *coordinationv1.Lease {
	cluster := shardtest.NewCluster()
	m := start(t, cluster.Client("t"), "t")
	time.Sleep(5 * time.Second)
	l := cluster.Leases(namespace)[0]
	end(t, m)
	return &l
}

// A member for which the ring has no room, because so many older ones are active, is not ready
// and says why. It evicts the others when they are silent, and then owns everything (R90).
func TestR90_AMemberThatIsLeftOutSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		of, cluster := template(t), shardtest.NewCluster()
		for i := range ring.MaxMembers + 3 {
			cluster.Put(bogusLease(of, fmt.Sprintf("bogus-%03d", i)))
		}
		began := time.Now()
		time.Sleep(time.Second)
		m := start(t, cluster.Client("a"), "a")
		time.Sleep(shard.DefaultLeaseDuration - 3*time.Second)
		if n := owned(m); n != 0 {
			t.Errorf("it owns %d keys", n)
		}
		if err := m.Ready(); err == nil || !strings.Contains(err.Error(), "not on the ring") {
			t.Errorf("Ready: %v", err)
		}
		if n := counted(t, m, "sharding_ring_members_left_out"); n != 4 {
			t.Errorf("the metric shows %v members left out, want 4", n)
		}
		lines := strings.Join(m.logged(began), "\n")
		if !strings.Contains(lines, "This member owns nothing") {
			t.Errorf("the log does not say it:\n%s", lines)
		}
		for _, line := range m.logged(began) {
			if len(line) > 1000 {
				t.Errorf("a line of %d bytes: %.200s", len(line), line)
			}
		}
		time.Sleep(10 * time.Second)
		oneOwnerEach(t, m)
		if err := m.Ready(); err != nil {
			t.Error(err)
		}
		if n := counted(t, m, "sharding_ring_members_left_out"); n != 0 {
			t.Errorf("the metric shows %v members left out", n)
		}
		if n := len(m.logged(began)); n > 150 {
			t.Errorf("%d lines", n)
		}
		end(t, m)
	})
}

func owned(m *member) (n int) {
	for _, who := range owners(m) {
		n += len(who)
	}
	return n
}
