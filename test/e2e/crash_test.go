// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/inspect"
)

// When the Lease of a killed replica has expired, a peer voids it, and the other members take
// over the replica's objects. The Lease is deleted later.
func TestKill(t *testing.T) {
	repeat(t, func(t *attempt) { testKill(t, leaseDuration) })
}

// The same test with the default durations, for the measurements.
func TestKillWithDefaults(t *testing.T) {
	soak(t)
	repeat(t, func(t *attempt) { testKill(t, shard.DefaultLeaseDuration) })
}

func testKill(t *attempt, duration time.Duration) {
	const objects, members = 300, 3
	w := newHarness(t)
	w.template.LeaseDuration = duration
	w.createFoos(0, objects)
	replicas := w.startMany(0, members)
	before := w.waitWorked(replicas...)
	stopChurn := w.churn(objects, 20)
	time.Sleep(duration / 3) // at any moment between two heartbeats

	victim, rest := replicas[1], replicas[:1:1]
	rest = append(rest, replicas[2:]...)
	killed := time.Now()
	victim.Kill()
	w.waitPlaced(rest...)
	time.Sleep(duration / 3)
	stopChurn()
	after := w.waitWorked(rest...)
	w.check(true)

	// From the kill to the next member's work, for each object that the victim owned.
	var unowned []time.Duration
	for _, h := range w.log.Handovers(w.ring, w.histories()) {
		if h.From.Member == victim.Pod() {
			unowned = append(unowned, h.Worked.Sub(killed))
		}
	}
	moved := 0
	for i := range objects {
		key := w.key(fmt.Sprintf("foo-%d", i))
		switch {
		case before.of(key) == victim.Pod():
			moved++
		case before.of(key) != after.of(key):
			t.Errorf("%s moved from %s to %s, although both are alive", key, before.of(key), after.of(key))
		}
	}
	if len(unowned) < moved {
		t.Errorf("the victim had %d objects, %d were taken over", moved, len(unowned))
	}
	figures.add(fmt.Sprintf("kill -9, Lease duration %v: from the kill to the next member's work on an object", duration),
		quantiles(unowned), fmt.Sprintf("max %v", duration+2*time.Second))
	for _, u := range unowned {
		if u > duration+30*time.Second {
			t.Errorf("an object was taken over %v after the kill", u)
			break
		}
	}

	// A peer voided it, with a write that was conditional on the victim's last version:
	// there was no write between the two.
	if n := w.metric(rest, "sharding_evictions_total", `outcome="done"`); n != 1 {
		t.Errorf("%v evictions, want 1", n)
	}
	w.eventually("the void Lease is deleted", func(ctx context.Context) error {
		if err := w.log.Sync(ctx); err != nil {
			return err
		}
		versions := w.log.Lease(w.leaseName(victim.Pod()))
		if last := versions[len(versions)-1]; last.Lease != nil {
			return fmt.Errorf("the Lease still exists at revision %d", last.Revision)
		}
		return nil
	})
	versions := w.log.Lease(w.leaseName(victim.Pod()))
	if len(versions) < 3 {
		t.Fatalf("the Lease of %s had %d versions", victim, len(versions))
	}
	evicted, err := inspect.Decode(versions[len(versions)-2].Lease, w.ring)
	if err != nil {
		t.Fatal(err)
	}
	if !evicted.Void() || evicted.EvictedBy == "" {
		t.Errorf("before its deletion, the Lease of %s had the holder %q and was evicted by %q", victim, evicted.Holder, evicted.EvictedBy)
	}
	if late := versions[len(versions)-2].Seen.Sub(killed); late < duration-duration/5-time.Second {
		// Its last heartbeat was sent at most a fifth of the duration before the kill.
		t.Errorf("the Lease was voided %v after the kill, before it had expired", late)
	}
	w.stop(rest...)
}
