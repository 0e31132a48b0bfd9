// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"testing"
	"time"
)

// From one replica to five and back to two, under constant change of the objects: after each
// step every object has one owner, no change is lost, and no two members work on an object.
func TestScaleUnderConstantChange(t *testing.T) {
	repeat(t, testScaleUnderConstantChange)
}

func testScaleUnderConstantChange(t *attempt) {
	const objects = 200
	w := newHarness(t)
	w.createFoos(0, objects)
	replicas := w.startMany(0, 1)
	w.waitPlaced(replicas...)
	stopChurn := w.churn(objects, 150) // so many that there is always a write in flight

	step := func(what string, act func()) {
		t.Helper()
		before := w.placedNow()
		began := time.Now()
		act()
		p := w.waitPlaced(replicas...)
		took := time.Since(began)
		time.Sleep(leaseDuration) // work, with the new owners
		moved, counts := 0, map[string]int{}
		for i := range objects {
			key := w.key(fmt.Sprintf("foo-%d", i))
			if p.of(key) != before.of(key) {
				moved++
			}
			counts[p.of(key)]++
		}
		if counts[""] > 0 || len(counts) != len(replicas) {
			t.Errorf("%s: objects by owner: %v", what, counts)
		}
		figures.add(fmt.Sprintf("scale %s: all partitions active again after", what), took.Round(10*time.Millisecond).String(), "")
		figures.add("  objects that moved, objects by member", fmt.Sprintf("%d of %d, %v", moved, objects, values(counts)), "")
		w.check(false)
	}
	step("1 -> 5", func() { replicas = append(replicas, w.startMany(1, 5)...) })
	// The first and the last member leave, so that it is not always the newest one.
	step("5 -> 2", func() {
		leaving := append(replicas[:1:1], replicas[3:]...)
		replicas = replicas[1:3]
		w.stop(leaving...)
	})

	changes := stopChurn()
	w.waitWorked(replicas...)
	report := w.check(true)
	figures.add("  changes during the test, reconciles, handovers of objects, overlaps, losses",
		fmt.Sprintf("%d, %d, %d, %d, %d", changes, report.Reconciles, report.Moves, len(report.Overlaps), len(report.Losses)), "overlaps and losses 0")
	if report.Moves == 0 {
		t.Error("no handover took place")
	}
	w.stop(replicas...)
}
