// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// BenchmarkOwns measures the minimum cost of each event and each item.
func BenchmarkOwns(b *testing.B) {
	cluster := shardtest.NewCluster()
	s, err := shard.New(cluster.Client("a"), shard.Config{Name: "bench", PodName: "a", Namespace: namespace, StartupSettle: time.Millisecond})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() { cancel(); <-done }()
	obj := &metav1.ObjectMeta{Namespace: "team-blue", Name: "checkout-frontend-7"}
	for !s.Owns(obj) {
		time.Sleep(time.Millisecond)
	}
	b.Run("key", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.OwnsKey("team-blue/checkout-frontend-7")
		}
	})
	b.Run("object", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Owns(obj)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				s.Owns(obj)
			}
		})
	})
	b.Run("fenced", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Fenced()
		}
	})
}
