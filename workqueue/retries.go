// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"fmt"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// The rate limiter remembers the failures of items. The queue marks these items as failed, so
// that the limiter forgets them when their partition leaves: when it comes back, other members
// have worked on them.

// AddRateLimited adds the item after the delay that the rate limiter returns. If this member
// does not own the item's partition, it drops the item and forgets its retries.
func (q *Queue[T]) AddRateLimited(item T) {
	mustBeKey(item)
	delay := q.when(item)
	failed := q.NumRequeues(item) > 0 // some limiters remember nothing, and some workers never call Forget
	point, err := q.locate(item)
	q.mu.Lock()
	if state := q.state(point, err != nil); state != ring.Active && state != ring.Pending {
		q.mu.Unlock()
		q.drop(item)
		return
	}
	// Readmit is called after the next change of the state, and finds the mark.
	if failed && !q.shuttingDown {
		e := q.items.entries[item]
		if e == nil {
			e = q.items.put(item, point, err != nil, remembered)
		}
		e.failed = true
	}
	q.mu.Unlock()
	q.timers.AddAfter(item, delay)
}

// Forget lets the rate limiter forget the item's failures: it is no longer being retried.
func (q *Queue[T]) Forget(item T) {
	mustBeKey(item)
	q.forget(item)
	q.mu.Lock()
	if e := q.items.entries[item]; e != nil && e.failed {
		q.unmark(e)
	}
	q.mu.Unlock()
}

// unmark removes the mark of an item that the rate limiter forgets.
func (q *Queue[T]) unmark(e *entry[T]) {
	e.failed = false
	if e.place == remembered {
		q.items.remove(e)
	}
}

// unmarkIf removes the marks of those failed items that are neither queued nor parked, and
// that are chosen. It returns the items.
func (q *Queue[T]) unmarkIf(chosen func(*entry[T]) bool) (items []T) {
	for _, in := range []place{remembered, inFlight} {
		q.items.each(in, func(e *entry[T]) {
			if e.failed && chosen(e) {
				items = append(items, e.item)
				q.unmark(e)
			}
		})
	}
	return items
}

// retryAfterPanic is the delay of an item for which the rate limiter panics.
const retryAfterPanic = time.Second

// A function of the user may run on the goroutine of the timers, or on the caller's loop. A
// panic there would stop the timers of all items, or a member. The methods below turn it into
// what the function could have returned.

func (q *Queue[T]) locate(item T) (point uint64, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrPanic, r)
		}
	}()
	return q.point(item)
}

func (q *Queue[T]) when(item T) (delay time.Duration) {
	delay = retryAfterPanic
	defer q.recovered(item)
	return q.limiter.When(item)
}

func (q *Queue[T]) forget(item T) {
	defer q.recovered(item)
	q.limiter.Forget(item)
}

// NumRequeues returns how often the item was added with AddRateLimited since it was
// last forgotten.
func (q *Queue[T]) NumRequeues(item T) (n int) {
	defer q.recovered(item)
	return q.limiter.NumRequeues(item)
}

// recovered is deferred around a call of the rate limiter.
func (q *Queue[T]) recovered(item T) {
	if r := recover(); r != nil {
		q.recorder.Malformed(item, fmt.Errorf("%w: %v", ErrLimiterPanic, r))
	}
}
