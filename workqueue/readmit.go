// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import "github.com/tom-ludwig/operator-scaling/shard/ring"

// Readmit checks all items again. Parked items that this member may work on are queued, in
// the order in which they were parked; queued items whose partition is no longer active are
// parked. Of a partition that this member does not own any more, nothing remains but the work
// in flight: its items are dropped, and the rate limiter forgets its failures. Get also looks
// again whether the member is fenced.
//
// Call it after every change of what State returns, and after Fenced has become false. It
// calls State for each item that the queue holds. It does not block.
func (q *Queue[T]) Readmit() {
	var outcomes []func(Recorder)
	add := func(outcome func(Recorder)) {
		if outcome != nil {
			outcomes = append(outcomes, outcome)
		}
	}
	q.mu.Lock()
	for _, in := range []place{queued, gained} {
		q.items.each(in, func(e *entry[T]) {
			if state := q.state(e.point, e.unkeyed); state != ring.Active {
				add(q.reject(e, state))
			}
		})
	}
	q.items.each(parked, func(e *entry[T]) {
		switch state := q.state(e.point, e.unkeyed); state {
		case ring.Pending:
		case ring.Active:
			add(q.wait(e, state))
		default:
			add(q.reject(e, state))
		}
	})
	forgotten := q.unmarkIf(func(e *entry[T]) bool {
		state := q.state(e.point, e.unkeyed)
		return state != ring.Active && state != ring.Pending
	})
	q.wake.Broadcast()
	q.mu.Unlock()
	for _, outcome := range outcomes {
		outcome(q.recorder)
	}
	for _, item := range forgotten {
		q.forget(item)
	}
}

// Parked returns the number of parked items.
func (q *Queue[T]) Parked() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.items.lists[parked].n
}
