// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// A Lease that a user has edited claims everything for an hour if no member knows what its dead
// holder had declared (R46). Meanwhile a new fleet owns nothing, and must say so.
func TestReady_NotWhileNothingCanBeOwned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		holder := "ghost_1"
		edited := &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{
				Name: "foo-ghost", Namespace: namespace, Labels: map[string]string{inspect.LabelRing: "foo"},
				Annotations: map[string]string{"operator-scaling.tom-ludwig.github.io/member": "ghost"},
			},
			Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder},
		}
		if _, err := cluster.Client("user").CoordinationV1().Leases(namespace).Create(t.Context(), edited, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		a := start(t, cluster.Client("a"), "a")
		time.Sleep(25 * time.Second)
		if err := a.Ready(); err != nil {
			t.Errorf("not ready before two lease durations have passed: %v", err)
		}
		time.Sleep(15 * time.Second)
		if err := a.Ready(); err == nil || !strings.Contains(err.Error(), "ghost") {
			t.Errorf("while nothing can be owned, Ready returns %v", err)
		}
		time.Sleep(time.Hour + time.Minute)
		if err := a.Ready(); err != nil {
			t.Errorf("after the Lease was evicted: %v", err)
		}
		oneOwnerEach(t, a)
		end(t, a)
	})
}
