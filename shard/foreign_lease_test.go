// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// R50: a foreign Lease is never written, also not by a process that has joined before. Its own
// Lease was deleted, and another client has created one of the same name.
func TestR50_AForeignLeaseInThePlaceOfADeletedOneIsNotChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		time.Sleep(5 * time.Second)
		cluster.Remove(namespace, "foo-a")
		holder := "leader"
		cluster.Put(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "foo-a"}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder}})
		time.Sleep(70 * time.Minute)
		if l := cluster.Leases(namespace)[0]; l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity != "leader" {
			t.Errorf("the Lease was changed: %v", l.Labels)
		}
		select {
		case err := <-a.done:
			t.Logf("Run has returned %v", err)
		default:
			a.stop()
			<-a.done
		}
	})
}
