// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// The failures of an item leave with its partition, wherever the item is: they must not delay
// it when the partition comes back, because other members have worked on it meanwhile.
func TestQ4_FailuresLeaveWithThePartition(t *testing.T) {
	for name, fail := range map[string]func(q *Queue[int], leave func()){
		"in backoff": func(q *Queue[int], leave func()) {
			q.AddRateLimited(1)
			q.Done(1)
			leave()
		},
		"in flight, and failed before": func(q *Queue[int], leave func()) {
			leave()
			if n := q.NumRequeues(1); n != 0 {
				t.Errorf("in flight: %d failures are remembered", n)
			}
			q.Done(1)
		},
		"in flight, in backoff": func(q *Queue[int], leave func()) {
			q.AddRateLimited(1)
			leave()
			q.Done(1)
		},
		"fails after the loss": func(q *Queue[int], leave func()) {
			leave()
			q.AddRateLimited(1)
			q.Done(1)
		},
		"fails after the loss and Done": func(q *Queue[int], leave func()) {
			leave()
			q.Done(1)
			q.AddRateLimited(1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOwner(ring.Active)
				c := new(countingRecorder)
				q := New(workqueue.NewTypedItemExponentialFailureRateLimiter[int](time.Minute, time.Hour), Options[int]{
					Ownership: o, Point: pointOfInt, Recorder: c,
				})
				defer q.ShutDown()
				for range 6 {
					q.AddRateLimited(1)
					time.Sleep(time.Hour)
					get(t, q)
					if q.NumRequeues(1) < 6 {
						q.Done(1)
					}
				}
				fail(q, func() {
					o.set(1, ring.NotOwned)
					q.Fence() // the member has lost everything; a drain would have waited for Done
					q.Readmit()
				})
				if n := q.NumRequeues(1); n != 0 {
					t.Errorf("after the partition has left, %d failures are remembered", n)
				}
				o.set(1, ring.Active)
				q.Readmit()
				q.Add(1)
				get(t, q)
				if n := q.NumRequeues(1); n != 0 {
					t.Errorf("after the return, the item starts with %d failures", n)
				}
				q.Done(1)
				time.Sleep(24 * time.Hour) // all timers fire
				for q.Len() > 0 {
					q.Done(get(t, q))
				}
			})
		})
	}
}

// What a handler adds with AddRateLimited to a limiter that remembers nothing is not
// remembered by the queue either: such workers never call Forget.
func TestQ4_NothingIsRememberedForALimiterWithoutMemory(t *testing.T) {
	q := New(limiter{func() {}}, Options[int]{Ownership: newOwner(ring.Active), Point: pointOfInt})
	defer q.ShutDown()
	for item := range 100 {
		q.AddRateLimited(item)
		q.Done(get(t, q))
	}
	if n := len(q.items.entries); n != 0 {
		t.Errorf("%d items are remembered", n)
	}
}

// A key function that panics does not stop the timers, and is an error: the item is handed
// out and counted (Q8).
func TestQ8_PanicOfPointIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(countingRecorder)
		q := New(workqueue.DefaultTypedControllerRateLimiter[int](), Options[int]{
			Ownership: newOwner(ring.Active), Recorder: c,
			Point: func(item int) (uint64, error) {
				if item == 1 {
					panic("no such item")
				}
				return pointOfInt(item)
			},
		})
		defer q.ShutDown()
		q.AddAfter(1, time.Second)
		q.AddAfter(2, 2*time.Second)
		q.AddRateLimited(1)
		q.Add(1)
		time.Sleep(time.Minute)
		if n := q.Len(); n != 2 {
			t.Fatalf("%d queued, want the bad item and the good one", n)
		}
		q.Done(get(t, q))
		q.Done(get(t, q))
		if n := c.malformed.Load(); n != 1 {
			t.Errorf("%d items counted, want 1", n)
		}
	})
}

// panickingLimiter panics for item 1.
type panickingLimiter struct {
	workqueue.TypedRateLimiter[int]
}

func (l panickingLimiter) When(item int) time.Duration {
	if item == 1 {
		panic("no such item")
	}
	return l.TypedRateLimiter.When(item)
}

func (l panickingLimiter) Forget(item int) { l.When(item) }

func (l panickingLimiter) NumRequeues(item int) int { return int(l.When(item)) }

// A rate limiter that panics stops neither the timers nor the loop, and loses no item.
func TestQ8_PanicOfTheLimiterLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(ring.Active)
		c := new(countingRecorder)
		q := New(panickingLimiter{workqueue.DefaultTypedControllerRateLimiter[int]()}, Options[int]{
			Ownership: o, Point: pointOfInt, Recorder: c,
		})
		defer q.ShutDown()
		q.AddRateLimited(1)
		time.Sleep(time.Minute)
		if item := get(t, q); item != 1 {
			t.Errorf("Get returned %d", item)
		}
		q.Forget(1)
		if n := q.NumRequeues(1); n != 0 {
			t.Errorf("%d requeues", n)
		}
		q.Done(1)
		if c.malformed.Load() == 0 {
			t.Error("the panics are not counted")
		}
		q.AddAfter(1, time.Second)
		q.AddAfter(2, 2*time.Second)
		o.set(1, ring.NotOwned) // the timer's goroutine drops the item
		time.Sleep(time.Minute)
		if item := get(t, q); item != 2 {
			t.Errorf("Get returned %d", item)
		}
		q.Done(2)
		o.set(1, ring.Pending)
		q.Add(1)
		o.set(1, ring.NotOwned)
		q.Readmit()
	})
}

func TestCheck_WorkThatIsNotInFlight(t *testing.T) {
	o := newOwner(ring.Active)
	q, _ := newQueue(t, o)
	for _, item := range []int{1, -1} { // -1 has no point
		if err := Check(q.Context(t.Context(), item)); err != ErrDone {
			t.Errorf("item %d, never added: %v", item, err)
		}
		q.Add(item)
		get(t, q)
		ctx := q.Context(t.Context(), item)
		if err := Check(ctx); err != nil {
			t.Errorf("item %d, in flight: %v", item, err)
		}
		o.fenced.Store(true) // Fence was not called yet
		if err := Check(ctx); err != ErrFenced {
			t.Errorf("item %d, fenced: %v", item, err)
		}
		o.fenced.Store(false)
		q.Done(item)
		for name, ctx := range map[string]context.Context{"before": ctx, "after": q.Context(t.Context(), item)} {
			if err := Check(ctx); err != ErrDone {
				t.Errorf("item %d, done, context from %s Done: %v", item, name, err)
			}
		}
		if q.Len() != 1 {
			t.Errorf("item %d: the refused work is not queued again", item)
		}
		q.Done(get(t, q))
	}
}

func TestNew_ChecksItsOptions(t *testing.T) {
	limiter := workqueue.DefaultTypedControllerRateLimiter[int]()
	o := newOwner(ring.Active)
	for name, create := range map[string]func(){
		"no limiter":   func() { New(nil, Options[int]{Ownership: o, Point: pointOfInt}) },
		"no Ownership": func() { New(limiter, Options[int]{Point: pointOfInt}) },
		"no Point":     func() { New(limiter, Options[int]{Ownership: o}) },
	} {
		func() {
			defer func() {
				if r := recover(); r == nil {
					t.Errorf("%s: no panic", name)
				} else if _, ok := r.(string); !ok {
					t.Errorf("%s: panic %v", name, r)
				}
			}()
			create()
		}()
	}
}

// An item that cannot be the key of a map makes Add panic, as in client-go. A server or an
// informer may recover from the panic. The queue must work afterwards: the loop of the
// member and its fence use it.
func TestQueue_UnhashableItemLeavesTheQueueUsable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(workqueue.DefaultTypedControllerRateLimiter[any](), Options[any]{
			Ownership: newOwner(ring.Active), Point: func(any) (uint64, error) { return 0, nil },
		})
		for name, call := range map[string]func(item any){
			"Add": q.Add, "Done": q.Done, "AddRateLimited": q.AddRateLimited, "Forget": q.Forget,
			"Context": func(item any) { q.Context(t.Context(), item) },
		} {
			func() {
				defer func() { _ = recover() }()
				call([]int{1})
				t.Errorf("%s does not panic", name)
			}()
			if !q.mu.TryLock() {
				t.Errorf("%s: the queue is locked forever", name)
			}
			q.mu.Unlock()
		}
		q.ShutDown()
	})
}
