// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// workPastFew is more items in flight than most queues have workers.
const workPastFew = 12

// The loop changes the state and lists the work in flight just after Get has learned that it
// may work on the item, and before it can enter the item into the table.
func TestQ2_InFlightDuringGet(t *testing.T) {
	for _, asking := range []string{"State", "Fenced"} {
		t.Run(asking, func(t *testing.T) {
			var o owner
			o.setAll(ring.Active)
			armed := ""
			asked, answer := make(chan bool), make(chan bool)
			pause := func(question string) {
				if armed == question {
					armed = ""
					asked <- true
					<-answer
				}
			}
			q, _ := newQueue(t, funcOwner{
				state: func(point uint64) ring.State {
					defer pause("State")
					return o.State(point)
				},
				fenced: func() bool {
					defer pause("Fenced")
					return o.Fenced()
				},
			})
			q.Add(1)
			armed = asking
			got := make(chan int, 1)
			go func() {
				item, _ := q.Get()
				got <- item
			}()
			<-asked
			o.set(1, ring.Pending)
			listed := make(chan []Work)
			go func() {
				endWork(q, 1)
				listed <- q.InFlight()
			}()
			select {
			case list := <-listed:
				t.Errorf("InFlight returned %v before Get had decided", list)
				answer <- true
				return
			case <-time.After(20 * time.Millisecond): // InFlight waits for Get
			}
			answer <- true
			if list := <-listed; len(list) != 1 || list[0].Item != 1 {
				t.Errorf("in flight: %v, while a worker has item %d", list, <-got)
			}
			if cause := context.Cause(q.Context(t.Context(), <-got)); cause != ErrDraining {
				t.Errorf("cause %v, want %v", cause, ErrDraining)
			}
		})
	}
}

func TestQ2_InFlightUntilDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, _ := newQueue(t, newOwner(ring.Active))
		var want []Work
		for item := range workPastFew {
			q.Add(item)
			get(t, q)
			point, _ := pointOfInt(item)
			want = append(want, Work{Item: item, Point: point, Since: time.Now()})
			time.Sleep(time.Second)
		}
		for len(want) > 0 {
			if diff := cmp.Diff(want, q.InFlight()); diff != "" {
				t.Fatal(diff)
			}
			i := len(want) / 2
			q.Done(want[i].Item.(int))
			want = slices.Delete(want, i, i+1)
		}
		if list := q.InFlight(); len(list) != 0 {
			t.Errorf("in flight: %v", list)
		}
	})
}

func TestQ6_Causes(t *testing.T) {
	byCaller := errors.New("the caller gave up")
	for _, test := range []struct {
		name string
		end  func(*Queue[int], context.CancelCauseFunc)
		want error
	}{
		{"nothing", func(*Queue[int], context.CancelCauseFunc) {}, nil},
		{"drain of another partition", func(q *Queue[int], _ context.CancelCauseFunc) { endWork(q, 2) }, nil},
		{"drain", func(q *Queue[int], _ context.CancelCauseFunc) { endWork(q, 1) }, ErrDraining},
		{"fence", func(q *Queue[int], _ context.CancelCauseFunc) { q.Fence() }, ErrFenced},
		{"done", func(q *Queue[int], _ context.CancelCauseFunc) { q.Done(1) }, ErrDone},
		{"caller", func(_ *Queue[int], cancel context.CancelCauseFunc) { cancel(byCaller) }, nil},
		{"caller, then drain", func(q *Queue[int], cancel context.CancelCauseFunc) {
			cancel(byCaller)
			endWork(q, 1)
		}, ErrDraining},
		{"drain, then fence", func(q *Queue[int], _ context.CancelCauseFunc) {
			endWork(q, 1)
			q.Fence()
		}, ErrDraining},
		{"fence, then drain", func(q *Queue[int], _ context.CancelCauseFunc) {
			q.Fence()
			endWork(q, 1)
		}, ErrFenced},
	} {
		t.Run(test.name, func(t *testing.T) {
			q, _ := newQueue(t, newOwner(ring.Active))
			q.Add(1)
			get(t, q)
			type key struct{}
			parent, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, "value"))
			defer cancel(nil)
			before, second := q.Context(parent, 1), q.Context(parent, 1)
			test.end(q, cancel)
			after := q.Context(parent, 1)
			for name, ctx := range map[string]context.Context{"before": before, "second": second, "after": after} {
				if got := context.Cause(ctx); got != test.want {
					t.Errorf("context %s: cause %v, want %v", name, got, test.want)
				}
				if ctx.Value(key{}) != "value" {
					t.Errorf("context %s does not have the values of its parent", name)
				}
			}
		})
	}
}

// The deadline of the parent still applies, and its timer is freed when the work ends for
// another reason.
func TestQ6_DeadlineOfTheParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, _ := newQueue(t, newOwner(ring.Active))
		parent, cancel := context.WithTimeout(t.Context(), time.Minute)
		q.Add(1)
		get(t, q)
		ctx := q.Context(parent, 1)
		cancel()
		time.Sleep(time.Minute - 1)
		if ctx.Err() != nil {
			t.Errorf("%v before the deadline", ctx.Err())
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if got := context.Cause(ctx); got != context.DeadlineExceeded {
			t.Errorf("cause %v at the deadline", got)
		}
		if got := context.Cause(q.Context(parent, 1)); got != context.DeadlineExceeded {
			t.Errorf("cause %v after the deadline", got)
		}
		q.Done(1)
		if n := q.Len(); n != 0 {
			t.Errorf("%d queued, want none: retrying after a deadline is up to the worker", n)
		}
		q.Add(1)
		get(t, q)
		parent, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ctx = q.Context(parent, 1)
		endWork(q, 1)
		if got := context.Cause(ctx); got != ErrDraining {
			t.Errorf("cause %v, want %v", got, ErrDraining)
		}
		q.Done(1)
	})
}

// FenceIf checks the fence when it marks the work.
func TestQ6_LiftedFenceEndsNothing(t *testing.T) {
	owner := newOwner(ring.Active)
	q, _ := newQueue(t, owner)
	q.Add(1)
	get(t, q)
	ctx := q.Context(t.Context(), 1)
	q.FenceIf(owner.Fenced)
	if ctx.Err() != nil {
		t.Errorf("the context ended although the member is not fenced: %v", context.Cause(ctx))
	}
	owner.fenced.Store(true)
	q.FenceIf(owner.Fenced)
	if context.Cause(ctx) != ErrFenced {
		t.Errorf("the context ended with cause %v", context.Cause(ctx))
	}
	q.Done(1)
}

// What ended one hand-out of an item does not affect the next.
func TestQ6_ContextsBelongToOneHandOut(t *testing.T) {
	q, _ := newQueue(t, newOwner(ring.Active))
	q.Add(1)
	get(t, q)
	old := q.Context(t.Context(), 1)
	q.Fence()
	q.Done(1)
	q.Add(1)
	get(t, q)
	ctx := q.Context(t.Context(), 1)
	if ctx.Err() != nil {
		t.Errorf("cancelled with cause %v", context.Cause(ctx))
	}
	if got := context.Cause(old); got != ErrFenced {
		t.Errorf("cause %v, want %v", got, ErrFenced)
	}
}

func TestQ6_NotInFlight(t *testing.T) {
	q, _ := newQueue(t, newOwner(ring.Active))
	q.Add(1)
	if got := context.Cause(q.Context(t.Context(), 1)); got != ErrDone {
		t.Errorf("an item that is queued: cause %v, want %v", got, ErrDone)
	}
}

func TestQ6_NoAllocationsWithoutContext(t *testing.T) {
	q, _ := newQueue(t, clockedOwner{newOwner(ring.Active), time.Now().Add(time.Hour)})
	if n := testing.AllocsPerRun(1000, func() {
		q.Add(1)
		q.Get()
		q.Done(1)
	}); n != 0 {
		t.Errorf("%v allocations for Add, Get and Done", n)
	}
}

func TestQ7_OnDoneIsCalledForCancelledWork(t *testing.T) {
	q, _ := newQueue(t, newOwner(ring.Active))
	var inFlight []int
	q.OnDone(func() { inFlight = append(inFlight, len(q.InFlight())) })
	for item := range workPastFew {
		q.Add(item)
		get(t, q)
	}
	q.Context(t.Context(), 0)
	q.Done(0)
	if len(inFlight) != 0 {
		t.Errorf("OnDone was called for an item that was not cancelled")
	}
	endWork(q, 1)
	q.Done(2)
	q.Done(1)
	if diff := cmp.Diff([]int{workPastFew - 3}, inFlight); diff != "" {
		t.Errorf("work in flight when OnDone was called: %s", diff)
	}
	q.Fence()
	for item := 3; item < workPastFew; item++ {
		q.Done(item)
	}
	if len(inFlight) != workPastFew-2 || inFlight[len(inFlight)-1] != 0 {
		t.Errorf("work in flight when OnDone was called: %v", inFlight)
	}
	q.OnDone(nil)
	q.Add(1)
	get(t, q)
	q.Fence()
	q.Done(1)
}

// Everything that the queue calls, except the Ownership, may call the queue.
func TestQ7_CallsWithoutLock(t *testing.T) {
	var q *Queue[int]
	o := newOwner(ring.Active)
	// All but Context, which needs the item's point itself.
	fromPoint := func() {
		q.InFlight()
		q.Parked()
		q.Readmit()
		q.Drain(func(uint64) bool { return false })
		q.Cancel(func(uint64) bool { return false })
		q.Fence()
		q.OnDone(nil)
		q.Len()
	}
	everything := func() {
		fromPoint()
		q.Context(t.Context(), 1)
	}
	q = New(limiter{everything}, Options[int]{
		Ownership: o,
		Point: func(item int) (uint64, error) {
			fromPoint()
			return pointOfInt(item)
		},
		Recorder: recorder{everything},
	})
	defer q.ShutDown()
	cycle := func(item int) {
		q.Add(item)
		q.Get()
		q.OnDone(everything)
		covered := func(uint64) bool {
			everything()
			return true
		}
		q.Drain(covered)
		q.Cancel(covered)
		q.OnDone(everything)
		q.Done(item)
	}
	cycle(1)
	cycle(-1)
	for _, s := range []ring.State{ring.Pending, ring.NotOwned, ring.Pending} {
		o.setAll(s)
		q.Add(1)
		q.Readmit()
	}
	q.ShutDown() // drops a parked item
}

type limiter struct{ called func() }

func (l limiter) When(int) time.Duration { l.called(); return 0 }
func (l limiter) Forget(int)             { l.called() }
func (l limiter) NumRequeues(int) int    { l.called(); return 0 }

type recorder struct{ called func() }

func (r recorder) Passed()              { r.called() }
func (r recorder) Parked()              { r.called() }
func (r recorder) Readmitted()          { r.called() }
func (r recorder) Dropped()             { r.called() }
func (r recorder) Refused()             { r.called() }
func (r recorder) Malformed(any, error) { r.called() }

// A drain has two steps: after Drain the work may end by itself, and Cancel ends its context.
func TestQ6_DrainLetsWorkEndByItself(t *testing.T) {
	for _, comesBack := range []bool{true, false} {
		o := newOwner(ring.Active)
		q, _ := newQueue(t, o)
		notices := 0
		q.OnDone(func() { notices++ })
		for _, item := range []int{1, 1 + partitions, 2} {
			q.Add(item)
			get(t, q)
		}
		q.Add(1 + 2*partitions) // queued
		q.Add(3)
		ctx, late := q.Context(t.Context(), 1), q.Context(t.Context(), 1+partitions)
		o.set(1, ring.Pending)
		q.Drain(inPartition(1))
		q.Drain(inPartition(1)) // repeated
		if ctx.Err() != nil || Check(ctx) != nil {
			t.Errorf("after Drain: the work ends with %v", context.Cause(ctx))
		}
		assignment, _ := FromContext(ctx)
		settled, end, err := assignment.Begin(func(error) { t.Error("a drain aborts an effect") })
		if err != nil {
			t.Fatalf("after Drain, an effect may not begin: %v", err)
		}
		settled()
		end()
		if q.Len() != 1 || q.Parked() != 1 {
			t.Errorf("after Drain: %d queued, %d parked, want 1 and 1", q.Len(), q.Parked())
		}
		q.Done(1)
		if notices != 1 || len(q.InFlight()) != 2 {
			t.Errorf("after the work has ended: %d notices, in flight %v", notices, q.InFlight())
		}
		q.Cancel(inPartition(1))
		q.Cancel(inPartition(1)) // repeated
		if context.Cause(late) != ErrDraining || Check(late) != ErrDraining {
			t.Errorf("after Cancel: cause %v", context.Cause(late))
		}
		q.Done(1 + partitions)
		if notices != 2 || q.Parked() != 3 {
			t.Errorf("%d notices, %d parked, want 2 and 3: Done adds drained work again", notices, q.Parked())
		}
		if comesBack {
			o.set(1, ring.Active)
			q.Readmit()
			if q.Len() != 4 || q.Parked() != 0 {
				t.Errorf("after the drain was called off: %d queued, %d parked", q.Len(), q.Parked())
			}
			continue
		}
		o.set(1, ring.NotOwned)
		q.Readmit()
		if q.Len() != 1 || q.Parked() != 0 || len(q.items.entries) != 2 {
			t.Errorf("after the release: %d queued, %d parked, %d known", q.Len(), q.Parked(), len(q.items.entries))
		}
	}
}

// The fence aborts effects, whether the work is drained, done or neither. A settled effect
// ends with the work.
func TestQ2_EffectsEndAtTheFence(t *testing.T) {
	for name, before := range map[string]func(q *Queue[int], o *owner){
		"in flight": func(*Queue[int], *owner) {},
		"draining":  func(q *Queue[int], o *owner) { o.set(1, ring.Pending); endWork(q, 1) },
		"done":      func(q *Queue[int], _ *owner) { q.Done(1) },
		"drained and done": func(q *Queue[int], o *owner) {
			o.set(1, ring.Pending)
			endWork(q, 1)
			q.Done(1)
		},
	} {
		o := newOwner(ring.Active)
		q, _ := newQueue(t, o)
		q.Add(1)
		get(t, q)
		assignment, _ := FromContext(q.Context(t.Context(), 1))
		causes := map[string]error{}
		begin := func(effect string) (settled, end func()) {
			settled, end, err := assignment.Begin(func(cause error) { causes[effect] = cause })
			if err != nil {
				t.Fatal(err)
			}
			return settled, end
		}
		_, over := begin("over")
		over()
		settled, _ := begin("settled")
		settled()
		lateSettled, _ := begin("under way")
		before(q, o)
		if name != "in flight" && causes["under way"] != nil {
			t.Errorf("%s: an effect was aborted: %v", name, causes)
		}
		o.fenced.Store(true)
		q.FenceIf(func() bool { return false })
		if causes["under way"] != nil {
			t.Errorf("%s: aborted although the fence was lifted", name)
		}
		q.FenceIf(o.Fenced)
		if causes["under way"] != ErrFenced || causes["settled"] == nil || causes["over"] != nil {
			t.Errorf("%s, then fenced: %v", name, causes)
		}
		if n := len(q.InFlight()); n != 1 {
			t.Errorf("%s: %d in flight while an effect is under way", name, n)
		}
		q.Done(1)
		lateSettled()
		if n := len(q.InFlight()); n != 0 {
			t.Errorf("%s: %d in flight at the end", name, n)
		}
	}
}

// An effect that is settled after Done, such as a response that arrives then, ends at once.
func TestQ2_EffectsThatAreSettledAfterDoneEnd(t *testing.T) {
	q, _ := newQueue(t, newOwner(ring.Active))
	q.Add(1)
	get(t, q)
	assignment, _ := FromContext(q.Context(t.Context(), 1))
	var causes []error
	settled, _, err := assignment.Begin(func(cause error) { causes = append(causes, cause) })
	if err != nil {
		t.Fatal(err)
	}
	_, end, _ := assignment.Begin(func(error) { t.Error("an effect was aborted that has ended") })
	q.Done(1)
	if len(causes) > 0 {
		t.Errorf("aborted before it was settled: %v", causes)
	}
	settled()
	settled()
	end()
	q.Fence()
	if len(causes) != 1 || causes[0] != ErrDone || len(q.unfinished) != 0 {
		t.Errorf("aborted with %v, %d unfinished", causes, len(q.unfinished))
	}
}

func TestGetWithContext(t *testing.T) {
	q, _ := newQueue(t, newOwner(ring.Active))
	q.Add(1)
	type key struct{}
	parent := context.WithValue(t.Context(), key{}, "value")
	item, ctx, shutdown := q.GetWithContext(parent)
	if item != 1 || shutdown || ctx.Value(key{}) != "value" || ctx.Err() != nil {
		t.Errorf("GetWithContext returned %d, %v, %t", item, ctx, shutdown)
	}
	q.Done(1)
	if context.Cause(ctx) != ErrDone {
		t.Errorf("after Done: %v", context.Cause(ctx))
	}
	q.ShutDown()
	if _, ctx, shutdown := q.GetWithContext(parent); !shutdown || ctx != parent {
		t.Errorf("after ShutDown: %v, %t", ctx, shutdown)
	}
}
