// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/test/controlplane"
)

// Objects are deleted in each way that Kubernetes supports, and at any moment, including
// while their owner is dead and no other member owns them yet.
func TestDeletion(t *testing.T) {
	soak(t)
	repeat(t, testDeletion)
}

func testDeletion(t *attempt) {
	const objects = 120
	w := newHarnessOn(t, ownPlane(t, controlplane.Options{GarbageCollector: true}))
	w.template.LeaseDuration = shard.DefaultLeaseDuration // long enough for all deletions
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
