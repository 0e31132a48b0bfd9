// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

const annotations = "operator-scaling.tom-ludwig.github.io/" // prefix of the annotations of a record

// garbage creates an invalid Lease.
func (w *harness) garbage(name string, change func(*coordinationv1.Lease)) *coordinationv1.Lease {
	w.t.Helper()
	holder, seconds, now := "ghost_1", int32(leaseDuration/time.Second), metav1.NowMicro()
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: w.namespace,
			Labels:      map[string]string{inspect.LabelRing: w.ring},
			Annotations: map[string]string{annotations + "protocol": "1", annotations + "member": "ghost"},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &now},
	}
	change(l)
	created, err := w.kube.CoordinationV1().Leases(l.Namespace).Create(w.t.Context(), l, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return created
}

// Leases that do not belong to the ring are counted and not touched. Invalid Leases of the
// ring are counted, and treated as claiming everything until they have expired. Work
// continues.
func TestGarbageLeases(t *testing.T) {
	soak(t)
	t.Parallel()
	repeat(t, testGarbageLeases)
}

func testGarbageLeases(t *attempt) {
	const objects = 60
	w := newHarness(t)
	w.createFoos(0, objects)
	replicas := w.startMany(0, 2)
	before := w.waitWorked(replicas...)
	stopChurn := w.churn(objects, 20)
	defer stopChurn()

	// Leases that do not belong to this ring: they must not be touched.
	elsewhere := w.withRing("elsewhere") // for its namespace
	left := []*coordinationv1.Lease{
		w.garbage("no-label", func(l *coordinationv1.Lease) { l.Labels = nil }),
		w.garbage("foreign-label", func(l *coordinationv1.Lease) { l.Labels[inspect.LabelRing] = "another" }),
		w.garbage("no-record", func(l *coordinationv1.Lease) { l.Annotations = nil }),
		w.garbage("another-namespace", func(l *coordinationv1.Lease) {
			l.Namespace = elsewhere.namespace
			l.Annotations[annotations+"phase"] = "active"
		}),
	}
	// Invalid Leases of this ring: treated as claiming everything.
	w.garbage("no-holder", func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = nil })
	w.garbage("no-renew-time", func(l *coordinationv1.Lease) { l.Spec.RenewTime = nil })
	w.garbage("no-duration", func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = nil })
	w.garbage("no-spec", func(l *coordinationv1.Lease) { l.Spec = coordinationv1.LeaseSpec{} })
	w.garbage("later-protocol", func(l *coordinationv1.Lease) { l.Annotations[annotations+"protocol"] = "99" })
	w.garbage("garbage", func(l *coordinationv1.Lease) {
		for _, name := range []string{"phase", "claims", "seq", "parameters", "tombstones", "pod-uid", "member"} {
			l.Annotations[annotations+name] = "\x7f{]:/" + strings.Repeat("9", 1000)
		}
	})
	began := time.Now()
	blocking := w.garbage("garbage-claims", func(l *coordinationv1.Lease) {
		seconds := int32(2 * leaseDuration / time.Second)
		l.Spec.LeaseDurationSeconds = &seconds
		l.Annotations[annotations+"phase"] = "active"
		l.Annotations[annotations+"claims"] = "xxh3/name/509/20/1.25/0000:!!!!"
	})
	w.eventually("the Leases are counted", func(ctx context.Context) error {
		for _, r := range replicas {
			for _, kind := range []string{"foreign", "malformed"} {
				if n, err := r.Metric(ctx, "sharding_lease_faults_total", `kind="`+kind+`"`); err != nil || n == 0 {
					return fmt.Errorf("%s did not count any Lease that is %s (%v)", r, kind, err)
				}
			}
		}
		return nil
	})
	// Members keep what they have.
	for _, r := range replicas {
		report, err := r.Report(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if want := before.partitions / 4; report.States["active"] < want {
			t.Errorf("%s has %d active partitions after it saw the garbage", r, report.States["active"])
		}
	}
	// A new member gets nothing until the Leases that claim everything have expired.
	added := w.startMany(2, 3)[0]
	all := append(append([]*replica.Process{}, replicas...), added)
	w.waitPlaced(all...)
	blocked := time.Since(began)
	if blocked < 2*leaseDuration {
		t.Errorf("the new member had everything after %v: it did not wait %[2]v for a Lease that claims everything", blocked, 2*leaseDuration)
	}
	figures.add(fmt.Sprintf("invalid Leases that claim everything for %v and 15 s: blocked new members for", 2*leaseDuration), blocked.Round(10*time.Millisecond).String(), "")

	stopChurn()
	w.waitWorked(all...)
	w.check(true)
	for _, r := range all {
		if r.Ended() {
			t.Errorf("%s has ended", r)
		}
	}
	w.eventually("Leases that were treated as members are deleted", func(ctx context.Context) error {
		leases, err := w.leases(ctx)
		if err == nil && len(leases) != len(all) {
			err = fmt.Errorf("there are %d Leases", len(leases))
		}
		return err
	})
	evicted := false
	for _, v := range w.log.Lease(blocking.Name) {
		evicted = evicted || v.Lease != nil && v.Lease.Annotations[annotations+"evicted-by"] != ""
	}
	if !evicted {
		t.Errorf("Lease %s was deleted without being voided first", blocking.Name)
	}
	for _, l := range left {
		now, err := w.kube.CoordinationV1().Leases(l.Namespace).Get(t.Context(), l.Name, metav1.GetOptions{})
		if err != nil {
			t.Errorf("a Lease that does not belong to the ring: %v", err)
		} else if now.ResourceVersion != l.ResourceVersion {
			t.Errorf("Lease %s, which does not belong to the ring, was changed", l.Name)
		}
	}
	w.stop(all...)
}

// If a Lease with the member's name exists that does not belong to the ring, the replica does
// not touch it: it exits and logs the reason.
func TestNameOfTheLeaseIsTaken(t *testing.T) {
	soak(t)
	t.Parallel()
	repeat(t, testNameOfTheLeaseIsTaken)
}

func testNameOfTheLeaseIsTaken(t *attempt) {
	w := newHarness(t)
	taken := w.garbage(w.leaseName("op-0"), func(l *coordinationv1.Lease) { l.Labels, l.Annotations = nil, nil })
	p := w.start("op-0")
	if code := w.waitExit(p); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if log := p.Tail(1000); !strings.Contains(log, taken.Name) || !strings.Contains(log, "not a Lease of this ring") {
		t.Errorf("the log does not report the reason:\n%s", log)
	}
	now, err := w.kube.CoordinationV1().Leases(w.namespace).Get(t.Context(), taken.Name, metav1.GetOptions{})
	if err != nil || now.ResourceVersion != taken.ResourceVersion {
		t.Errorf("the Lease was touched (%v)", err)
	}
}
