// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// BenchmarkStart measures the time from the start of one replica with plain client-go, or of
// three sharded ones, on 100,000 objects until each object was reconciled. The replicas have
// ten workers each and share this process and its CPUs. A reconcile takes no time, or 1 ms
// without CPU time. The lists come from memory. The three replicas have the default
// configuration: they wait a second for others before they begin (StartupSettle).
//
//	go test ./shard -run '^$' -bench BenchmarkStart -benchtime 3x
func BenchmarkStart(b *testing.B) {
	const n = 100_000
	list := &corev1.ConfigMapList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}}
	for i := range n {
		list.Items = append(list.Items, corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Namespace: fmt.Sprintf("team-%d", i%50), Name: fmt.Sprintf("object-%05d", i), ResourceVersion: "1",
		}})
	}
	for _, takes := range []time.Duration{0, time.Millisecond} {
		for name, replicas := range map[string]int{"plain=1": 0, "sharded=3": 3} {
			b.Run(fmt.Sprintf("reconcile=%v/%s", takes, name), func(b *testing.B) {
				var reconciles int64
				for b.Loop() {
					reconciles += measureStart(b, list, replicas, takes)
				}
				b.ReportMetric(float64(reconciles)/float64(b.N), "reconciles")
			})
		}
	}
}

// measureStart starts replicas, or a plain one if there are none, and waits until each object
// was reconciled. It returns the number of reconciles.
func measureStart(b *testing.B, list *corev1.ConfigMapList, replicas int, takes time.Duration) int64 {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer func() {
		b.StopTimer()
		cancel()
		running.Wait()
		b.StartTimer()
	}()
	done := make(chan struct{})
	var reconciles, left atomic.Int64
	left.Store(int64(len(list.Items)))
	var seen sync.Map
	lw := unstreamed{&cache.ListWatch{
		ListWithContextFunc:  func(context.Context, metav1.ListOptions) (runtime.Object, error) { return list, nil },
		WatchFuncWithContext: func(context.Context, metav1.ListOptions) (watch.Interface, error) { return watch.NewFake(), nil },
	}}
	start := func(informer cache.SharedIndexInformer, queue clientworkqueue.TypedRateLimitingInterface[cache.ObjectName]) {
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) {
			name, err := cache.ObjectToName(obj)
			if err != nil {
				b.Error(err)
			}
			queue.Add(name)
		}}); err != nil {
			b.Fatal(err)
		}
		running.Go(func() { informer.RunWithContext(ctx) })
		running.Go(func() { <-ctx.Done(); queue.ShutDown() })
		for range 10 {
			running.Go(func() {
				for item, stopped := queue.Get(); !stopped; item, stopped = queue.Get() {
					time.Sleep(takes)
					reconciles.Add(1)
					if _, again := seen.LoadOrStore(item, nil); !again && left.Add(-1) == 0 {
						close(done)
					}
					queue.Done(item)
				}
			})
		}
	}
	limiter := clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]
	if replicas == 0 {
		start(cache.NewSharedIndexInformer(lw, &corev1.ConfigMap{}, 0, cache.Indexers{}), clientworkqueue.NewTypedRateLimitingQueue(limiter()))
	}
	cluster := shardtest.NewCluster()
	for i := range replicas {
		pod := fmt.Sprint("pod-", i)
		s, err := shard.New(cluster.Client(pod), shard.Config{Name: "bench", PodName: pod, Namespace: namespace})
		if err != nil {
			b.Fatal(err)
		}
		start(shard.NewInformer(s, lw, &corev1.ConfigMap{}, 0, cache.Indexers{}), shard.NewQueue(s, limiter()))
		running.Go(func() {
			if err := s.Run(klog.NewContext(ctx, klog.Logger{})); err != nil { // without logs
				b.Error(err)
			}
		})
	}
	<-done
	return reconciles.Load()
}

// unstreamed does not support watch lists.
type unstreamed struct{ *cache.ListWatch }

func (unstreamed) IsWatchListSemanticsUnSupported() bool { return true }
