// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// namesProvider is a metrics provider that records which metrics it created.
type namesProvider struct {
	provider
	mu      sync.Mutex
	asked   map[string]string
	retries metric
}

func (p *namesProvider) note(kind, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked == nil {
		p.asked = map[string]string{}
	}
	p.asked[kind] += name
}

func (p *namesProvider) NewDepthMetric(name string) workqueue.GaugeMetric {
	p.note("depth", name)
	return new(metric)
}

func (p *namesProvider) NewRetriesMetric(name string) workqueue.CounterMetric {
	p.note("retries", name)
	return &p.retries
}

// The name and the metrics provider reach every layer, each once. (So does the clock: see
// client-go's tests, which use a fake one.)
func TestQ9_ConfigReachesEveryLayer(t *testing.T) {
	p := new(namesProvider)
	q := New(workqueue.DefaultTypedControllerRateLimiter[int](), Options[int]{
		Ownership: newOwner(ring.Active), Point: pointOfInt,
		Config: workqueue.TypedRateLimitingQueueConfig[int]{Name: "foos", MetricsProvider: p},
	})
	defer q.ShutDown()
	q.AddRateLimited(1)
	if diff := cmp.Diff(map[string]string{"depth": "foos", "retries": "foos"}, p.asked); diff != "" {
		t.Error(diff)
	}
	if n := p.retries.n.Load(); n != 1 {
		t.Errorf("%d retries, want 1", n)
	}
}

// A user's own delaying queue serves AddAfter in place of client-go's.
func TestQ9_InjectedDelayingQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(ring.Active)
		c := new(countingRecorder)
		q := New(workqueue.DefaultTypedControllerRateLimiter[int](), Options[int]{
			Ownership: o, Point: pointOfInt, Recorder: c,
			Config: workqueue.TypedRateLimitingQueueConfig[int]{DelayingQueue: workqueue.NewTypedDelayingQueue[int]()},
		})
		for item := range 4 {
			q.AddAfter(item, time.Second)
		}
		q.AddAfter(4, 0)
		o.set(0, ring.NotOwned)
		o.set(1, ring.Pending)
		time.Sleep(time.Minute)
		var got []int
		for range 3 {
			got = append(got, get(t, q))
		}
		q.Done(got[0])
		q.Done(got[1])
		rejectAll(t, q, 5)
		slices.Sort(got)
		if diff := cmp.Diff([]int{2, 3, 4}, got); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(counts{Passed: 4, Parked: 1, Dropped: 1}, c.counts()); diff != "" {
			t.Error(diff)
		}
		q.AddAfter(6, time.Hour)
		q.ShutDown() // the bubble ends only when no goroutine remains
		if !q.ShuttingDown() {
			t.Error("not shutting down")
		}
	})
}

func TestQ10_ShutDown(t *testing.T) {
	for name, shutDown := range map[string]func(*Queue[int]){
		"ShutDown":          (*Queue[int]).ShutDown,
		"ShutDownWithDrain": (*Queue[int]).ShutDownWithDrain,
		"both":              func(q *Queue[int]) { q.ShutDownWithDrain(); q.ShutDown(); q.ShutDown() },
	} {
		t.Run(name, func(t *testing.T) {
			// The bubble ends only when all goroutines have ended, including those for
			// timers and metrics.
			synctest.Test(t, func(t *testing.T) {
				o := newOwner(ring.Active)
				o.set(1, ring.Pending)
				c := new(countingRecorder)
				q := New(workqueue.DefaultTypedControllerRateLimiter[int](), Options[int]{
					Ownership: o, Point: pointOfInt, Recorder: c,
					Config: workqueue.TypedRateLimitingQueueConfig[int]{Name: "foos", MetricsProvider: provider{}},
				})
				q.Add(0)
				q.Add(1) // parked
				q.Add(2) // queued, and pending when Get finds it
				q.AddAfter(3, time.Hour)
				shutDown(q)
				o.set(2, ring.Pending)
				q.Add(4)
				q.Add(1)
				if !q.ShuttingDown() || q.Parked() != 0 {
					t.Errorf("shutting down: %t, %d parked", q.ShuttingDown(), q.Parked())
				}
				if got := get(t, q); got != 0 {
					t.Errorf("Get returned %d", got)
				}
				if item, shutdown := q.Get(); !shutdown {
					t.Errorf("Get returned %d", item)
				}
				q.Done(0)
				o.setAll(ring.Active)
				q.Readmit()
				if n := q.Len(); n != 0 {
					t.Errorf("%d queued", n)
				}
				if diff := cmp.Diff(counts{Passed: 1, Parked: 1, Dropped: 3}, c.counts()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// No goroutine remains, not even one that would end by itself some seconds later.
func TestQ10_NoGoroutineRemains(t *testing.T) {
	for name, shutDown := range map[string]func(*Queue[int]){
		"ShutDown":          (*Queue[int]).ShutDown,
		"ShutDownWithDrain": (*Queue[int]).ShutDownWithDrain,
	} {
		synctest.Test(t, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			q, _ := newQueue(t, newOwner(ring.Active))
			q.AddAfter(1, time.Hour)
			synctest.Wait() // client-go's goroutine waits for its timers
			shutDown(q)
			synctest.Wait()
			if err := goleak.Find(before); err != nil {
				t.Errorf("after %s: %v", name, err)
			}
		})
	}
}

// ShutDownWithDrain waits for Done, but not for parked items.
func TestQ10_ShutDownWithDrainWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(ring.Active)
		o.set(1, ring.Pending)
		q, _ := newQueue(t, o)
		q.Add(0)
		q.Add(1)
		q.Add(2)
		get(t, q)
		var drained bool
		go func() {
			q.ShutDownWithDrain()
			drained = true
		}()
		synctest.Wait()
		if drained {
			t.Error("did not wait for the work in flight")
		}
		if n := q.Parked(); n != 0 {
			t.Errorf("%d parked while shutting down", n)
		}
		o.set(2, ring.Pending)
		if item, shutdown := q.Get(); !shutdown || q.Parked() != 0 {
			t.Errorf("Get returned %d, %d parked", item, q.Parked())
		}
		q.Drain(inPartition(0))
		q.Done(0)
		synctest.Wait()
		if !drained {
			t.Error("still waits after Done")
		}
	})
}

// A queue that is shut down while fenced does not block its workers.
func TestQ10_ShutDownWhileFenced(t *testing.T) {
	o := newOwner(ring.Active)
	q, _ := newQueue(t, o)
	for item := range 5 {
		q.Add(item)
	}
	o.fenced.Store(true)
	q.Fence()
	q.ShutDown()
	if item, shutdown := q.Get(); !shutdown {
		t.Errorf("Get returned %d", item)
	}
	if q.Parked() != 0 {
		t.Errorf("%d parked", q.Parked())
	}
}

// The workers of a controller have gone without taking what is queued. Its queue must not
// stay forever, but a worker that is only late must get everything.
func TestQ10_ClosedWithoutWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, count := newQueue(t, newOwner(ring.Active))
		for item := range 3 {
			q.Add(item)
		}
		q.AddRateLimited(3)
		time.Sleep(time.Second)
		closed := func(when string, want bool) {
			t.Helper()
			if q.Closed() != want {
				t.Errorf("%s: closed %t, %d queued", when, q.Closed(), q.Len())
			}
		}
		time.Sleep(time.Hour)
		closed("not shut down", false)
		q.ShutDown()
		closed("shut down", false)
		time.Sleep(abandonedAfter - time.Second)
		closed("soon", false)
		item := get(t, q)
		time.Sleep(time.Hour)
		closed("in flight", false)
		q.Done(item)
		closed("a worker has been there", false)
		time.Sleep(abandonedAfter)
		closed("abandoned", true)
		if n := count.counts().Dropped; n != 3 || q.NumRequeues(3) != 0 {
			t.Errorf("%d dropped, %d failures are remembered", n, q.NumRequeues(3))
		}
		if _, shutdown := q.Get(); !shutdown {
			t.Error("a closed queue hands out an item")
		}
	})
}

// A queue is closed when it needs no more calls.
func TestQ10_Closed(t *testing.T) {
	o := newOwner(ring.Active)
	q, _ := newQueue(t, o)
	closed := func(when string, want bool) {
		t.Helper()
		if q.Closed() != want {
			t.Errorf("%s: closed %t", when, q.Closed())
		}
	}
	closed("new", false)
	o.set(3, ring.Pending)
	for item := range 4 {
		q.Add(item)
	}
	q.AddRateLimited(4)
	get(t, q)
	assignment, _ := FromContext(q.Context(t.Context(), 0))
	settled, _, err := assignment.Begin(func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	q.ShutDown()
	closed("items are queued and in flight", false)
	get(t, q)
	get(t, q)
	for q.Len() > 0 { // the timer of item 4 may have fired
		q.Done(get(t, q))
	}
	q.Done(1)
	q.AddRateLimited(2)
	q.Done(2)
	closed("an item is in flight", false)
	q.Done(0)
	closed("an effect is under way", false)
	settled()
	closed("at the end", true)
	q.Add(1)
	q.AddRateLimited(1)
	closed("an item was added", true)
	checkTable(t, &q.items)
}

// meters is a metrics provider whose metrics can be read.
type meters struct {
	provider
	depth, adds, latencies, durations     atomic.Int64
	latency, duration, unfinished, oldest atomic.Value  // float64: the last
	decrease                              time.Duration // how long it takes to decrease the depth
}

type (
	gauge     struct{ n *atomic.Int64 }
	slowGauge struct {
		gauge
		takes time.Duration
	}
	histogram struct {
		last *atomic.Value
		n    *atomic.Int64
	}
	setting struct{ *atomic.Value }
)

func (g gauge) Inc() { g.n.Add(1) }
func (g gauge) Dec() { g.n.Add(-1) }

func (g slowGauge) Dec() { time.Sleep(g.takes); g.gauge.Dec() }

func (h histogram) Observe(v float64) { h.last.Store(v); h.n.Add(1) }
func (s setting) Set(v float64)       { s.Store(v) }

func (m *meters) NewDepthMetric(string) workqueue.GaugeMetric {
	return slowGauge{gauge{&m.depth}, m.decrease}
}
func (m *meters) NewAddsMetric(string) workqueue.CounterMetric { return gauge{&m.adds} }
func (m *meters) NewLatencyMetric(string) workqueue.HistogramMetric {
	return histogram{&m.latency, &m.latencies}
}

func (m *meters) NewWorkDurationMetric(string) workqueue.HistogramMetric {
	return histogram{&m.duration, &m.durations}
}

func (m *meters) NewUnfinishedWorkSecondsMetric(string) workqueue.SettableGaugeMetric {
	return setting{&m.unfinished}
}

func (m *meters) NewLongestRunningProcessorSecondsMetric(string) workqueue.SettableGaugeMetric {
	return setting{&m.oldest}
}

// provide returns a configuration with the metrics, of the global provider or of its own.
func (m *meters) provide(t *testing.T, global bool) workqueue.TypedRateLimitingQueueConfig[int] {
	if !global {
		return workqueue.TypedRateLimitingQueueConfig[int]{Name: "foos", MetricsProvider: m}
	}
	globalProvider.MetricsProvider = m
	t.Cleanup(func() { globalProvider.MetricsProvider = provider{} })
	return workqueue.TypedRateLimitingQueueConfig[int]{Name: "foos"}
}

// withBothMeters runs a test with metrics of the configuration, and with global ones.
func withBothMeters(t *testing.T, f func(t *testing.T, global bool)) {
	for name, global := range map[string]bool{"own provider": false, "global provider": true} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { f(t, global) }) })
	}
}

// client-go's metrics count what this member holds, and the latency of an item includes the
// time for which it was parked or waited for the fence.
func TestQ9_MetricsCountWhatThisMemberHolds(t *testing.T) {
	withBothMeters(t, func(t *testing.T, global bool) {
		o := newOwner(ring.Active)
		o.set(1, ring.Pending)
		o.set(2, ring.NotOwned)
		m := new(meters)
		q := New(workqueue.DefaultTypedControllerRateLimiter[int](), Options[int]{
			Ownership: o, Point: pointOfInt, Config: m.provide(t, global),
		})
		defer q.ShutDown()
		for item := range 4 {
			q.Add(item)
			q.Add(item)
		}
		want := func(when string, depth, adds int64) {
			t.Helper()
			if m.depth.Load() != depth || m.adds.Load() != adds {
				t.Errorf("%s: depth %d, adds %d, want %d and %d", when, m.depth.Load(), m.adds.Load(), depth, adds)
			}
		}
		want("added", 3, 3) // one is parked, one is dropped
		time.Sleep(time.Second)
		q.Done(get(t, q))
		want("one done", 2, 3)
		o.fenced.Store(true)
		time.Sleep(time.Second)
		o.fenced.Store(false)
		o.set(1, ring.Active)
		o.set(3, ring.NotOwned)
		q.Readmit()
		want("one has left", 1, 3)
		if q.Len() != 1 {
			t.Errorf("%d queued: a foreign item was not dropped at once", q.Len())
		}
		time.Sleep(time.Second)
		if item := get(t, q); item != 1 || m.latency.Load() != 3.0 {
			t.Errorf("item %d has waited for %v s, want 3", item, m.latency.Load())
		}
		q.Add(1)
		want("added again while in flight", 1, 4)
		o.set(1, ring.NotOwned)
		q.Done(1)
		want("at the end", 0, 4)
	})
}
