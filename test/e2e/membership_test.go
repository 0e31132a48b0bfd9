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

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/test/audit"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
	"github.com/tom-ludwig/operator-scaling/test/controlplane"
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
	w.setFlag("lease-duration", shard.DefaultLeaseDuration)
	w.createFoos(0, objects)

	began := time.Now()
	replicas := w.startMany(0, members, args("--workers=4"))
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
		fmt.Sprintf("%d, %d, %d, %d, %d", changes, report.Reconciles, report.Moves, audit.Count(report.Findings, worklog.Overlap), audit.Count(report.Findings, worklog.Loss)), "overlaps and losses 0")
	if report.Moves == 0 {
		t.Error("no handover took place")
	}
	w.stop(replicas...)
}

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
		fmt.Sprintf("%d, %d, %d, %d", changes, report.Reconciles, audit.Count(report.Findings, worklog.Overlap), audit.Count(report.Findings, worklog.Loss)), "overlaps and losses 0")

	// No Lease claimed partitions of the new ring while an old member claimed old ones.
	w.sync()
	last := int64(0) // revision of the last claim of an old member
	first := int64(0)
	for _, v := range w.log.Leases() {
		if v.Object == nil {
			continue
		}
		decoded, err := inspect.Decode(v.Object, w.ring)
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

// Events of a Deployment go to the member that owns its Foo, and to no other member.
func TestChildrenReachTheOwnerOfTheirParent(t *testing.T) {
	soak(t)
	repeat(t, testChildrenReachTheOwnerOfTheirParent)
}

func testChildrenReachTheOwnerOfTheirParent(t *attempt) {
	const objects, members = 90, 3
	w := newHarness(t)
	w.createFoos(0, objects)
	replicas := w.startMany(0, members)
	p := w.waitWorked(replicas...)
	w.waitQuiet(time.Second)
	before := w.deployments()

	began := now()
	w.eachFoo(0, 30, func(name string) error { return w.patchDeployment(name, `{"spec":{"replicas":7}}`) })
	w.eachFoo(30, 60, func(name string) error {
		return w.patchDeployment(name, `{"status":{"replicas":1,"updatedReplicas":1,"readyReplicas":1,"availableReplicas":1}}`, "status")
	})
	w.eachFoo(60, 90, w.deleteDeployment)
	w.eventually("the owners react", func(context.Context) error {
		after := w.deployments()
		foos, err := w.listFoos()
		if err != nil {
			return err
		}
		for i := range objects {
			name := fmt.Sprintf("foo-%d", i)
			d, there := after[name]
			switch {
			case !there:
				return fmt.Errorf("there is no Deployment %s", name)
			case *d.Spec.Replicas != 1:
				return fmt.Errorf("Deployment %s has %d replicas", name, *d.Spec.Replicas)
			case i >= 30 && i < 60 && foos[name].Status.AvailableReplicas != 1:
				return fmt.Errorf("the status of Foo %s does not have the available replica", name)
			case i >= 60 && d.UID == before[name].UID:
				return fmt.Errorf("Deployment %s was not deleted yet", name)
			}
		}
		return nil
	})
	w.waitQuiet(time.Second)
	if _, err := w.placed(t.Context(), replicas...); err != nil {
		t.Fatalf("something moved: %v", err)
	}

	pods := map[string]string{}
	for _, r := range replicas {
		pods[r.String()] = r.Pod()
	}
	worked := map[string]int{}
	for _, h := range w.histories() {
		for _, r := range h.Records {
			if r.Event != worklog.Start || r.Time < began {
				continue
			}
			worked[r.Key]++
			if owner := p.of(r.Key); owner != pods[h.Name] {
				t.Errorf("%s belongs to %s, but %s worked on it", r.Key, owner, h.Name)
			}
		}
	}
	total := 0
	for n := range maps.Values(worked) {
		total += n
	}
	if len(worked) != objects {
		t.Errorf("%d of %d objects were worked on", len(worked), objects)
	}
	figures.add(fmt.Sprintf("reconciles after %d changes of children", objects), fmt.Sprint(total), "")
	w.check(true)
	w.stop(replicas...)
}

// Objects are deleted in each way that Kubernetes supports, and at any moment, including
// while their owner is dead and no other member owns them yet.
func TestDeletion(t *testing.T) {
	soak(t)
	repeat(t, testDeletion)
}

func testDeletion(t *attempt) {
	const objects = 120
	w := newHarnessOn(t, ownPlane(t, controlplane.Options{GarbageCollector: true}))
	w.setFlag("lease-duration", shard.DefaultLeaseDuration) // long enough for all deletions
	w.createFoos(0, objects)
	replicas := w.startMany(0, 2)
	p := w.waitWorked(replicas...)
	before := w.deployments()
	if len(before) != objects {
		t.Fatalf("%d Deployments for %d Foos", len(before), objects)
	}

	// While all members run.
	w.deleteFoos(0, 10, metav1.DeletePropagationBackground)
	w.deleteFoos(10, 20, metav1.DeletePropagationForeground)
	w.deleteFoos(20, 30, metav1.DeletePropagationOrphan)
	w.eachFoo(30, 40, w.deleteDeployment)
	w.eventually("deleted objects are gone, or were created again", func(context.Context) error {
		for i := range 40 {
			if err := w.checkDeletion(fmt.Sprintf("foo-%d", i), i, before); err != nil {
				return err
			}
		}
		return nil
	})

	// While no member may react: the victim is dead, but its Lease has not expired.
	victim, successor := replicas[0], replicas[1]
	var orphans []int
	for i := 40; i < objects; i++ {
		if p.of(w.key(fmt.Sprintf("foo-%d", i))) == victim.Pod() {
			orphans = append(orphans, i)
		}
	}
	if len(orphans) < 16 {
		t.Fatalf("%s has only %d of the objects", victim, len(orphans))
	}
	recreated, gone, bare, foreground := orphans[:4], orphans[4:8], orphans[8:12], orphans[12:16]
	victim.Kill()
	for _, i := range recreated {
		w.deleteFoos(i, i+1, metav1.DeletePropagationBackground)
		w.createFoos(i, i+1)
	}
	for _, i := range gone {
		w.deleteFoos(i, i+1, metav1.DeletePropagationBackground)
	}
	for _, i := range foreground {
		w.deleteFoos(i, i+1, metav1.DeletePropagationForeground)
	}
	for _, i := range bare {
		w.eachFoo(i, i+1, w.deleteDeployment)
	}
	if _, err := w.placed(t.Context(), successor); err == nil {
		t.Againf("the victim's objects were taken over before anything could be deleted: nothing was tested")
	}
	w.waitPlaced(successor)
	w.eventually("the successor repairs everything", func(context.Context) error {
		after := w.deployments()
		for _, i := range append(append([]int{}, gone...), foreground...) {
			if d, there := after[fmt.Sprintf("foo-%d", i)]; there {
				return fmt.Errorf("Deployment %s of a deleted Foo still exists", d.Name)
			}
		}
		for _, i := range append(append([]int{}, bare...), recreated...) {
			name := fmt.Sprintf("foo-%d", i)
			foo, err := w.foos.Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			switch d, there := after[name]; {
			case !there:
				return fmt.Errorf("there is no Deployment %s", name)
			case d.UID == before[name].UID:
				return fmt.Errorf("Deployment %s was not created again after its deletion", name)
			case !metav1.IsControlledBy(&d, foo):
				return fmt.Errorf("Deployment %s is controlled by %v, the Foo is %s", name, d.OwnerReferences, foo.UID)
			}
		}
		return nil
	})
	w.waitWorked(successor)
	w.check(true)
	w.stop(successor)
}

// checkDeletion checks one of the first 40 Foos.
func (w *harness) checkDeletion(name string, i int, before map[string]appsv1.Deployment) error {
	_, err := w.foos.Get(w.t.Context(), name, metav1.GetOptions{})
	if i < 30 && !apierrors.IsNotFound(err) {
		return fmt.Errorf("Foo %s still exists: %w", name, errOr(err, "found"))
	}
	d, err := w.kube.AppsV1().Deployments(w.namespace).Get(w.t.Context(), name, metav1.GetOptions{})
	switch {
	case i < 20 && !apierrors.IsNotFound(err):
		return fmt.Errorf("Deployment %s still exists: %w", name, errOr(err, "found"))
	case i < 20:
		return nil
	case err != nil:
		return err
	case i < 30 && (d.UID != before[name].UID || len(d.OwnerReferences) > 0):
		return fmt.Errorf("Deployment %s was not orphaned: it has the owners %v", name, d.OwnerReferences)
	case i >= 30 && d.UID == before[name].UID:
		return fmt.Errorf("Deployment %s was not deleted yet", name)
	}
	return nil
}

func (w *harness) deleteFoos(from, to int, how metav1.DeletionPropagation) {
	w.t.Helper()
	w.eachFoo(from, to, func(name string) error {
		return w.foos.Delete(w.t.Context(), name, metav1.DeleteOptions{PropagationPolicy: &how})
	})
}

func (w *harness) deleteDeployment(name string) error {
	return w.kube.AppsV1().Deployments(w.namespace).Delete(w.t.Context(), name, metav1.DeleteOptions{})
}

// deployments returns all Deployments by name.
func (w *harness) deployments() map[string]appsv1.Deployment {
	w.t.Helper()
	list, err := w.kube.AppsV1().Deployments(w.namespace).List(w.t.Context(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	all := map[string]appsv1.Deployment{}
	for _, d := range list.Items {
		all[d.Name] = d
	}
	return all
}

// patchDeployment changes a Deployment from outside; subresource may be "status".
func (w *harness) patchDeployment(name, patch string, subresource ...string) error {
	_, err := w.kube.AppsV1().Deployments(w.namespace).Patch(w.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, subresource...)
	return err
}
