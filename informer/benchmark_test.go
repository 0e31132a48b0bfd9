// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// cpuTime returns the CPU time that this process has used, or 0 where it cannot be determined.
var cpuTime = func() time.Duration { return 0 }

// snapshotOwner works as package shard does: it reads an immutable snapshot behind an atomic
// pointer.
type snapshotOwner struct {
	states atomic.Pointer[[ring.DefaultPartitions]ring.State]
}

func (o *snapshotOwner) State(point uint64) ring.State {
	return o.states.Load()[ring.PartitionOf(point, ring.DefaultPartitions)]
}

func (o *snapshotOwner) all(state ring.State) ring.Set {
	var states [ring.DefaultPartitions]ring.State
	for p := range states {
		states[p] = state
	}
	o.states.Store(&states)
	return ring.FullSet(ring.DefaultPartitions)
}

// pointByName hashes as package shard does for a ring by name.
func pointByName() func(metav1.Object) (uint64, error) {
	hash := ring.HashOf(ring.ByName)
	return func(obj metav1.Object) (uint64, error) { return ring.ByName.Point(obj, hash), nil }
}

// countingHandler is a handler that only counts calls.
type countingHandler struct {
	n, goal atomic.Int64
	reached chan struct{}
}

func newCountingHandler(goal int64) *countingHandler {
	c := &countingHandler{reached: make(chan struct{}, 1)}
	c.goal.Store(goal)
	return c
}

func (c *countingHandler) count() {
	if c.n.Add(1) == c.goal.Load() {
		c.reached <- struct{}{}
	}
}
func (c *countingHandler) OnAdd(any, bool)   { c.count() }
func (c *countingHandler) OnUpdate(_, _ any) { c.count() }
func (c *countingHandler) OnDelete(any)      { c.count() }

// namer is the smallest useful handler: it creates the name that it would enqueue.
type namer struct {
	*countingHandler
	name cache.ObjectName
}

func (h *namer) handle(obj any) {
	h.name, _ = cache.DeletionHandlingObjectToName(obj)
	h.count()
}
func (h *namer) OnAdd(obj any, _ bool)  { h.handle(obj) }
func (h *namer) OnUpdate(_, newObj any) { h.handle(newObj) }
func (h *namer) OnDelete(obj any)       { h.handle(obj) }
func pods(n, version int) []*corev1.Pod {
	pods := make([]*corev1.Pod, n)
	for i := range pods {
		pods[i] = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: fmt.Sprintf("team-%d", i%50), Name: fmt.Sprintf("deployment-7d4b9c6f5-%05d", i),
			UID: types.UID(fmt.Sprintf("5f3ad1e2-93cf-4d0b-8f6a-%012d", i)), ResourceVersion: strconv.Itoa(1_000_000 + version*n + i),
		}}
	}
	return pods
}

func bareAndWrapped(o *snapshotOwner, lw cache.ListerWatcher) (bare cache.SharedIndexInformer, wrapped *Informer) {
	bare = cache.NewSharedIndexInformer(lw, &corev1.Pod{}, 0, cache.Indexers{})
	inner := cache.NewSharedIndexInformer(lw, &corev1.Pod{}, 0, cache.Indexers{})
	return bare, Wrap(inner, Options{Ownership: o, Point: pointByName(), FixedPoint: true, PointOfKey: ring.HashOf(ring.ByName)})
}

// BenchmarkHandler measures what the filter adds to the call of a handler that does nothing.
// The objects are in the CPU caches, as they are when the inner informer has just stored them.
func BenchmarkHandler(b *testing.B) {
	const n = 100
	before, after := pods(n, 0), pods(n, 1)
	for name, test := range map[string]struct {
		state ring.State
		call  func(h cache.ResourceEventHandler, i int)
	}{
		"update=passed":   {ring.Active, func(h cache.ResourceEventHandler, i int) { h.OnUpdate(before[i%n], after[i%n]) }},
		"resync=passed":   {ring.Active, func(h cache.ResourceEventHandler, i int) { h.OnUpdate(before[i%n], before[i%n]) }},
		"add=filtered":    {ring.NotOwned, func(h cache.ResourceEventHandler, i int) { h.OnAdd(before[i%n], false) }},
		"update=filtered": {ring.NotOwned, func(h cache.ResourceEventHandler, i int) { h.OnUpdate(before[i%n], after[i%n]) }},
		// The informer has remembered the deletion already. BenchmarkDeletion has the first handler.
		"delete=filtered, seen by another handler": {ring.NotOwned, func(h cache.ResourceEventHandler, i int) { h.OnDelete(before[i%n]) }},
	} {
		for _, kind := range []string{"bare", "wrapped"} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				o := &snapshotOwner{}
				o.all(ring.Active)
				_, wrapped := bareAndWrapped(o, &cache.ListWatch{})
				for range 2 {
					if _, err := wrapped.AddEventHandler(&countingHandler{}); err != nil {
						b.Fatal(err)
					}
				}
				var h cache.ResourceEventHandler = wrapped.filters[0]
				if kind == "bare" {
					h = &countingHandler{}
				} else if test.state == ring.Active {
					for _, pod := range before {
						h.OnAdd(pod, false)
					}
				}
				o.all(test.state)
				if strings.HasSuffix(name, "another handler") {
					for _, pod := range before {
						wrapped.filters[1].OnDelete(pod)
					}
				}
				b.ReportAllocs()
				i, began := 0, cpuTime()
				for b.Loop() {
					test.call(h, i)
					if i++; i%n == 0 && name == "update=passed" {
						before, after = after, before // swap, so that "from" is always the version that was delivered last
					}
				}
				b.ReportMetric(float64(cpuTime()-began)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// BenchmarkDeletion measures what the first handler of an informer that sees a deletion adds to
// the call: it remembers the deletion. The objects are in the CPU caches, as in BenchmarkHandler,
// but each has another name.
//
//   - "full window": as many deletions are remembered as the default limit permits. For each one
//     that is added another one is forgotten.
//   - "growing window": from none to the limit, then again from none. Nothing is forgotten.
func BenchmarkDeletion(b *testing.B) {
	const n = 100
	before := pods(n, 0)
	names := make([]string, 3*DefaultDeletionLimit)
	for i := range names {
		names[i] = fmt.Sprintf("deployment-7d4b9c6f5-%06d", i)
	}
	for _, window := range []string{"full window", "growing window"} {
		b.Run(window, func(b *testing.B) {
			o := &snapshotOwner{}
			o.all(ring.NotOwned)
			_, wrapped := bareAndWrapped(o, &cache.ListWatch{})
			if _, err := wrapped.AddEventHandler(&countingHandler{}); err != nil {
				b.Fatal(err)
			}
			f, ds, i := wrapped.filters[0], &wrapped.deletions, 0
			del := func() {
				pod := before[i%n]
				pod.Name = names[i%len(names)]
				f.OnDelete(pod)
				i++
			}
			if window == "full window" {
				for range len(names) { // the limit is reached, and some generations are forgotten
					del()
				}
			}
			b.ReportAllocs()
			began := cpuTime()
			for b.Loop() {
				if window == "growing window" && ds.count() == ds.limit-ds.limit/generations {
					*ds = deletions{window: ds.window, limit: ds.limit}
				}
				del()
			}
			b.ReportMetric(float64(cpuTime()-began)/float64(b.N), "cpu-ns/op")
		})
	}
}

// process processes the changes that wait for a handler.
func process(b *testing.B, f *filter) {
	for c, ok := f.changes.first(); ok; c, ok = f.changes.first() {
		if !f.apply(b.Context(), c) {
			b.Fatal("interrupted")
		}
		f.done(c)
	}
	f.informer.dropScan()
}

// BenchmarkReplay activates everything in a store of 100,000 objects, for one handler. For
// comparison it measures how long client-go takes to add a handler to such an informer.
func BenchmarkReplay(b *testing.B) {
	const n = 100_000
	o := &snapshotOwner{}
	objects := pods(n, 0)
	bare, wrapped := bareAndWrapped(o, listed(objects, watch.NewFake()))
	for range 2 {
		if _, err := wrapped.AddEventHandler(&countingHandler{}); err != nil {
			b.Fatal(err)
		}
	}
	first, second := wrapped.filters[0], wrapped.filters[1]
	for _, pod := range objects {
		_ = wrapped.GetIndexer().Add(pod)
	}
	one := ring.NewSet(ring.DefaultPartitions)
	one.Add(7)
	change := func(state ring.State) {
		if set := o.all(state); state == ring.Active {
			wrapped.Activated(set)
		} else {
			wrapped.Released(set)
		}
	}
	processAll := func() {
		process(b, first)
		process(b, second)
	}
	b.Run("activated", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			change(ring.NotOwned)
			processAll()
			change(ring.Active)
			b.StartTimer()
			process(b, first)
		}
	})
	change(ring.Active)
	processAll()
	b.Run("activated=1 of 509, first of all", func(b *testing.B) {
		b.ReportAllocs()
		began := cpuTime()
		for b.Loop() {
			wrapped.Released(one)
			wrapped.Activated(one)
			process(b, first)
			second.changes.clear()
		}
		b.ReportMetric(float64(cpuTime()-began)/float64(b.N), "cpu-ns/op")
	})
	b.Run("activated=1 of 509, shares the scan", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			wrapped.Released(one)
			processAll() // otherwise each handler needs a scan from after its release
			wrapped.Activated(one)
			process(b, first)
			b.StartTimer()
			process(b, second)
		}
	})
	b.Run("released", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			change(ring.Active)
			processAll()
			change(ring.NotOwned)
			b.StartTimer()
			process(b, first)
		}
	})
	b.Run("client-go adds a handler", func(b *testing.B) {
		running(b, bare)
		for !bare.HasSynced() {
			time.Sleep(time.Millisecond)
		}
		b.ReportAllocs()
		for b.Loop() {
			h := newCountingHandler(n)
			handle, err := bare.AddEventHandler(h)
			if err != nil {
				b.Fatal(err)
			}
			<-h.reached
			if err := bare.RemoveEventHandler(handle); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkObjects counts 100,000 stored objects by state, as at a scrape.
func BenchmarkObjects(b *testing.B) {
	o := &snapshotOwner{}
	o.all(ring.Active)
	_, wrapped := bareAndWrapped(o, &cache.ListWatch{})
	for _, pod := range pods(100_000, 0) {
		_ = wrapped.GetIndexer().Add(pod)
	}
	b.ReportAllocs()
	began := cpuTime()
	for b.Loop() {
		wrapped.Objects()
	}
	b.ReportMetric(float64(cpuTime()-began)/float64(b.N), "cpu-ns/op")
}
