// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
	"github.com/tom-ludwig/operator-scaling/test/controlplane"
)

// A replica that receives SIGTERM releases its partitions, voids its Lease and exits with
// code 0. Other members work on its objects within a fraction of a second.
func TestGracefulStop(t *testing.T) {
	repeat(t, testGracefulStop)
}

func testGracefulStop(t *attempt) {
	const objects, members = 300, 4
	w := newHarness(t)
	w.setFlag("lease-duration", shard.DefaultLeaseDuration) // avoids evictions on a slow machine
	w.setFlag("workers", 32)                                // enough workers, so that waiting for one does not affect the measurement
	w.createFoos(0, objects)
	replicas := w.startMany(0, members)
	w.waitWorked(replicas...)
	stopChurn := w.churn(objects, 20)

	for len(replicas) > 2 {
		leaving := replicas[0]
		replicas = replicas[1:]
		began := now()
		w.stop(leaving)
		took := time.Duration(now() - began)
		t.Logf("%s has exited %v after SIGTERM", leaving, took.Round(time.Millisecond))
		// Its void Lease is left to the garbage collector or to a peer (R39).
		l, err := w.kube.CoordinationV1().Leases(w.namespace).Get(t.Context(), w.leaseName(leaving.Pod()), metav1.GetOptions{})
		if err == nil {
			var left inspect.Member
			if left, err = inspect.Decode(l, w.ring); err == nil && !left.Void() {
				t.Errorf("%s has exited, but holds its Lease: %+v", leaving, left)
			}
		}
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
		w.waitPlaced(replicas...)
	}
	stopChurn()
	w.waitWorked(replicas...)
	report := w.check(true)
	if d := report.Unowned[worklog.Released]; d.Count > 0 {
		figures.add("graceful stop under load: from the release of a partition until it is active again",
			fmt.Sprintf("p50 %v, p99 %v, max %v of %d", d.P50.Round(time.Millisecond), d.P99.Round(time.Millisecond), d.Max.Round(time.Millisecond), d.Count), "p99 250ms")
	}
	var unowned, claimed []time.Duration
	first := map[[2]string]time.Duration{} // by the two members
	for _, h := range w.handovers() {
		unowned = append(unowned, h.unowned())
		claimed = append(claimed, h.to.FromSeen.Sub(h.from.ToSent))
		pair := [2]string{h.from.Holder, h.to.Holder}
		if earlier, known := first[pair]; !known || h.unowned() < earlier {
			first[pair] = h.unowned()
		}
	}
	if len(unowned) == 0 {
		t.Error("no handover took place")
	}
	if evictions := w.metric(replicas, "sharding_evictions_total"); evictions != 0 {
		t.Errorf("%v evictions", evictions)
	}
	figures.add(fmt.Sprintf("graceful stop: from an object's release to the next member's work on it (%d objects)", objects), quantiles(unowned), "p99 1s")
	figures.add("  of this, until the next member's claim was committed", quantiles(claimed), "")
	figures.add("  of this, until the next member worked on its first object", quantiles(slices.Collect(maps.Values(first))), "")
	for _, r := range replicas {
		w.stop(r) // the last one deletes all Leases
	}
	w.eventually("no Lease is left", func(ctx context.Context) error {
		left, err := w.leases(ctx)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d Leases", len(left))
		}
		return err
	})
}

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
	w.setFlag("lease-duration", duration)
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
	for _, h := range w.handovers() {
		if h.from.Member == victim.Pod() {
			unowned = append(unowned, h.worked.Sub(killed))
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
		if last := versions[len(versions)-1]; last.Object != nil {
			return fmt.Errorf("the Lease still exists at revision %d", last.Revision)
		}
		return nil
	})
	versions := w.log.Lease(w.leaseName(victim.Pod()))
	if len(versions) < 3 {
		t.Fatalf("the Lease of %s had %d versions", victim, len(versions))
	}
	evicted, err := inspect.Decode(versions[len(versions)-2].Object, w.ring)
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

// A replica that is paused during its work, for longer than its Lease lasts, is evicted. When
// it resumes, it does nothing under its old claims, and joins again.
func TestPausedForLongerThanTheLease(t *testing.T) {
	repeat(t, testPausedForLongerThanTheLease)
}

func testPausedForLongerThanTheLease(t *attempt) {
	const objects = 60
	w := newHarness(t)
	w.createFoos(0, objects)
	replicas := w.startMany(0, 2, args("--reconcile-delay=200ms"))
	w.waitWorked(replicas...)
	stopChurn := w.churn(objects, 40)
	time.Sleep(leaseDuration)

	sleeper, other := replicas[0], replicas[1]
	began := time.Now()
	if err := sleeper.Pause(); err != nil {
		t.Fatal(err)
	}
	p := w.waitPlaced(other)
	figures.add(fmt.Sprintf("SIGSTOP, Lease duration %v: until the other member has all partitions", leaseDuration), time.Since(began).Round(10*time.Millisecond).String(), "")
	for i := range objects {
		if owner := p.of(w.key(fmt.Sprintf("foo-%d", i))); owner != other.Pod() {
			t.Fatalf("foo-%d is owned by %q", i, owner)
		}
	}
	time.Sleep(leaseDuration)
	woken := now()
	if err := sleeper.Resume(); err != nil {
		t.Fatal(err)
	}
	w.waitPlaced(sleeper, other)
	time.Sleep(leaseDuration)
	stopChurn()
	w.waitWorked(sleeper, other)
	w.check(true)

	holders := w.holders(sleeper.Pod())
	if len(holders) != 2 {
		t.Fatalf("the Lease was held by %v, want two incarnations", holders)
	}
	h, err := sleeper.History()
	if err != nil {
		t.Fatal(err)
	}
	inHand, late := 0, 0
	for _, r := range h.Records {
		switch {
		case r.Time < woken && r.Event == worklog.Start:
			inHand++
		case r.Time < woken && r.Event == worklog.End:
			inHand--
		case r.Time < woken:
		case r.Member == holders[0] && (r.Event == worklog.Start || r.Event == worklog.Write):
			late++
			t.Brokenf("woken up, the member did this under its old claims, %v later: %+v", time.Duration(r.Time-woken), r)
		}
	}
	if inHand == 0 {
		t.Againf("there was no work in hand when the replica was paused: nothing was tested")
	}
	figures.add("  work in flight when it was paused, writes under the old claims after it resumed", fmt.Sprintf("%d, %d", inHand, late), "0 writes")
	w.stop(sleeper, other)
}

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
