// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// A tool reads what a running member has written, under the selector that finds it, and
// what it has written badly as the worst case.
func TestDecodeReadsARunningMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := shardtest.NewCluster().Client("op-0")
		s, err := shard.New(client, shard.DefaultConfig("foo").WithPodName("op-0").WithNamespace("default"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(time.Minute)

		list, err := client.CoordinationV1().Leases("default").List(t.Context(), metav1.ListOptions{LabelSelector: inspect.Selector("foo")})
		if err != nil || len(list.Items) != 1 {
			t.Fatalf("%d Leases, %v", len(list.Items), err)
		}
		l := &list.Items[0]
		m, err := inspect.Decode(l, "foo")
		if err != nil || m.Faults != nil {
			t.Fatal(err, m.Faults)
		}
		if m.Lease != inspect.LeaseName("foo-", "op-0") || m.Pod != "op-0" || m.Holder != s.Identity() || m.Void() {
			t.Errorf("the member is %+v", m)
		}
		if m.Phase != inspect.PhaseActive || m.Duration != shard.DefaultLeaseDuration || m.Parameters.Partitions != ring.DefaultPartitions {
			t.Errorf("phase %s, duration %v, parameters %+v", m.Phase, m.Duration, m.Parameters)
		}
		if m.Claims.Set.Len() != ring.DefaultPartitions || !m.Claims.HasPoint(ring.PointOfName("default", "x")) {
			t.Errorf("it claims %d partitions, all %d expected", m.Claims.Set.Len(), ring.DefaultPartitions)
		}

		if _, err := inspect.Decode(l, "bar"); !errors.Is(err, inspect.ErrForeign) {
			t.Errorf("the Lease of another ring: %v", err)
		}
		for key, value := range l.Annotations {
			l.Annotations[key] = value + "?"
		}
		if m, err = inspect.Decode(l, "foo"); err != nil || m.Faults == nil || !m.Claims.Everything || !m.Claims.HasPoint(1) {
			t.Errorf("a damaged record: %+v, %v", m, err)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
