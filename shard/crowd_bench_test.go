// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// BenchmarkCrowd measures what bogus Leases cost a member: many Leases of active members appear
// at once, claim what the member claims, and stay silent until the member has evicted all of
// them. It reports how long the member's loop was busy meanwhile, the longest time for which
// it was, and the oldest renewal of the member's Lease that was seen; the member is fenced
// when that is older than RenewDeadline (4 s here).
//
//	go test ./shard -run '^$' -bench BenchmarkCrowd -benchtime 1x
func BenchmarkCrowd(b *testing.B) {
	sizes := []int{100, 300, 1000}
	if testing.Short() {
		sizes = sizes[:1]
	}
	for _, bogus := range sizes {
		b.Run(fmt.Sprintf("bogus=%d", bogus), func(b *testing.B) {
			for b.Loop() {
				measureCrowd(b, bogus)
			}
		})
	}
}

func measureCrowd(b *testing.B, bogus int) {
	cluster := shardtest.NewCluster()
	s, err := shard.New(cluster.Client("a"), shard.Config{
		Name: "foo", PodName: "a", Namespace: namespace, StartupSettle: time.Millisecond,
		LeaseDuration: 7 * time.Second, RenewDeadline: 4 * time.Second, RenewPeriod: time.Second, StopGracePeriod: time.Second, WatchLagLimit: 3 * time.Second,
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() { cancel(); <-done }()
	for s.OwnedCount() < 509 {
		time.Sleep(time.Millisecond)
	}
	own := cluster.Leases(namespace)[0]
	began := time.Now()
	for i := range bogus {
		cluster.Put(bogusLease(&own, fmt.Sprintf("bogus-%04d", i)))
	}
	var busy, longest, oldest time.Duration
	for held := true; held; time.Sleep(5 * time.Millisecond) {
		// The loop answers between two events. What it takes longer than a moment, it was busy.
		asked := time.Now()
		s.Read(ctx, 0)
		if took := time.Since(asked); took > 100*time.Microsecond {
			busy += took
			longest = max(longest, took)
		}
		oldest = max(oldest, s.RenewalAge())
		if time.Since(began) > time.Minute {
			b.Fatal("after a minute there are still bogus Leases")
		}
		select {
		case err := <-done:
			done <- err
			b.Fatal("Run has returned: ", err)
		default:
		}
		if time.Now().UnixMilli()%20 == 0 {
			held = false
			for _, l := range cluster.Leases(namespace) {
				held = held || *l.Spec.HolderIdentity != "" && l.Name != own.Name
			}
		}
	}
	b.ReportMetric(busy.Seconds(), "s-busy")
	b.ReportMetric(longest.Seconds(), "s-longest")
	b.ReportMetric(oldest.Seconds(), "s-renewal-age")
	b.ReportMetric(time.Since(began).Seconds(), "s-until-evicted")
}
