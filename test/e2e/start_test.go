// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

// Three replicas start with existing objects. Each object is reconciled once, by one member,
// although the reconcile writes a Deployment and the Foo's status, which cause events.
func TestStartOnExistingObjects(t *testing.T) {
	repeat(t, testStartOnExistingObjects)
}

func testStartOnExistingObjects(t *attempt) {
	const members = 3
	objects := 1000
	if testing.Short() {
		objects = 300
	}
	w := newHarness(t)
	// Only the start must happen: no member may be evicted because the machine is busy.
	w.template.LeaseDuration = shard.DefaultLeaseDuration
	w.createFoos(0, objects)

	began := time.Now()
	replicas := w.startMany(0, members, func(c *replica.Config) { c.Workers = 4 })
	w.waitPlaced(replicas...)
	placed := time.Since(began)
	p := w.waitWorked(replicas...)
	worked := time.Since(began)
	w.waitQuiet(3 * time.Second) // the effect of a status write would be immediate

	report := w.check(true)
	figures.add(fmt.Sprintf("reconciles when %d replicas start on %d objects", members, objects), fmt.Sprint(report.Reconciles), fmt.Sprint(objects))
	figures.add("  until all partitions are active, until all objects are processed",
		fmt.Sprintf("%v, %v", placed.Round(10*time.Millisecond), worked.Round(10*time.Millisecond)), "")
	if report.Reconciles != objects || report.KeysByReconciles[1] != objects {
		t.Errorf("%d reconciles of %d objects (times reconciled: how many objects): %v", report.Reconciles, objects, report.KeysByReconciles)
	}
	if report.Failed != 0 {
		t.Errorf("%d reconciles failed", report.Failed)
	}
	foos, err := w.listFoos()
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for name := range foos {
		keys = append(keys, w.key(name))
	}
	for pod, n := range p.counts(keys) {
		t.Logf("%s owns %d objects", pod, n)
		if pod == "" || n == 0 {
			t.Errorf("member %q owns %d objects", pod, n)
		}
	}
	w.stop(replicas...)
}
