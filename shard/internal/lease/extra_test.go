// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package lease_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/lease"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// A write keeps labels, annotations and finalizers of others, up to a limit. The prefix of this
// project, the configured labels and the owner references belong to the member (R42).
func TestR42_AWriteKeepsWhatOthersHavePutOnTheLease(t *testing.T) {
	const prefix = "operator-scaling.tom-ludwig.github.io/"
	ctx, cluster := context.Background(), shardtest.NewCluster()
	cfg := config(cluster, "a")
	cfg.Labels = map[string]string{"app": "foo"}
	cfg.Owner = &metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: "a", UID: "uid"}
	client := lease.NewClient(cfg)
	r := record("a")
	if _, outcome, err := client.Create(ctx, r); outcome != claim.OK {
		t.Fatal(err)
	}
	l := cluster.Leases("default")[0]
	l.Labels["team"], l.Labels["app"], l.Labels[prefix+"x"] = "payments", "bar", "x"
	l.Annotations["example.com/a"], l.Annotations["example.com/b"] = "a", strings.Repeat("b", 4<<10)
	l.Annotations[prefix+"x"], l.Annotations["z"] = "x", "z"
	l.Finalizers = []string{"example.com/keep"}
	l.OwnerReferences = append(l.OwnerReferences, metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "foo", UID: "other"})
	cluster.Put(&l)

	read, outcome, err := client.Get(ctx)
	if outcome != claim.OK || err != nil {
		t.Fatal(err)
	}
	want := claim.Extra{
		Labels:      map[string]string{"team": "payments"},
		Annotations: map[string]string{"example.com/a": "a", "z": "z"},
		Finalizers:  []string{"example.com/keep"},
	}
	r.Extra, r.Seq = read.Record.Extra, 4
	written, outcome, err := client.Update(ctx, read.UID, read.Version, r)
	if outcome != claim.OK {
		t.Fatal(err)
	}
	for _, got := range []claim.Extra{read.Record.Extra, written.Record.Extra} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	l = cluster.Leases("default")[0]
	if diff := cmp.Diff(map[string]string{"team": "payments", "app": "foo", lease.LabelRing: "foo"}, l.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if len(l.OwnerReferences) != 1 || len(l.Finalizers) != 1 || l.Annotations[prefix+"x"] != "" || l.Annotations["z"] != "z" {
		t.Errorf("%+v", l.ObjectMeta)
	}
}
