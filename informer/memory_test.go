// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// BenchmarkMemory measures what stays in memory for each object that a handler has been shown,
// in addition to the stored object; with plain client-go that is nothing. The objects are shown
// in one version and then updated, so that a copy of the first version that stays in memory
// counts: it takes about 1,200 bytes.
//
//   - "handler" is a handler without OnReleased.
//   - "released" is one with OnReleased.
//   - "replayed" were shown by a replay that the stream has not reached. (These are not updated.)
func BenchmarkMemory(b *testing.B) {
	const n = 100_000
	for name, handler := range map[string]cache.ResourceEventHandler{
		"handler":  &countingHandler{},
		"released": &HandlerFuncs{ReleasedFunc: func(any) {}},
		"replayed": &countingHandler{},
	} {
		b.Run(name, func(b *testing.B) {
			var kept int64
			for b.Loop() {
				o := &snapshotOwner{}
				all := o.all(ring.Active)
				_, wrapped := bareAndWrapped(o, &cache.ListWatch{})
				objects := pods(n, 1)
				for _, pod := range objects {
					_ = wrapped.GetIndexer().Add(pod)
				}
				before := liveHeap()
				if _, err := wrapped.AddEventHandler(handler); err != nil {
					b.Fatal(err)
				}
				f := wrapped.filters[0]
				if name == "replayed" {
					wrapped.Activated(all)
					process(b, f)
				} else {
					showAndUpdate(f, pods(n, 0), objects)
				}
				kept += liveHeap() - before
				if len(f.shown) != n {
					b.Fatalf("%d of %d objects are shown", len(f.shown), n)
				}
				runtime.KeepAlive(objects)
			}
			b.ReportMetric(0, "ns/op") // not meaningful here
			b.ReportMetric(float64(kept)/float64(b.N)/n, "B/object")
		})
	}
}

func showAndUpdate(f *filter, before, after []*corev1.Pod) {
	for i := range before {
		f.OnAdd(before[i], true)
	}
	for i := range before {
		f.OnUpdate(before[i], after[i])
	}
}

// liveHeap returns the size of what is reachable.
func liveHeap() int64 {
	runtime.GC()
	runtime.GC() // what the first one has only finalized
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
