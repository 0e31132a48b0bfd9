// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/tom-ludwig/operator-scaling/test/replica"
)

// Two operators in one namespace: each has a complete ring of its own members, and changes in
// one ring do not affect the other.
func TestTwoRingsInOneNamespace(t *testing.T) {
	soak(t)
	t.Parallel()
	repeat(t, testTwoRingsInOneNamespace)
}

func testTwoRingsInOneNamespace(t *attempt) {
	const objects = 60
	a := newHarness(t)
	b := a.withRing("other")
	a.createFoos(0, objects)
	b.createFoos(0, objects)
	ofA := a.startMany(0, 2)
	ofB := []*replica.Process{b.start("other-0"), b.start("other-1")}
	a.waitWorked(ofA...)
	b.waitWorked(ofB...)

	sees := func(p *replica.Process, want ...string) {
		t.Helper()
		report, err := p.Report(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range report.Members {
			pod, _, _ := strings.Cut(m.Holder, "_")
			got = append(got, pod)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s sees the members %v, want %v", p, got, want)
		}
	}
	for _, p := range ofA {
		sees(p, "op-0", "op-1")
	}
	for _, p := range ofB {
		sees(p, "other-0", "other-1")
	}

	// A member of one ring leaves: the partitions of the other ring do not move.
	before := b.waitPlaced(ofB...)
	a.stop(ofA[0])
	a.waitWorked(ofA[1])
	after := b.waitPlaced(ofB...)
	for partition, owner := range before.owner {
		if after.owner[partition] != owner {
			t.Errorf("partition %d of the other ring went from %s to %s", partition, owner, after.owner[partition])
		}
	}
	if changes := b.metric(ofB, "sharding_ring_members_removed_total"); changes != 0 {
		t.Errorf("the other ring lost %v members", changes)
	}
	if foreign := a.metric(ofA[1:], "sharding_lease_faults_total") + b.metric(ofB, "sharding_lease_faults_total"); foreign != 0 {
		t.Errorf("%v unreadable Leases: one ring saw those of the other", foreign)
	}
	for _, w := range []*harness{a, b} {
		for _, h := range w.histories() {
			for _, r := range h.Records {
				if r.Key != "" && !strings.HasPrefix(r.Key, w.namespace+"/") {
					t.Fatalf("%s worked on %s", h.Name, r.Key)
				}
			}
		}
	}
	a.check(true)
	b.check(true)
	a.stop(ofA[1])
	b.stop(ofB...)
}
