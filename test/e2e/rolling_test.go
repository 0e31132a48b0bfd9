// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

// A rolling update changes the ring's parameters: all members, including new ones, use the
// old parameters until the last old member has left.
func TestRollingUpdateOfTheRingParameters(t *testing.T) {
	soak(t)
	repeat(t, testRollingUpdateOfTheRingParameters)
}

func testRollingUpdateOfTheRingParameters(t *attempt) {
	const objects, members, partitions = 120, 3, 251
	w := newHarness(t)
	w.workAlone = true
	w.createFoos(0, objects)
	replicas := w.startMany(0, members)
	w.waitWorked(replicas...)
	stopChurn := w.churn(objects, 40)

	began := time.Now()
	var updated []*replica.Process
	for i := range members {
		// As in a Deployment: first a new member joins, then an old one leaves.
		updated = append(updated, w.start(fmt.Sprintf("new-%d", i), args(fmt.Sprintf("--partitions=%d", partitions))))
		both := append(append([]*replica.Process{}, replicas[i:]...), updated...)
		if p := w.waitPlaced(both...); p.partitions != ring.DefaultPartitions {
			t.Errorf("%d partitions with %d old members", p.partitions, len(replicas)-i)
		}
		w.stop(replicas[i])
	}
	p := w.waitPlaced(updated...)
	took := time.Since(began)
	if p.partitions != partitions {
		t.Errorf("%d partitions after the last old member has left, want %d", p.partitions, partitions)
	}
	time.Sleep(leaseDuration)
	changes := stopChurn()
	w.waitWorked(updated...)
	report := w.check(true)
	figures.add(fmt.Sprintf("rolling update of %d members from %d to %d partitions", members, ring.DefaultPartitions, partitions), took.Round(10*time.Millisecond).String(), "")
	figures.add("  changes during the update, reconciles, overlaps, losses",
		fmt.Sprintf("%d, %d, %d, %d", changes, report.Reconciles, len(report.Overlaps), len(report.Losses)), "overlaps and losses 0")

	// No Lease claimed partitions of the new ring while an old member claimed old ones.
	w.sync()
	last := int64(0) // revision of the last claim of an old member
	first := int64(0)
	for _, v := range w.log.Leases() {
		if v.Lease == nil {
			continue
		}
		decoded, err := inspect.Decode(v.Lease, w.ring)
		if err != nil || decoded.Claims.Empty() {
			continue
		}
		if decoded.Parameters.Partitions == ring.DefaultPartitions {
			last = v.Revision
		}
		if first == 0 && decoded.Claims.Set.Partitions() == partitions {
			first = v.Revision
		}
	}
	if first == 0 || first < last {
		t.Errorf("the new partitions were first claimed in revision %d, but the last claim of an old member is of revision %d", first, last)
	}
	w.stop(updated...)
}
