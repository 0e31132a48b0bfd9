// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
	"github.com/tom-ludwig/operator-scaling/test/controlplane"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

// A replica that receives SIGTERM releases its partitions, deletes its Lease and exits with
// code 0. Other members work on its objects within a fraction of a second.
func TestGracefulStop(t *testing.T) {
	repeat(t, testGracefulStop)
}

func testGracefulStop(t *attempt) {
	const objects, members = 300, 4
	w := newHarness(t)
	w.template.LeaseDuration = shard.DefaultLeaseDuration // avoids evictions on a slow machine
	w.template.Workers = 32                               // enough workers, so that waiting for one does not affect the measurement
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
		if _, err := w.kube.CoordinationV1().Leases(w.namespace).Get(t.Context(), w.leaseName(leaving.Pod()), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s has exited, but its Lease still exists (%v)", leaving, err)
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
	for _, h := range w.log.Handovers(w.ring, w.histories()) {
		unowned = append(unowned, h.Unowned())
		claimed = append(claimed, h.To.FromSeen.Sub(h.From.ToSent))
		pair := [2]string{h.From.Holder, h.To.Holder}
		if earlier, known := first[pair]; !known || h.Unowned() < earlier {
			first[pair] = h.Unowned()
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
	w.stop(replicas...)
	w.eventually("no Lease is left", func(ctx context.Context) error {
		left, err := w.leases(ctx)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d Leases", len(left))
		}
		return err
	})
}

// The owner of a Lease is its Pod, so that the Lease is deleted with the Pod in any case.
// Without a UID there is no owner reference, and everything else works.
func TestLeaseBelongsToThePod(t *testing.T) {
	soak(t)
	repeat(t, testLeaseBelongsToThePod)
}

func testLeaseBelongsToThePod(t *attempt) {
	w := newHarnessOn(t, ownPlane(t, controlplane.Options{GarbageCollector: true}))
	collector := w.plane.cp.GarbageCollector
	collector.Kill() // until a Lease must be deleted
	owned := w.start("with-uid")
	free := w.start("without-uid", func(c *replica.Config) { c.PodUID = "" }, func(c *replica.Config) { c.Pod = "no-pod-of-that-name" })
	w.waitPlaced(owned, free)
	leases := w.kube.CoordinationV1().Leases(w.namespace)

	l, err := leases.Get(t.Context(), w.leaseName(owned.Pod()), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: owned.Pod(), UID: w.pod(owned.Pod())}
	if len(l.OwnerReferences) != 1 || l.OwnerReferences[0] != want {
		t.Errorf("the Lease of %s has the owner references %v, want %v", owned, l.OwnerReferences, want)
	}
	if l.Labels[inspect.LabelRing] != w.ring {
		t.Errorf("the Lease of %s has the labels %v", owned, l.Labels)
	}
	l, err = leases.Get(t.Context(), w.leaseName(free.Pod()), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.OwnerReferences) != 0 {
		t.Errorf("the Lease of %s has the owner references %v, want none", free, l.OwnerReferences)
	}

	// The Pod exists, but POD_UID is not set: the member reads the Pod once.
	w.pod("read")
	read := w.start("read", func(c *replica.Config) { c.PodUID = "" })
	w.waitPlaced(owned, free, read)
	if l, err = leases.Get(t.Context(), w.leaseName("read"), metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if len(l.OwnerReferences) != 1 || l.OwnerReferences[0].UID != w.pod("read") {
		t.Errorf("the Lease of %s has the owner references %v, want the Pod's", read, l.OwnerReferences)
	}

	// The garbage collector deletes the Lease of a deleted Pod. The other members count the
	// Lease for as long as it might have been held.
	owned.Kill()
	if err := w.kube.CoreV1().Pods(w.namespace).Delete(t.Context(), owned.Pod(), metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	if err := collector.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.waitPlaced(free, read)
	w.eventually("the Lease of a deleted Pod is deleted", func(ctx context.Context) error {
		_, err := leases.Get(ctx, w.leaseName(owned.Pod()), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it still exists: %w", errOr(err, "found"))
	})
	w.check(false)
	w.stop(free, read)
	for _, p := range []*replica.Process{free, read} {
		if strings.Contains(p.Tail(1000), "panic") {
			t.Errorf("%s has panicked", p)
		}
	}
}
