// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// runBenchmark runs a member until the benchmark ends, and waits until it owns all keys.
func runBenchmark(b *testing.B, s *shard.Sharder) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	for !s.OwnsKey("any/key") {
		time.Sleep(time.Millisecond)
	}
}

// BenchmarkAcquire measures the cost of a piece of work that asks for its key, and compares it
// with one that comes from a queue.
func BenchmarkAcquire(b *testing.B) {
	s, err := shard.New(shardtest.NewCluster().Client("a"), shard.Config{Name: "bench", PodName: "a", Namespace: namespace, StartupSettle: time.Millisecond})
	if err != nil {
		b.Fatal(err)
	}
	queue := newTestQueue(s)
	defer queue.ShutDown()
	runBenchmark(b, s)
	ctx, item := context.Background(), cache.ObjectName{Namespace: "team-blue", Name: "checkout-frontend-7"}
	key := item.String()
	b.Run("queue", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			queue.Add(item)
			queue.GetWithContext(ctx)
			queue.Done(item)
		}
	})
	b.Run("acquire", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, done, err := s.Acquire(ctx, key)
			if err != nil {
				b.Fatal(err)
			}
			done()
		}
	})
	b.Run("try, in use", func(b *testing.B) {
		_, done, err := s.Acquire(ctx, key)
		if err != nil {
			b.Fatal(err)
		}
		defer done()
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := s.TryAcquire(ctx, key); err == nil {
				b.Fatal("acquired twice")
			}
		}
	})
	b.Run("parallel, one key", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, done, err := s.Acquire(ctx, key)
				if err != nil {
					b.Error(err)
					return
				}
				done()
			}
		})
	})
}

// BenchmarkOwns measures the minimum cost of each event and each item.
func BenchmarkOwns(b *testing.B) {
	cluster := shardtest.NewCluster()
	s, err := shard.New(cluster.Client("a"), shard.Config{Name: "bench", PodName: "a", Namespace: namespace, StartupSettle: time.Millisecond})
	if err != nil {
		b.Fatal(err)
	}
	runBenchmark(b, s)
	obj := &metav1.ObjectMeta{Namespace: "team-blue", Name: "checkout-frontend-7"}
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
