// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// ShutDown makes the queue ignore all later Adds and drops the parked items. Get still hands
// out the queued items that this member may work on, and then returns shutdown = true.
func (q *Queue[T]) ShutDown() {
	q.shutDown(false)
	q.timers.ShutDown()
}

// ShutDownWithDrain does what ShutDown does, and waits until Done was called for all items in
// flight, or until ShutDown is called.
func (q *Queue[T]) ShutDownWithDrain() {
	q.shutDown(true)
	q.timers.ShutDown()
}

// shutDown shuts down the queue itself. With drain, it waits for the work in flight.
func (q *Queue[T]) shutDown(drain bool) {
	q.mu.Lock()
	q.shuttingDown, q.draining = true, drain
	var dropped []func(Recorder)
	q.items.each(parked, func(e *entry[T]) { dropped = append(dropped, q.reject(e, ring.NotOwned)) })
	q.unmarkIf(func(*entry[T]) bool { return true })
	q.wake.Broadcast()
	q.mu.Unlock()
	for _, outcome := range dropped {
		outcome(q.recorder)
	}
	q.mu.Lock()
	for q.draining && q.items.lists[inFlight].n > 0 {
		q.wake.Wait()
	}
	meter := q.meter
	q.mu.Unlock()
	meter.shutDown()
}

// ShuttingDown reports whether ShutDown or ShutDownWithDrain was called.
func (q *Queue[T]) ShuttingDown() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.shuttingDown
}

// abandonedAfter is how long items stay in a queue that was shut down and has no workers.
const abandonedAfter = time.Minute

// Closed reports whether the queue was shut down and will hand out nothing any more, and no
// work is in flight. It stays so: a closed queue needs no more calls.
//
// If items are queued, but no Get has taken one for a minute of calls of Closed and nothing is
// in flight, the workers have gone. Closed then drops the items.
func (q *Queue[T]) Closed() bool {
	var dropped []func(Recorder)
	q.mu.Lock()
	closed := q.shuttingDown && q.items.lists[inFlight].n == 0 && len(q.unfinished) == 0
	if closed && q.waiting() > 0 {
		switch now := time.Since(q.epoch); {
		case q.untouched == 0:
			q.untouched = max(now, 1)
		case now-q.untouched >= abandonedAfter:
			for _, in := range []place{queued, gained} {
				q.items.each(in, func(e *entry[T]) { dropped = append(dropped, q.reject(e, ring.NotOwned)) })
			}
		}
		closed = q.waiting() == 0
	}
	q.mu.Unlock()
	for _, outcome := range dropped {
		outcome(q.recorder)
	}
	return closed
}
