// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// A worker does what ErrDraining and ErrFenced require: it stops and calls Done. Each test
// interrupts the work on item 1 in a different way. Then the state of its partition, changed
// before Done or after, determines what happens to the item.
func TestQ11_InterruptedWorkIsDoneAgain(t *testing.T) {
	drain := func(q *Queue[int], o *owner) {
		o.set(1, ring.Pending)
		endWork(q, 1)
	}
	fence := func(q *Queue[int], o *owner) {
		o.fenced.Store(true)
		q.Fence()
	}
	unfence := func(q *Queue[int], o *owner) {
		o.fenced.Store(false)
		q.Readmit()
	}
	to := func(s ring.State) func(*Queue[int], *owner) {
		return func(q *Queue[int], o *owner) {
			o.set(1, s)
			q.Readmit()
		}
	}
	nothing := func(*Queue[int], *owner) {}
	type outcome struct{ Queued, Parked, Dropped, Requeues int }
	for _, test := range []struct {
		name                     string
		interrupt, before, after func(*Queue[int], *owner)
		want                     outcome
	}{
		{"no interruption", nothing, nothing, nothing, outcome{Requeues: 2}},
		{"drain cancelled after Done", drain, nothing, to(ring.Active), outcome{Queued: 1, Requeues: 2}},
		{"drain cancelled before Done", drain, to(ring.Active), nothing, outcome{Queued: 1, Requeues: 2}},
		{"drain cancelled before its Cancel", func(q *Queue[int], o *owner) {
			o.set(1, ring.Pending)
			q.Drain(inPartition(1))
		}, to(ring.Active), nothing, outcome{Queued: 1, Requeues: 2}},
		{"drain has not ended", drain, nothing, nothing, outcome{Parked: 1, Requeues: 2}},
		{"partition released after Done", drain, nothing, to(ring.NotOwned), outcome{Dropped: 1}},
		{"partition released before Done", drain, to(ring.NotOwned), nothing, outcome{Dropped: 1}},
		{"partition released and activated again", drain, func(q *Queue[int], o *owner) {
			to(ring.NotOwned)(q, o)
			to(ring.Pending)(q, o)
		}, to(ring.Active), outcome{Queued: 1, Requeues: 2}},
		{"fenced", fence, nothing, nothing, outcome{Queued: 1, Requeues: 2}}, // Get parks it
		{"fence lifted before Done", fence, unfence, nothing, outcome{Queued: 1, Requeues: 2}},
		{"fence lifted after Done", fence, nothing, unfence, outcome{Queued: 1, Requeues: 2}},
		{"everything lost at the fence", fence, to(ring.NotOwned), unfence, outcome{Dropped: 1}},
		{"everything lost, then joined again", fence, func(q *Queue[int], o *owner) {
			to(ring.NotOwned)(q, o)
			unfence(q, o)
			to(ring.Active)(q, o)
		}, nothing, outcome{Queued: 1, Requeues: 2}},
		{"refused by the clock, which no other code has noticed", func(q *Queue[int], o *owner) {
			ctx := q.Context(context.Background(), 1)
			o.fenced.Store(true)
			if err := Check(ctx); err != ErrFenced {
				t.Errorf("Check returned %v, want %v", err, ErrFenced)
			}
			o.fenced.Store(false)
		}, nothing, nothing, outcome{Queued: 1, Requeues: 2}},
	} {
		for _, asked := range []bool{true, false} {
			t.Run(test.name, func(t *testing.T) {
				o := newOwner(ring.Active)
				q, counted := newQueue(t, o)
				q.limiter.When(1)
				q.limiter.When(1)
				q.Add(1)
				get(t, q)
				if asked {
					q.Context(t.Context(), 1)
				}
				test.interrupt(q, o)
				test.before(q, o)
				if q.Len() != 0 || q.Parked() != 0 {
					t.Errorf("before Done: %d queued, %d parked", q.Len(), q.Parked())
				}
				q.Done(1)
				test.after(q, o)
				got := outcome{q.Len(), q.Parked(), int(counted.dropped.Load()), q.NumRequeues(1)}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// If a worker adds the item again, as workers of other queues do, it gets the item only once.
func TestQ11_OnceIfTheWorkerAddsTheItemToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(ring.Active)
		q, _ := newQueue(t, o)
		q.Add(1)
		get(t, q)
		o.set(1, ring.Pending)
		endWork(q, 1)
		q.Add(1)
		q.AddRateLimited(1)
		q.Done(1)
		time.Sleep(time.Minute)
		if q.Len() != 0 || q.Parked() != 1 {
			t.Errorf("%d queued, %d parked, want 0 and 1", q.Len(), q.Parked())
		}
		o.set(1, ring.Active)
		q.Readmit()
		get(t, q)
		q.Done(1)
		if q.Len() != 0 || q.Parked() != 0 {
			t.Errorf("%d queued, %d parked after the item was handed out", q.Len(), q.Parked())
		}
	})
}

// Whether the worker retries a dropped item before or after Done, the rate limiter has
// forgotten the item once its timer has fired.
func TestQ11_LimiterForgetsDroppedItems(t *testing.T) {
	for name, retry := range map[string]func(q *Queue[int]){
		"before Done": func(q *Queue[int]) { q.AddRateLimited(1); q.Done(1) },
		"after Done":  func(q *Queue[int]) { q.Done(1); q.AddRateLimited(1) },
		"both":        func(q *Queue[int]) { q.AddRateLimited(1); q.Done(1); q.AddRateLimited(1) },
		"never":       func(q *Queue[int]) { q.Done(1) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOwner(ring.Active)
				q, _ := newQueue(t, o)
				for range 3 {
					q.AddRateLimited(1)
					time.Sleep(time.Minute)
					get(t, q)
					if n := len(q.InFlight()); n != 1 {
						t.Fatalf("%d in flight", n)
					}
					if q.NumRequeues(1) < 3 {
						q.Done(1)
					}
				}
				o.set(1, ring.Pending)
				endWork(q, 1)
				o.set(1, ring.NotOwned)
				retry(q)
				q.Readmit()
				time.Sleep(time.Minute)
				if n := q.NumRequeues(1); n != 0 || q.Len() != 0 || q.Parked() != 0 {
					t.Errorf("the rate limiter remembers %d failures; %d queued, %d parked", n, q.Len(), q.Parked())
				}
			})
		})
	}
}

func TestQ10_LimiterForgetsItemsDroppedByShutDown(t *testing.T) {
	o := newOwner(ring.Pending)
	q, _ := newQueue(t, o)
	for item := range 2 {
		q.limiter.When(item)
	}
	q.Add(0)
	q.ShutDown()
	q.Add(1)
	if q.NumRequeues(0) != 0 || q.NumRequeues(1) != 0 {
		t.Errorf("%d and %d failures are remembered", q.NumRequeues(0), q.NumRequeues(1))
	}
}

// Once the queue is shutting down, Done adds nothing again, and a drain ends.
func TestQ11_NothingIsAddedAfterShutDown(t *testing.T) {
	interrupts := map[string]func(*Queue[int], *owner){
		"drain": func(q *Queue[int], o *owner) {
			o.set(1, ring.Pending)
			endWork(q, 1)
		},
		"fence": func(q *Queue[int], _ *owner) { q.Fence() },
	}
	for name, interrupt := range interrupts {
		for _, early := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				o := newOwner(ring.Active)
				q, _ := newQueue(t, o)
				q.Add(1)
				get(t, q)
				if early {
					interrupt(q, o)
				}
				drained := false
				go func() {
					q.ShutDownWithDrain()
					drained = true
				}()
				synctest.Wait()
				if drained {
					t.Errorf("%s: the drain did not wait for Done", name)
				}
				if !early {
					interrupt(q, o)
				}
				q.Done(1)
				synctest.Wait()
				if !drained {
					t.Errorf("%s: the drain has not ended", name)
				}
				o.setAll(ring.Active)
				q.Readmit()
				if item, shutdown := q.Get(); !shutdown {
					t.Errorf("%s: Get returned %d", name, item)
				}
			})
		}
	}
}

// An effect that is under way when Done is called delays the drain, but not the next hand-out
// on this member. OnDone is called when the effect ends.
func TestQ2_EffectsOutliveDone(t *testing.T) {
	for _, drainFirst := range []bool{true, false} {
		o := newOwner(ring.Active)
		q, _ := newQueue(t, o)
		calls := 0
		q.OnDone(func() { calls++ })
		drain := func() {
			o.set(1, ring.Pending)
			endWork(q, 1)
		}
		q.Add(1)
		get(t, q)
		assignment, _ := FromContext(q.Context(t.Context(), 1))
		end, _, err := assignment.Begin(func(error) {})
		endToo, _, errToo := assignment.Begin(func(error) {})
		if err != nil || errToo != nil {
			t.Fatal(err, errToo)
		}
		if drainFirst {
			drain()
			if _, _, err := assignment.Begin(nil); err != ErrDraining {
				t.Errorf("an effect begins with error %v while draining", err)
			}
		}
		q.Done(1)
		if !drainFirst {
			if _, _, err := assignment.Begin(nil); err != ErrDone {
				t.Errorf("an effect begins with error %v after Done", err)
			}
			drain()
		}
		if list := q.InFlight(); len(list) != 1 || list[0].Item != 1 {
			t.Errorf("in flight: %v", list)
		}
		calls = 0
		end()
		end()
		if n := len(q.InFlight()); n != 1 || calls != 0 {
			t.Errorf("%d in flight, OnDone called %d times, while a second effect is under way", n, calls)
		}
		endToo()
		if n := len(q.InFlight()); n != 0 || calls != 1 {
			t.Errorf("%d in flight, OnDone called %d times, at the end", n, calls)
		}
	}
}

// The next hand-out of an item has its own effects.
func TestQ2_EffectsBelongToOneHandOut(t *testing.T) {
	q, _ := newQueue(t, newOwner(ring.Active))
	begin := func() func() {
		q.Add(1)
		get(t, q)
		assignment, _ := FromContext(q.Context(t.Context(), 1))
		end, _, err := assignment.Begin(func(error) {})
		if err != nil {
			t.Fatal(err)
		}
		return end
	}
	first := begin()
	q.Done(1)
	second := begin()
	if n := len(q.InFlight()); n != 2 {
		t.Errorf("%d in flight, want 2", n)
	}
	first()
	if n := len(q.InFlight()); n != 1 {
		t.Errorf("%d in flight, want 1", n)
	}
	q.Done(1)
	if n := len(q.InFlight()); n != 1 {
		t.Errorf("%d in flight after Done, want 1", n)
	}
	second()
	if n := len(q.InFlight()); n != 0 {
		t.Errorf("%d in flight at the end", n)
	}
}

// The state of a partition changes before Drain marks the work on it. Work also counts as
// interrupted if its worker checks the state itself in between and stops.
func TestQ11_WorkThatEndsBetweenStateChangeAndDrain(t *testing.T) {
	o := newOwner(ring.Active)
	q, _ := newQueue(t, o)
	q.Add(1)
	get(t, q)
	o.set(1, ring.Pending)
	q.Done(1) // the worker has seen that
	endWork(q, 1)
	o.set(1, ring.Active) // the drain is cancelled
	q.Readmit()
	if q.Len() != 1 {
		t.Fatal("the item is lost")
	}
}
