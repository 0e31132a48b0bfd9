// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/controlplane"
)

// The API server is down for longer than Leases last: every member stops working, and resumes
// with the same partitions when the server is back. Nothing moves, no member is evicted.
func TestOutageOfTheAPIServer(t *testing.T) {
	soak(t)
	repeat(t, testOutageOfTheAPIServer)
}

func testOutageOfTheAPIServer(t *attempt) {
	const objects, members = 90, 3
	w := newHarnessOn(t, ownPlane(t, controlplane.Options{}))
	w.createFoos(0, objects)
	replicas := w.startMany(0, members, args("--reconcile-delay=300ms", "--workers=2"))
	before := w.waitWorked(replicas...)
	identities := map[string][]string{}
	for _, r := range replicas {
		identities[r.Pod()] = w.holders(r.Pod())
	}

	// More work than can be done before the fence.
	w.eachFoo(0, objects, func(name string) error {
		return w.patchFoo(name, `{"spec":{"replicas":2}}`)
	})
	down := time.Now()
	w.plane.down.Store(true)
	w.plane.cp.APIServer.Kill()
	w.eventually("all members are fenced", func(ctx context.Context) error {
		for _, r := range replicas {
			fenced, err := r.Metric(ctx, "sharding_fenced")
			if err != nil {
				return err
			}
			if fenced != 1 {
				return fmt.Errorf("%s is not fenced", r)
			}
		}
		return nil
	})
	fencedAt, since := time.Since(down), now()
	time.Sleep(2*leaseDuration - fencedAt)
	if n := w.starts(nil, since); n != 0 {
		t.Brokenf("%d reconciles were begun while all members were fenced", n)
	}
	for _, r := range replicas {
		if err := r.Healthy(t.Context()); err != nil {
			t.Error(err)
		}
		if err := r.Ready(t.Context()); err == nil {
			t.Errorf("%s reports that it is ready", r)
		}
	}

	up, upAt := time.Now(), now()
	if err := w.plane.cp.APIServer.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.plane.down.Store(false)
	ready := time.Now()
	after := w.waitPlaced(replicas...)
	resumed := time.Since(ready)
	w.eachFoo(0, objects, func(name string) error { return w.patchFoo(name, `{"spec":{"replicas":3}}`) })
	w.waitWorked(replicas...)
	w.check(true)

	figures.add(fmt.Sprintf("API server down for %v: all members fenced after", up.Sub(down).Round(100*time.Millisecond)), fencedAt.Round(10*time.Millisecond).String(), "renew deadline "+(leaseDuration*3/5).String())
	figures.add("  all partitions active again, after the server is ready", resumed.Round(10*time.Millisecond).String(), "")
	if !maps.Equal(before.owner, after.owner) {
		t.Error("partitions moved")
	}
	for _, r := range replicas {
		if holders := w.holders(r.Pod()); len(holders) != 1 || holders[0] != identities[r.Pod()][0] {
			t.Errorf("the Lease of %s was held by %v", r, holders)
		}
	}
	if n := w.metric(replicas, "sharding_evictions_total"); n != 0 {
		t.Errorf("%v evictions", n)
	}
	if n := w.metric(replicas, "sharding_fence_trips_total"); n < members {
		t.Errorf("%v times fenced, want at least %d", n, members)
	}
	if n := w.starts(nil, upAt); n == 0 {
		t.Error("nothing was worked on after the outage")
	}
	w.stop(replicas...)
}
