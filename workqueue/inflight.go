// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"context"
	"slices"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Work is an item that Get has handed out and for which Done was not yet called.
type Work struct {
	Item  any       // the item as it was added
	Point uint64    // of the object that it stands for
	Since time.Time // when it was handed out, by the real clock
}

// place is where an item lies in the hash space.
type place struct {
	point   uint64
	nowhere bool // Point has failed: the item belongs to no partition
}

// state is what this member may do with items at a place, fence aside.
func (q *Queue[T]) state(at place) ring.State {
	if at.nowhere {
		return ring.Active
	}
	return q.owner.State(at.point)
}

// fence reports whether the member is fenced, and if it isn't, what time it is.
func (q *Queue[T]) fence() (since time.Duration, fenced bool) {
	if q.clocked != nil {
		now, fenced := q.clocked.FencedAt()
		return now.Sub(q.epoch), fenced
	}
	if q.owner.Fenced() {
		return 0, true
	}
	return time.Since(q.epoch), false
}

// handOut enters the item, which the inner queue has just given out, into the table
// of what is in flight, if this member may work on it. Otherwise it gives it back,
// parks or drops it, and returns false.
//
// That InFlight, called after a change of State, misses no Get that had still seen
// the old state: handOut asks State and enters the item within one critical section of
// mu, and InFlight reads the table within another. If handOut's comes first, InFlight
// sees the entry, or Done has taken it out. If InFlight's comes first, so did the
// change, and handOut sees it. The same holds for Fenced and Fence, and for State and
// Drain.
func (q *Queue[T]) handOut(item T) bool {
	point, err := q.point(item)
	at := place{point: point, nowhere: err != nil}

	q.mu.Lock()
	state := q.state(at)
	fenced := false
	if state == ring.Active {
		var since time.Duration
		if since, fenced = q.fence(); !fenced {
			q.inFlight.put(item, at, since)
			if q.parked != nil {
				delete(q.parked, item) // this hand-out is what it was waiting for
			}
			q.mu.Unlock()
			if err != nil {
				q.recorder.Malformed(item, err)
			}
			q.recorder.Passed()
			return true
		}
	}
	foreign := state != ring.Active && state != ring.Pending
	outcome := nothing
	if !foreign {
		outcome = q.park(item, at)
	}
	q.mu.Unlock()

	if fenced {
		q.recorder.Refused()
	}
	outcome(q.recorder)
	if foreign {
		q.drop(item)
	}
	q.inner.Done(item)
	return false
}

// Context returns a context for the work on an item that Get has handed out. It is
// cancelled with the cause [ErrReleased] when the item's partition is drained, with
// [ErrFenced] when the member is fenced, and with [ErrDone] by Done. It is
// already cancelled if one of these has happened before. See [FromContext] for
// what else it carries.
func (q *Queue[T]) Context(ctx context.Context, item T) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	at, cause := q.attach(item, cancel)
	if cause != nil {
		cancel(cause)
	}
	if at.nowhere {
		return ctx
	}
	return context.WithValue(ctx, permitKey{}, Permit{Owner: q.owner, Point: at.point})
}

// attach lets the item's work own the context, or returns why it must not go on.
func (q *Queue[T]) attach(item T, cancel context.CancelCauseFunc) (place, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := q.inFlight.find(item)
	if w == nil {
		return place{nowhere: true}, ErrDone
	}
	t := w.ensureTask()
	if t.cause == nil {
		t.cancels = append(t.cancels, cancel)
	}
	return w.place, t.cause
}

// Drain cancels the contexts of the work in flight on the points for which draining
// answers true, and lets [Queue.OnDone] be told when it ends. State must already
// answer that these points are not active. draining must not block, and is called
// with no lock held. Drain does not wait.
func (q *Queue[T]) Drain(draining func(point uint64) bool) {
	hit := make(map[uint64]bool)
	q.mu.Lock()
	q.inFlight.each(func(_ T, w *work) { hit[w.point] = false })
	q.mu.Unlock()
	for point := range hit {
		hit[point] = draining(point)
	}
	// Nothing was handed out on these points meanwhile: State was changed before.
	q.end(ErrReleased, func(w *work) bool { return !w.nowhere && hit[w.point] })
}

// Fence cancels the contexts of all work in flight. Fenced must already answer true.
// Fence does not wait.
func (q *Queue[T]) Fence() {
	q.end(ErrFenced, func(*work) bool { return true })
}

// end marks the chosen work as over and cancels its contexts.
func (q *Queue[T]) end(cause error, chosen func(*work) bool) {
	var cancels []context.CancelCauseFunc
	q.mu.Lock()
	q.inFlight.each(func(_ T, w *work) {
		if !chosen(w) {
			return
		}
		if t := w.ensureTask(); t.cause == nil {
			t.cause = cause
			cancels = append(cancels, t.cancels...)
		}
	})
	q.mu.Unlock()
	for _, cancel := range cancels {
		cancel(cause)
	}
}

// InFlight lists the work in flight, the oldest first. After State has changed, a
// point that is not active and not in the list has no work in flight, and gets none
// until State says that it is active again. Items without a point (Q8) are not listed:
// they belong to no partition.
func (q *Queue[T]) InFlight() []Work {
	var list []Work
	q.mu.Lock()
	q.inFlight.each(func(item T, w *work) {
		if !w.nowhere {
			list = append(list, Work{Item: item, Point: w.point, Since: q.epoch.Add(w.since)})
		}
	})
	q.mu.Unlock()
	slices.SortFunc(list, func(a, b Work) int { return a.Since.Compare(b.Since) })
	return list
}

// OnDone sets the function that is called after each Done of an item that Drain or
// Fence has cancelled: by then it is out of InFlight. It is called on the worker's
// goroutine with no lock held and must not block. Nil for none.
func (q *Queue[T]) OnDone(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.onDone = f
}
