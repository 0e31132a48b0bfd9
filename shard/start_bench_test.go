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
// configuration: they wait for others that start, until a second after the last of them has
// appeared (StartupSettle). It also reports when the last informer had synced and when the
// first reconcile began: the replicas list the objects once each, and share the CPUs for that.
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
	times := []time.Duration{0, time.Millisecond}
	if testing.Short() {
		times = times[:1]
	}
	for _, takes := range times {
		for name, replicas := range map[string]int{"plain=1": 0, "sharded=3": 3} {
			b.Run(fmt.Sprintf("reconcile=%v/%s", takes, name), func(b *testing.B) {
				var total started
				for b.Loop() {
					one := measureStart(b, list, replicas, takes)
					total.reconciles += one.reconciles
					total.synced += one.synced
					total.first += one.first
				}
				b.ReportMetric(float64(total.reconciles)/float64(b.N), "reconciles")
				b.ReportMetric(total.synced.Seconds()/float64(b.N), "synced-s")
				b.ReportMetric(total.first.Seconds()/float64(b.N), "first-s")
			})
		}
	}
}

// started is what a start has taken.
type started struct {
	reconciles    int64
	synced, first time.Duration // until all informers had synced, and until the first reconcile
}

// measureStart starts replicas, or a plain one if there are none, and waits until each object
// was reconciled.
func measureStart(b *testing.B, list *corev1.ConfigMapList, replicas int, takes time.Duration) started {
	began := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer func() {
		b.StopTimer()
		cancel()
		running.Wait()
		b.StartTimer()
	}()
	done := make(chan struct{})
	var reconciles, left, first, synced atomic.Int64
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
		running.Go(func() {
			select {
			case <-informer.HasSyncedChecker().Done():
				synced.Store(int64(time.Since(began))) // the last one counts
			case <-ctx.Done():
			}
		})
		running.Go(func() { <-ctx.Done(); queue.ShutDown() })
		for range 10 {
			running.Go(func() {
				for item, stopped := queue.Get(); !stopped; item, stopped = queue.Get() {
					first.CompareAndSwap(0, int64(time.Since(began)))
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
	return started{reconciles.Load(), time.Duration(synced.Load()), time.Duration(first.Load())}
}

// unstreamed does not support watch lists.
type unstreamed struct{ *cache.ListWatch }

func (unstreamed) IsWatchListSemanticsUnSupported() bool { return true }
