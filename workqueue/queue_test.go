// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

func TestQ1_AddIsChecked(t *testing.T) {
	for name, add := range map[string]func(*Queue[int], int){
		"Add":            (*Queue[int]).Add,
		"AddAfter":       func(q *Queue[int], item int) { q.AddAfter(item, time.Second) },
		"AddAfter now":   func(q *Queue[int], item int) { q.AddAfter(item, 0) },
		"AddRateLimited": (*Queue[int]).AddRateLimited,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOwner(ring.NotOwned)
				o.set(1, ring.Pending)
				o.set(2, ring.Active)
				q, counted := newQueue(t, o)
				for item := range 3 {
					add(q, item)
				}
				time.Sleep(time.Minute)
				if got := get(t, q); got != 2 {
					t.Errorf("Get returned %d instead of the item in the active partition", got)
				}
				if q.Len() != 0 || q.Parked() != 1 {
					t.Errorf("%d queued, %d parked, want 0 and 1", q.Len(), q.Parked())
				}
				if diff := cmp.Diff(counts{Passed: 1, Parked: 1, Dropped: 1}, counted.counts()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// A timer's item is checked when the timer fires, not when it was set.
func TestQ1_TimersAreCheckedWhenTheyFire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(ring.Active)
		o.set(3, ring.NotOwned)
		q, counted := newQueue(t, o)
		for item := range 4 {
			q.AddAfter(item, time.Minute)
		}
		time.Sleep(time.Second)
		o.set(1, ring.Pending)
		o.set(2, ring.NotOwned)
		o.set(3, ring.Active)
		q.Readmit()
		time.Sleep(time.Hour)
		got := []int{get(t, q), get(t, q)}
		slices.Sort(got)
		if diff := cmp.Diff([]int{0, 3}, got); diff != "" || q.Len() != 0 || q.Parked() != 1 {
			t.Errorf("%d queued, %d parked, want 0 and 1; %s", q.Len(), q.Parked(), diff)
		}
		if n := counted.dropped.Load(); n != 1 {
			t.Errorf("%d dropped, want 1", n)
		}
	})
}

// Items wait, so Get checks again.
func TestQ1_GetIsChecked(t *testing.T) {
	o := newOwner(ring.Active)
	q, counted := newQueue(t, o)
	for item := range 3 {
		q.Add(item)
	}
	o.set(0, ring.NotOwned)
	o.set(1, ring.Pending)
	if got := get(t, q); got != 2 {
		t.Errorf("Get returned %d instead of the item in the active partition", got)
	}
	if diff := cmp.Diff(counts{Passed: 1, Parked: 1, Dropped: 1}, counted.counts()); diff != "" {
		t.Error(diff)
	}
}

// An item that was added again during its work is checked again by Get.
func TestQ1_ReAddedItemIsChecked(t *testing.T) {
	o := newOwner(ring.Active)
	q, _ := newQueue(t, o)
	q.Add(1)
	get(t, q)
	q.Add(1)
	o.set(1, ring.NotOwned)
	q.Done(1)
	rejectAll(t, q, 2)
}

func TestQ3_ParkedUntilActive(t *testing.T) {
	o := newOwner(ring.Pending)
	q, counted := newQueue(t, o)
	for item := range 5 {
		q.Add(item)
		q.Add(item)
	}
	if n := q.Parked(); n != 5 {
		t.Errorf("%d parked, want 5", n)
	}
	q.Readmit() // nothing has changed
	if q.Parked() != 5 || q.Len() != 0 {
		t.Errorf("%d parked, %d queued, want 5 and 0", q.Parked(), q.Len())
	}
	o.set(2, ring.Active)
	q.Readmit()
	if q.Parked() != 4 || q.Len() != 1 || get(t, q) != 2 {
		t.Errorf("%d parked, %d queued, want 4 and 1", q.Parked(), q.Len())
	}
	o.setAll(ring.Active)
	q.Readmit()
	for _, want := range []int{0, 1, 3, 4} {
		if got := get(t, q); got != want {
			t.Errorf("Get returned %d, want %d: the order in which they were added", got, want)
		}
	}
	if diff := cmp.Diff(counts{Passed: 5, Parked: 5, Readmitted: 5}, counted.counts()); diff != "" {
		t.Error(diff)
	}
}

// One Add leads to one hand-out: a parked item that was handed out meanwhile is not handed out
// again.
func TestQ3_HandOutServesTheParkedItem(t *testing.T) {
	o := newOwner(ring.Pending)
	q, _ := newQueue(t, o)
	q.Add(1)
	o.setAll(ring.Active)
	q.Add(1) // before Readmit
	get(t, q)
	q.Readmit()
	q.Done(1)
	if q.Len() != 0 || q.Parked() != 0 {
		t.Errorf("%d queued and %d parked after the hand-out", q.Len(), q.Parked())
	}
}

// The loop activates the partition and readmits while Add learns that it is pending.
func TestQ3_AddDuringReadmit(t *testing.T) {
	var q *Queue[int]
	state := ring.Pending
	readmitted := make(chan bool)
	q, _ = newQueue(t, funcOwner{
		state: func(uint64) ring.State {
			if state == ring.Active {
				return ring.Active
			}
			state = ring.Active
			go func() {
				q.Readmit()
				close(readmitted)
			}()
			time.Sleep(10 * time.Millisecond) // Readmit comes before Add's decision, if it can
			return ring.Pending
		},
		fenced: func() bool { return false },
	})
	q.Add(1)
	<-readmitted
	if q.Parked() != 0 || q.Len() != 1 {
		t.Errorf("%d parked and %d queued: the item is stranded", q.Parked(), q.Len())
	}
}

func TestQ4_NotOwnedIsForgotten(t *testing.T) {
	o := newOwner(ring.Active)
	o.set(2, ring.Pending)
	q, counted := newQueue(t, o)
	fail := func(item int) {
		q.limiter.When(item)
		q.limiter.When(item)
	}
	check := func(item, dropped int) {
		t.Helper()
		if n := q.NumRequeues(item); n != 0 {
			t.Errorf("item %d: the rate limiter remembers %d failures", item, n)
		}
		if n := int(counted.dropped.Load()); n != dropped {
			t.Errorf("%d dropped, want %d", n, dropped)
		}
	}
	fail(0)
	fail(1)
	fail(2)
	fail(3)
	q.Add(1) // queued
	q.Add(2) // parked
	if q.NumRequeues(1) != 2 || q.NumRequeues(2) != 2 {
		t.Error("items that were not dropped are forgotten")
	}
	o.setAll(ring.NotOwned)
	q.Add(0)
	check(0, 1)
	o.set(3, ring.Active)
	rejectAll(t, q, 3)
	check(1, 2)
	if q.NumRequeues(3) != 2 {
		t.Error("after a hand-out, the item's failures are forgotten")
	}
	q.Readmit()
	check(2, 3)
	if q.Parked() != 0 {
		t.Errorf("%d parked", q.Parked())
	}
}

func TestQ5_NothingWhileFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(ring.Active)
		q, counted := newQueue(t, o)
		var mu sync.Mutex
		var got []int
		var workers sync.WaitGroup
		workers.Go(func() {
			for {
				item, shutdown := q.Get()
				if shutdown {
					return
				}
				mu.Lock()
				got = append(got, item)
				many := len(got) > 100 // the work of a fenced member counts as interrupted, and is done again
				mu.Unlock()
				q.Done(item)
				if many {
					return
				}
			}
		})
		o.fenced.Store(true)
		q.Fence()
		for item := range 10 {
			q.Add(item)
		}
		synctest.Wait()
		q.Add(3) // an item that is already queued
		q.Readmit()
		synctest.Wait()
		if len(got) != 0 || q.Len() != 10 {
			t.Errorf("fenced: %v handed out, %d queued, want none and 10", got, q.Len())
		}
		o.set(4, ring.NotOwned)
		o.set(5, ring.Pending)
		q.Readmit()
		o.fenced.Store(false)
		q.Readmit()
		synctest.Wait()
		if diff := cmp.Diff([]int{0, 1, 2, 3, 6, 7, 8, 9}, got); diff != "" {
			t.Errorf("after the fence: %s", diff)
		}
		if diff := cmp.Diff(counts{Passed: 8, Parked: 1, Dropped: 1, Refused: 1}, counted.counts()); diff != "" {
			t.Error(diff)
		}
		q.ShutDown()
		workers.Wait()
	})
}

// A process that was paused past its fence must not hand out the items that it had queued,
// although Fence was not called.
func TestQ5_PausedProcessWakesUpFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, o := range []func(clockedOwner) Ownership{
			func(o clockedOwner) Ownership { return o },
			func(o clockedOwner) Ownership { return plain{o} },
		} {
			deadline := time.Now().Add(9 * time.Second)
			q, counted := newQueue(t, o(clockedOwner{newOwner(ring.Active), deadline}))
			q.Add(1)
			get(t, q)
			q.Done(1)
			q.Add(1)
			time.Sleep(9 * time.Second)
			q.ShutDown() // otherwise Get would wait for an item that it may hand out
			if item, shutdown := q.Get(); !shutdown {
				t.Errorf("Get returned %d after the deadline", item)
			}
			if n := counted.refused.Load(); n != 1 {
				t.Errorf("%d refused, want 1", n)
			}
		}
	})
}

func TestQ8_MalformedItemsAreHandedOut(t *testing.T) {
	o := newOwner(ring.NotOwned)
	q, counted := newQueue(t, o)
	q.Add(-1)
	if got := get(t, q); got != -1 {
		t.Fatalf("Get returned %d", got)
	}
	ctx := q.Context(t.Context(), -1)
	q.Drain(func(uint64) bool { return true })
	q.Cancel(func(uint64) bool { return true })
	if ctx.Err() != nil {
		t.Error("a drain cancelled an item that belongs to no partition")
	}
	if n := len(q.InFlight()); n != 0 {
		t.Errorf("%d in flight, want none: it would hold up the drain of a partition", n)
	}
	o.fenced.Store(true)
	q.Fence()
	if got := context.Cause(ctx); got != ErrFenced {
		t.Errorf("cause %v, want %v", got, ErrFenced)
	}
	q.Add(-1)
	q.Done(-1)
	q.ShutDownWithDrain() // otherwise Get would wait
	if item, shutdown := q.Get(); !shutdown {
		t.Errorf("Get returned %d while fenced", item)
	}
	if diff := cmp.Diff(counts{Passed: 1, Dropped: 1, Refused: 1, Malformed: 1}, counted.counts()); diff != "" {
		t.Error(diff)
	}
}

func TestQ8_MalformedItemsWaitForTheFence(t *testing.T) {
	o := newOwner(ring.NotOwned)
	o.fenced.Store(true)
	q, counted := newQueue(t, o)
	item := make(chan int)
	go func() {
		got, _ := q.Get()
		item <- got
	}()
	q.Add(-1)
	for counted.refused.Load() == 0 {
		select {
		case got := <-item:
			t.Fatalf("Get returned %d while fenced", got)
		default:
			runtime.Gosched()
		}
	}
	o.fenced.Store(false)
	q.Readmit()
	if got := <-item; got != -1 {
		t.Errorf("Get returned %d", got)
	}
}

// TestRateLimits makes the calls of client-go's TestRateLimitingQueue, which reads an unexported
// channel, and checks what reaches the delaying layer.
func TestRateLimits(t *testing.T) {
	var delays []time.Duration
	delaying := &recordedDelays{workqueue.NewTypedDelayingQueue[int](), &delays}
	q := New(workqueue.NewTypedItemExponentialFailureRateLimiter[int](time.Millisecond, time.Second), Options[int]{
		Ownership: newOwner(ring.Active), Point: pointOfInt,
		Config: workqueue.TypedRateLimitingQueueConfig[int]{DelayingQueue: delaying},
	})
	defer q.ShutDown()
	q.AddRateLimited(1)
	q.AddRateLimited(1)
	if n := q.NumRequeues(1); n != 2 {
		t.Errorf("%d requeues, want 2", n)
	}
	q.AddRateLimited(2)
	q.AddRateLimited(2)
	q.Forget(1)
	if n := q.NumRequeues(1); n != 0 {
		t.Errorf("%d requeues, want 0", n)
	}
	q.AddRateLimited(1)
	const ms = time.Millisecond
	if diff := cmp.Diff([]time.Duration{1 * ms, 2 * ms, 1 * ms, 2 * ms, 1 * ms}, delays); diff != "" {
		t.Error(diff)
	}
}

type recordedDelays struct {
	workqueue.TypedDelayingInterface[int]
	delays *[]time.Duration
}

func (r *recordedDelays) AddAfter(_ int, d time.Duration) { *r.delays = append(*r.delays, d) }
