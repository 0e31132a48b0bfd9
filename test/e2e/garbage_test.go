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

	"github.com/tom-ludwig/operator-scaling/shard/lease"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

const annotations = "operator-scaling.tom-ludwig.github.io/" // what a record's begin with

// garbage makes a Lease that is none.
func (w *harness) garbage(name string, change func(*coordinationv1.Lease)) *coordinationv1.Lease {
	w.t.Helper()
	holder, seconds, now := "ghost_1", int32(leaseDuration/time.Second), metav1.NowMicro()
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: w.namespace,
			Labels:      map[string]string{lease.LabelRing: w.ring},
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

// Leases that nobody wrote for the ring, or that somebody wrote badly, are counted
// and left alone, or taken for the worst until they have run out; work goes on.
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

	// Not of this ring: to be left alone.
	elsewhere := w.withRing("elsewhere") // for its namespace
	left := []*coordinationv1.Lease{
		w.garbage("no-label", func(l *coordinationv1.Lease) { l.Labels = nil }),
		w.garbage("foreign-label", func(l *coordinationv1.Lease) { l.Labels[lease.LabelRing] = "another" }),
		w.garbage("no-record", func(l *coordinationv1.Lease) { l.Annotations = nil }),
		w.garbage("another-namespace", func(l *coordinationv1.Lease) {
			l.Namespace = elsewhere.namespace
			l.Annotations[annotations+"phase"] = "active"
		}),
	}
	// Taken for the worst.
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
	w.eventually("they are counted", func(ctx context.Context) error {
		for _, r := range replicas {
			for _, kind := range []string{"foreign", "malformed"} {
				if n, err := r.Metric(ctx, "sharding_lease_faults_total", `kind="`+kind+`"`); err != nil || n == 0 {
					return fmt.Errorf("%s has counted no Lease that is %s (%v)", r, kind, err)
				}
			}
		}
		return nil
	})
	// Those who have something keep it.
	for _, r := range replicas {
		report, err := r.Report(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if want := before.partitions / 4; report.States["active"] < want {
			t.Errorf("%s has %d active partitions after it saw the garbage", r, report.States["active"])
		}
	}
	// A newcomer gets nothing until what claims everything has run out.
	newcomer := w.startMany(2, 3)[0]
	all := append(append([]*replica.Process{}, replicas...), newcomer)
	w.waitPlaced(all...)
	blocked := time.Since(began)
	if blocked < 2*leaseDuration {
		t.Errorf("the newcomer had everything after %v: it did not wait for a Lease that claims everything for %v", blocked, 2*leaseDuration)
	}
	figures.add(fmt.Sprintf("garbage Leases that claim everything for %v and 15 s: blocked newcomers for", 2*leaseDuration), blocked.Round(10*time.Millisecond).String(), "")

	stopChurn()
	w.waitWorked(all...)
	w.check(true)
	for _, r := range all {
		if r.Ended() {
			t.Errorf("%s has ended", r)
		}
	}
	w.eventually("garbage that was taken for members is cleared away", func(ctx context.Context) error {
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
		t.Errorf("Lease %s went without having been voided", blocking.Name)
	}
	for _, l := range left {
		now, err := w.kube.CoordinationV1().Leases(l.Namespace).Get(t.Context(), l.Name, metav1.GetOptions{})
		if err != nil {
			t.Errorf("a Lease of somebody else: %v", err)
		} else if now.ResourceVersion != l.ResourceVersion {
			t.Errorf("Lease %s of somebody else was changed", l.Name)
		}
	}
	w.stop(all...)
}

// A Lease of this name that somebody else has put there is not touched: the replica
// ends and says so.
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
		t.Errorf("the log does not say what is the matter:\n%s", log)
	}
	now, err := w.kube.CoordinationV1().Leases(w.namespace).Get(t.Context(), taken.Name, metav1.GetOptions{})
	if err != nil || now.ResourceVersion != taken.ResourceVersion {
		t.Errorf("the Lease was touched (%v)", err)
	}
}
