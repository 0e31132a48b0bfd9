// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Work on an item acquires a key, and with the context of that key another one, which this member
// does not own. Then the item's partition is handed over: the drain waits for the item, the item
// for Acquire.
func TestQ6_AcquireInAcquiredWorkDoesNotHoldUpTheOuterDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(ring.Active)
		a := NewAcquirer(o, func(key string) uint64 { return uint64(key[0]-'0') << 60 })
		o.set(3, ring.NotOwned)
		outer, doneOuter, err := a.Acquire(context.Background(), "1")
		if err != nil {
			t.Fatal(err)
		}
		defer doneOuter()
		inner, doneInner, err := a.Acquire(outer, "2")
		if err != nil {
			t.Fatal(err)
		}
		defer doneInner()
		ctx, cancel := context.WithCancel(inner)
		result := make(chan error, 1)
		go func() {
			_, _, err := a.Acquire(ctx, "3")
			result <- err
		}()
		synctest.Wait()
		o.set(1, ring.Pending)
		a.Drain(func(point uint64) bool { return point == 1<<60 })
		synctest.Wait()
		select {
		case err := <-result:
			if !errors.Is(err, ErrDraining) {
				t.Error(err)
			}
		default:
			t.Error("Acquire waits although the drain of the outer work waits for it")
			cancel()
			<-result
		}
		cancel()
	})
}

// A process with two rings: work on a key of one ring acquires a key of the other ring, which
// another member owns. Then the first ring hands its key over. Acquire returns ErrDraining, although that drain wakes
// only the callers of its own Acquirer.
func TestQ6_AcquireDoesNotHoldUpADrainOfAnotherRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		point := func(key string) uint64 { return uint64(key[0]-'0') << 60 }
		one, two := newOwner(ring.Active), newOwner(ring.NotOwned)
		first, second := NewAcquirer(one, point), NewAcquirer(two, point)
		outer, doneOuter, err := first.Acquire(context.Background(), "1")
		if err != nil {
			t.Fatal(err)
		}
		defer doneOuter()
		ctx, cancel := context.WithCancel(outer)
		defer cancel()
		result := make(chan error, 1)
		go func() {
			_, _, err := second.Acquire(ctx, "2")
			result <- err
		}()
		synctest.Wait()
		one.set(1, ring.Pending)
		first.Drain(func(point uint64) bool { return point == 1<<60 })
		time.Sleep(outerDrainPeriod)
		synctest.Wait()
		select {
		case err := <-result:
			if !errors.Is(err, ErrDraining) {
				t.Error(err)
			}
		default:
			t.Error("Acquire waits although the drain of the outer work waits for it")
			cancel()
			<-result
		}
	})
}

// A goroutine outlives the work that has started it, which a drain had cancelled. No drain waits for that work any more,
// so Acquire waits for its key as for any other caller.
func TestQ6_AcquireAfterTheOuterWorkHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(ring.Active)
		a := NewAcquirer(o, func(key string) uint64 { return uint64(key[0]-'0') << 60 })
		outer, doneOuter, err := a.Acquire(context.Background(), "1")
		if err != nil {
			t.Fatal(err)
		}
		onOne := func(point uint64) bool { return point == 1<<60 }
		o.set(1, ring.Pending)
		a.Drain(onOne)
		a.Cancel(onOne)
		doneOuter()
		o.set(1, ring.NotOwned)
		o.set(2, ring.Pending)
		a.Readmit()
		result := make(chan error, 1)
		go func() {
			_, done, err := a.Acquire(context.WithoutCancel(outer), "2")
			if err == nil {
				done()
			}
			result <- err
		}()
		time.Sleep(time.Minute)
		o.set(2, ring.Active)
		a.Readmit()
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}

// countingContext counts the looks at it.
type countingContext struct {
	context.Context
	looks *atomic.Int64
}

func (c countingContext) Err() error { c.looks.Add(1); return c.Context.Err() }

// A caller that belongs to no work looks only when it has a reason: there may be many that wait for keys of other members.
func TestQ6_AcquireOutsideOfWorkDoesNotPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(ring.NotOwned)
		a := NewAcquirer(o, func(string) uint64 { return 0 })
		ctx := countingContext{t.Context(), new(atomic.Int64)}
		result := make(chan error, 1)
		go func() {
			_, done, err := a.Acquire(ctx, "1")
			if err == nil {
				done()
			}
			result <- err
		}()
		synctest.Wait()
		before := ctx.looks.Load()
		time.Sleep(time.Hour)
		if looks := ctx.looks.Load() - before; looks > 0 {
			t.Errorf("looked %d times in an hour", looks)
		}
		o.set(0, ring.Active)
		a.Readmit()
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}
