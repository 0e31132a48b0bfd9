// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// The benchmarks measure Add, Get and Done of one item on client-go's queue ("bare") and on this
// one, with a fence that
//
//   - costs nothing ("noclock"), so that only the filter's own cost remains;
//   - reads the clock, after which the queue reads it again ("clock");
//   - reads it for the queue too, through TimedOwnership ("clocked").
//
// "metrics" uses a name and a metrics provider, as in production: client-go itself then reads
// the clock four times. "global" uses client-go's global metrics provider.

func benchmarkItems() ([]string, []cache.ObjectName) {
	names := make([]cache.ObjectName, 1000)
	strings := make([]string, len(names))
	for i := range names {
		names[i] = cache.ObjectName{Namespace: fmt.Sprintf("namespace-%d", i%7), Name: fmt.Sprintf("some-object-%d", i)}
		strings[i] = names[i].String()
	}
	return strings, names
}

// noClock is a fence that costs nothing.
type noClock struct {
	*owner
	now time.Time
}

func (o noClock) FencedAt() (time.Time, bool) { return o.now, false }
func (o noClock) Stopped() bool               { return false }

// plain hides that an owner implements TimedOwnership.
type plain struct{ Ownership }

type candidate[T comparable] struct {
	name string
	new  func(workqueue.TypedRateLimitingQueueConfig[T]) workqueue.TypedRateLimitingInterface[T]
}

func candidates[T comparable](point func(T) (uint64, error)) []candidate[T] {
	all := newOwner(ring.Active)
	clocked := clockedOwner{all, time.Now().Add(24 * time.Hour)}
	type config = workqueue.TypedRateLimitingQueueConfig[T]
	sharded := func(name string, o Ownership) candidate[T] {
		return candidate[T]{name, func(c config) workqueue.TypedRateLimitingInterface[T] {
			return New(workqueue.DefaultTypedControllerRateLimiter[T](), Options[T]{Ownership: o, Point: point, Config: c, Recorder: new(countingRecorder)})
		}}
	}
	return []candidate[T]{
		{"bare", func(c config) workqueue.TypedRateLimitingInterface[T] {
			return workqueue.NewTypedRateLimitingQueueWithConfig(workqueue.DefaultTypedControllerRateLimiter[T](), c)
		}},
		sharded("noclock", noClock{all, time.Now()}),
		sharded("clock", plain{clocked}),
		sharded("clocked", clocked),
	}
}

func configs[T comparable]() map[string]workqueue.TypedRateLimitingQueueConfig[T] {
	return map[string]workqueue.TypedRateLimitingQueueConfig[T]{
		"plain":   {},
		"metrics": {Name: "benchmark", MetricsProvider: provider{}},
		"global":  {Name: "benchmark"}, // globalProvider
	}
}

// BenchmarkCycle measures the time and allocations of each queue, with one worker and with one
// per CPU.
func BenchmarkCycle(b *testing.B) {
	strings, names := benchmarkItems()
	b.Run("string", func(b *testing.B) { benchmarkCycle(b, strings, pointOfString) })
	b.Run("ObjectName", func(b *testing.B) { benchmarkCycle(b, names, pointOfName) })
}

func benchmarkCycle[T comparable](b *testing.B, items []T, point func(T) (uint64, error)) {
	for _, with := range []string{"plain", "metrics"} {
		for _, c := range candidates(point) {
			b.Run(with+"/"+c.name+"/single", func(b *testing.B) {
				q := c.new(configs[T]()[with])
				defer q.ShutDown()
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					cycle(q, items[i%len(items)])
				}
			})
			b.Run(with+"/"+c.name+"/parallel", func(b *testing.B) {
				q := c.new(configs[T]()[with])
				defer q.ShutDown()
				b.ReportAllocs()
				var workers atomic.Int64
				b.RunParallel(func(pb *testing.PB) {
					// Each worker has its own items: they are never merged with another worker's,
					// so there is one to get for each Add.
					mine := items[int(workers.Add(1)-1)*100%len(items):][:100]
					for i := 0; pb.Next(); i++ {
						cycle(q, mine[i%len(mine)])
					}
				})
			})
		}
	}
}

func cycle[T comparable](q workqueue.TypedRateLimitingInterface[T], item T) {
	q.Add(item)
	item, _ = q.Get()
	q.Done(item)
}

// BenchmarkRatio compares the queues on a machine that is also busy with other work. Short runs
// of the queues alternate, so that a disturbance affects all of them. It reports the median of
// the bare queue's times and the medians of the ratios to it, for "clocked" with the limits of
// a 95 % confidence interval.
func BenchmarkRatio(b *testing.B) {
	strings, names := benchmarkItems()
	b.Run("string", func(b *testing.B) { benchmarkRatio(b, strings, pointOfString) })
	b.Run("ObjectName", func(b *testing.B) { benchmarkRatio(b, names, pointOfName) })
}

func benchmarkRatio[T comparable](b *testing.B, items []T, point func(T) (uint64, error)) {
	for _, with := range []string{"plain", "metrics", "global"} {
		for _, workers := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/workers=%d", with, workers), func(b *testing.B) {
				var queues []workqueue.TypedRateLimitingInterface[T]
				for _, c := range candidates(point) {
					q := c.new(configs[T]()[with])
					defer q.ShutDown()
					queues = append(queues, q)
				}
				run := func(q workqueue.TypedRateLimitingInterface[T]) float64 {
					share := len(items) / workers
					start := time.Now()
					var wg sync.WaitGroup
					for w := 1; w < workers; w++ {
						wg.Go(func() { each(q, items[w*share:][:share]) })
					}
					each(q, items[:share])
					wg.Wait()
					return float64(time.Since(start).Nanoseconds()) / float64(share*workers)
				}
				var bare []float64
				ratios := make([][]float64, len(queues))
				for b.Loop() {
					unit := run(queues[0])
					bare = append(bare, unit)
					for i, q := range queues[1:] {
						ratios[i+1] = append(ratios[i+1], run(q)/unit)
					}
				}
				b.ReportMetric(0, "ns/op") // not meaningful here
				b.ReportMetric(median(bare), "bare-ns")
				for i, c := range candidates(point)[1:] {
					b.ReportMetric(median(ratios[i+1]), c.name+"/bare")
					if c.name == "clocked" {
						low, high := interval(ratios[i+1])
						b.ReportMetric(low, "clocked-low")
						b.ReportMetric(high, "clocked-high")
					}
				}
			})
		}
	}
}

func each[T comparable](q workqueue.TypedRateLimitingInterface[T], items []T) {
	for _, item := range items {
		cycle(q, item)
	}
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}

// interval returns the limits of a 95 % confidence interval of the median of sorted values.
func interval(x []float64) (low, high float64) {
	n := float64(len(x))
	half := 0.98 * math.Sqrt(n)
	return x[max(0, int(n/2-half))], x[min(len(x)-1, int(n/2+half))]
}

// provider is a metrics provider that counts at the lowest possible cost.
type provider struct{}

type metric struct{ n atomic.Int64 }

func (m *metric) Inc()            { m.n.Add(1) }
func (m *metric) Dec()            { m.n.Add(-1) }
func (m *metric) Set(float64)     { m.n.Add(1) }
func (m *metric) Observe(float64) { m.n.Add(1) }

func (provider) NewDepthMetric(string) workqueue.GaugeMetric            { return new(metric) }
func (provider) NewAddsMetric(string) workqueue.CounterMetric           { return new(metric) }
func (provider) NewLatencyMetric(string) workqueue.HistogramMetric      { return new(metric) }
func (provider) NewWorkDurationMetric(string) workqueue.HistogramMetric { return new(metric) }
func (provider) NewRetriesMetric(string) workqueue.CounterMetric        { return new(metric) }
func (provider) NewUnfinishedWorkSecondsMetric(string) workqueue.SettableGaugeMetric {
	return new(metric)
}

func (provider) NewLongestRunningProcessorSecondsMetric(string) workqueue.SettableGaugeMetric {
	return new(metric)
}

// BenchmarkReadmit measures a look at 100,000 queued items, which the loop takes at each
// renewal, with the lock held.
func BenchmarkReadmit(b *testing.B) {
	q := New(workqueue.DefaultTypedControllerRateLimiter[int](), Options[int]{Ownership: newOwner(ring.Active), Point: pointOfInt})
	defer q.ShutDown()
	for item := range 100_000 {
		q.Add(item)
	}
	for b.Loop() {
		q.Readmit()
	}
}
