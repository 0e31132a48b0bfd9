// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shardtest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

func newLease(name string) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// heldBy returns a copy of a Lease with another holder.
func heldBy(lease *coordinationv1.Lease, holder string) *coordinationv1.Lease {
	lease = lease.DeepCopy()
	lease.Spec.HolderIdentity = &holder
	return lease
}

func TestT1_WritesAreConditional(t *testing.T) {
	ctx := context.Background()
	cluster := shardtest.NewCluster()
	leases := cluster.Client("a").CoordinationV1().Leases("default")
	created, err := leases.Create(ctx, newLease("x"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leases.Create(ctx, newLease("x"), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("a second create: %v", err)
	}
	updated, err := leases.Update(ctx, heldBy(created, "a"), metav1.UpdateOptions{})
	if err != nil || updated.ResourceVersion == created.ResourceVersion {
		t.Errorf("update: %v, version %s", err, updated.ResourceVersion)
	}
	if _, err := leases.Update(ctx, created, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("an update of an old version: %v", err)
	}
	old := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &created.ResourceVersion}}
	if err := leases.Delete(ctx, "x", old); !apierrors.IsConflict(err) {
		t.Errorf("a deletion of an old version: %v", err)
	}
	if err := leases.Delete(ctx, "x", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := leases.Update(ctx, updated, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("an update of a deleted Lease: %v", err)
	}
	if _, err := leases.Get(ctx, "x", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a read of a deleted Lease: %v", err)
	}
}

func TestT1_WatchesResumeAndShowEverything(t *testing.T) {
	ctx := context.Background()
	cluster := shardtest.NewCluster()
	leases := cluster.Client("a").CoordinationV1().Leases("default")
	x, _ := leases.Create(ctx, newLease("x"), metav1.CreateOptions{})
	w, err := leases.Watch(ctx, metav1.ListOptions{ResourceVersion: x.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	cluster.Break("b", shardtest.Unreachable) // a fault of another member
	_, _ = leases.Update(ctx, heldBy(x, "a"), metav1.UpdateOptions{})
	cluster.Remove("default", "x")
	got := fmt.Sprint((<-w.ResultChan()).Type, (<-w.ResultChan()).Type)
	if got != "MODIFIEDDELETED" && got != "MODIFIED DELETED" {
		t.Errorf("watched %s", got)
	}
	again, err := leases.Watch(ctx, metav1.ListOptions{ResourceVersion: x.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Stop()
	if event := <-again.ResultChan(); event.Type != "MODIFIED" {
		t.Errorf("a watch from an old version began with %s", event.Type)
	}
}

func TestBreak(t *testing.T) {
	ctx := context.Background()
	cluster := shardtest.NewCluster()
	leases := cluster.Client("a").CoordinationV1().Leases("default")
	cluster.Break("a", shardtest.Unreachable)
	if _, err := leases.Create(ctx, newLease("x"), metav1.CreateOptions{}); !errors.Is(err, shardtest.ErrFault) || len(cluster.Leases("default")) != 0 {
		t.Errorf("create: %v", err)
	}
	cluster.Break("a", shardtest.LostAnswer)
	if _, err := leases.Create(ctx, newLease("x"), metav1.CreateOptions{}); !errors.Is(err, shardtest.ErrFault) || len(cluster.Leases("default")) != 1 {
		t.Errorf("create: %v", err)
	}
	cluster.Break("a", shardtest.None)
	if _, err := leases.Get(ctx, "x", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

func ExampleCluster() {
	cluster := shardtest.NewCluster()
	a, b := cluster.Client("a"), cluster.Client("b")
	lease, _ := a.CoordinationV1().Leases("default").Create(context.Background(), newLease("x"), metav1.CreateOptions{})
	_, err := b.CoordinationV1().Leases("default").Update(context.Background(), heldBy(lease, "b"), metav1.UpdateOptions{})
	fmt.Println("b writes:", err)
	_, err = a.CoordinationV1().Leases("default").Update(context.Background(), heldBy(lease, "a"), metav1.UpdateOptions{})
	fmt.Println("a writes an old version:", apierrors.IsConflict(err))
	// Output:
	// b writes: <nil>
	// a writes an old version: true
}

func TestT1_NoNamespaceMeansAll(t *testing.T) {
	cluster := shardtest.NewCluster()
	for _, namespace := range []string{"x", "y"} {
		if _, err := cluster.Client("a").CoordinationV1().Leases(namespace).Create(t.Context(), newLease("z"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(cluster.Leases(metav1.NamespaceAll)); n != 2 {
		t.Errorf("%d Leases in all namespaces, want 2", n)
	}
}
