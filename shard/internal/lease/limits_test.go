// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package lease_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/lease"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// R47: what a member publishes never exceeds the limit beyond which its record counts as edited.
// The size of a tombstone is estimated without what JSON adds: "<" takes six bytes. 25 Leases with
// such holders are created and deleted by hand.
func TestR47_PublishedTombstonesStayWithinTheLimit(t *testing.T) {
	p := ring.DefaultParameters()
	m := claim.New(claim.Config{
		Member: "a", Lease: "foo-a", Holder: "a_1", Parameters: p,
		LeaseDuration: 15 * time.Second, RenewDeadline: 9 * time.Second, RenewPeriod: 3 * time.Second,
		WatchLagLimit: 6 * time.Second, DrainTimeout: 30 * time.Second, Coalesce: 20 * time.Millisecond,
	})
	now := claim.Time{Mono: time.Hour, Wall: 1_700_000_000 * time.Second}
	m.Step(now, claim.Tick{})
	for i := range 30 {
		holder := "x_" + strings.Repeat("<", 298)
		l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprint("foo-x", i), UID: types.UID(fmt.Sprintf("%036d", i)), ResourceVersion: fmt.Sprint(100 + i),
			Labels: map[string]string{lease.LabelRing: "foo"}, Annotations: map[string]string{prefix + "protocol": "1"},
		}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder}}
		decoded, _, err := lease.Decode(l, "foo")
		if err != nil {
			t.Fatal(err)
		}
		m.Step(now, claim.LeaseObserved{Lease: decoded})
		m.Step(now, claim.LeaseDeleted{Last: decoded, Final: true})
	}
	var r claim.Record
	for _, a := range m.Step(now, claim.GetResult{Op: 1, Outcome: claim.NotFound}) {
		if create, ok := a.(claim.CreateLease); ok {
			r = create.Record
		}
	}
	cluster := shardtest.NewCluster()
	if _, outcome, err := lease.NewClient(config(cluster, "a")).Create(context.Background(), r); outcome != claim.OK {
		t.Fatal(err)
	}
	l := cluster.Leases("default")[0]
	if decoded, faults, _ := lease.Decode(&l, "foo"); decoded.Record.Edited {
		t.Errorf("%d tombstones of %d bytes: to peers, the record of a live member was edited: %.200v", len(r.Tombstones), len(l.Annotations[prefix+"tombstones"]), faults)
	}
}

// deleting answers updates as the API server does for a Lease that is being deleted, if the update
// removes its last finalizer: it deletes the Lease and returns the object of the request.
// (apiserver, pkg/registry/generic/registry/store.go: deleteWithoutFinalizers)
type deleting struct {
	coordinationclient.LeaseInterface
}

func (d deleting) Update(ctx context.Context, l *coordinationv1.Lease, o metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	if err := d.Delete(ctx, l.Name, metav1.DeleteOptions{}); err != nil {
		return nil, err
	}
	l = l.DeepCopy()
	l.DeletionTimestamp = new(metav1.Now())
	return l, nil
}

// R6, R60: a renewal that deletes the member's own Lease ("kubectl delete lease
// --cascade=foreground", whose finalizer the renewal removes) must not count as confirmed.
func TestR6_AnUpdateThatDeletesTheLeaseIsNotOK(t *testing.T) {
	ctx := context.Background()
	cluster := shardtest.NewCluster()
	created, _, err := lease.NewClient(config(cluster, "a")).Create(ctx, record("a"))
	if err != nil {
		t.Fatal(err)
	}
	c := config(cluster, "a")
	c.Leases = deleting{c.Leases}
	got, outcome, err := lease.NewClient(c).Update(ctx, created.UID, created.Version, record("a"))
	if outcome == claim.OK {
		t.Errorf("the Lease is gone (%d Leases are left), and the renewal counts as confirmed at version %s (error %v)", len(cluster.Leases("default")), got.Version, err)
	}
}
