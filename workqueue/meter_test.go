// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// The metrics measure how long items wait, and how long the work on them takes or has taken so
// far. The time of the hand-out is that of the fence: what the metrics take is not added.
func TestQ9_MetricsMeasureTime(t *testing.T) {
	withBothMeters(t, func(t *testing.T, global bool) {
		m := &meters{decrease: time.Second / 64}
		q := New(workqueue.DefaultTypedControllerRateLimiter[int](), Options[int]{
			Ownership: clockedOwner{newOwner(ring.Active), time.Now().Add(time.Hour)}, Point: pointOfInt,
			Config: m.provide(t, global),
		})
		defer q.ShutDown()
		want := func(when string, latency, duration, unfinished, oldest any) {
			t.Helper()
			got := [...]any{m.latency.Load(), m.duration.Load(), m.unfinished.Load(), m.oldest.Load()}
			if got != [...]any{latency, duration, unfinished, oldest} {
				t.Errorf("%s: latency, duration, unfinished, oldest: %v", when, got)
			}
		}
		start := time.Now()
		at := func(d time.Duration) { time.Sleep(time.Until(start.Add(d))) }
		at(time.Second / 8)
		q.Add(1)
		q.Add(2)
		at(time.Second / 4)
		get(t, q)
		want("1 is handed out", 0.125, nil, nil, nil)
		at(3 * time.Second / 4) // a measurement of the work in flight, with no call before it
		want("1 is in flight", 0.125, nil, 0.25, 0.25)
		get(t, q)
		want("2 is handed out", 0.625, nil, 0.25, 0.25)
		at(9 * time.Second / 4)
		want("both are in flight", 0.625, nil, 1.75+1.25, 1.75)
		q.Done(1)
		want("1 is done", 0.625, 2.0, 3.0, 1.75)
		at(11 * time.Second / 4)
		want("2 is in flight", 0.625, 2.0, 1.75, 1.75)
		q.Add(2)
		at(3*time.Second + time.Second/8)
		q.Done(2)
		want("2 is done", 0.625, 2.375, 2.25, 2.25)
		at(15 * time.Second / 4)
		want("2 waits again", 0.625, 2.375, 0.0, 0.0)
		get(t, q)
		want("2 is handed out again", 1.0, 2.375, 0.0, 0.0)
		q.Done(2)
		if a, b := m.latencies.Load(), m.durations.Load(); a != 3 || b != 3 {
			t.Errorf("%d latencies and %d durations, want 3", a, b)
		}
	})
}

// With a clock in the configuration, the metrics use no other.
func TestQ9_MetricsUseTheConfiguredClock(t *testing.T) {
	withBothMeters(t, func(t *testing.T, global bool) {
		m := new(meters)
		config := m.provide(t, global)
		timers, ok := realClock(config.Clock)
		if !ok {
			t.Fatal("client-go has no real clock where this version expects it: see newShadow")
		}
		now := shadowClock{epoch: time.Unix(1, 0)}
		config.Clock = withTimers(&now, timers)
		clockShows := func(d time.Duration) { now.during.Store(int64(d)) }
		clockShows(time.Second)
		q := New(workqueue.DefaultTypedControllerRateLimiter[int](), Options[int]{
			Ownership: clockedOwner{newOwner(ring.Active), time.Now().Add(time.Hour)}, Point: pointOfInt, Config: config,
		})
		defer q.ShutDown()
		q.Add(1)
		time.Sleep(time.Millisecond)
		clockShows(3 * time.Second)
		get(t, q)
		if m.latency.Load() != 2.0 {
			t.Errorf("latency %v, want 2", m.latency.Load())
		}
		clockShows(7 * time.Second)
		time.Sleep(time.Second)
		if m.unfinished.Load() != 4.0 {
			t.Errorf("unfinished %v, want 4", m.unfinished.Load())
		}
		clockShows(8 * time.Second)
		q.Done(1)
		if m.duration.Load() != 5.0 {
			t.Errorf("duration %v, want 5", m.duration.Load())
		}
	})
}

// A queue with a name in a program that has no provider of metrics does not do anything for them. With a global provider
// it does.
func TestQ9_NoMetricsWithoutAProvider(t *testing.T) {
	cycled := func() bool {
		q := New(workqueue.DefaultTypedControllerRateLimiter[int](), Options[int]{
			Ownership: newOwner(ring.Active), Point: pointOfInt,
			Config: workqueue.TypedRateLimitingQueueConfig[int]{Name: "foos"},
		})
		defer q.ShutDown()
		for range 3 {
			q.Add(1)
			q.Done(get(t, q))
		}
		_, none := q.meter.(noMeter[int])
		return none
	}
	if os.Getenv(withoutProvider) != "" {
		if !cycled() {
			t.Error("still counts")
		}
		return
	}
	if cycled() {
		t.Error("does not count any more, although there is a global provider")
	}
	again := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), withoutProvider+"=yes")
	if output, err := again.CombinedOutput(); err != nil {
		t.Errorf("%v in a process without a provider:\n%s", err, output)
	}
}
