// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"cmp"
	"slices"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// parked is an item that waits for its partition to become active or for the fence to be
// lifted.
type parked struct {
	location
	arrival uint64 // the order in which items were parked
}

// park parks an item, unless it is already parked. Call it with mu held, and only after
// State or Fenced, called with mu held, has determined that the item must wait. Readmit is
// called after every change of their results and takes mu. So either Readmit finds the item
// here, or State and Fenced already returned the result of the change.
func (q *Queue[T]) park(item T, at location) (outcome func(Recorder)) {
	if q.stopped {
		return func(Recorder) { q.drop(item) }
	}
	if _, already := q.parked[item]; already {
		return nothing
	}
	if q.parked == nil {
		q.parked = make(map[T]parked)
	}
	q.arrivals++
	q.parked[item] = parked{location: at, arrival: q.arrivals}
	return Recorder.Parked
}

func nothing(Recorder) {}

// parkOrDrop is Add for an item whose point was not active when Add called State.
func (q *Queue[T]) parkOrDrop(item T, point uint64) {
	q.mu.Lock()
	switch q.owner.State(point) {
	case ring.Active:
		q.mu.Unlock()
		q.inner.Add(item)
	case ring.Pending:
		outcome := q.park(item, location{point: point})
		q.mu.Unlock()
		outcome(q.recorder)
	default:
		q.mu.Unlock()
		q.drop(item)
	}
}

// drop forgets an item that another member owns, or that was added after the shutdown.
func (q *Queue[T]) drop(item T) {
	q.limiter.Forget(item)
	q.recorder.Dropped()
}

// Readmit checks all parked items again. Items that this member may work on are queued, in
// the order in which they were parked. Items that this member no longer owns are dropped and
// forgotten. The others stay parked.
//
// Call it after every change of what State returns, and after Fenced has become false. An
// unnecessary call costs next to nothing while nothing is parked. It does not block.
func (q *Queue[T]) Readmit() {
	type arrival struct {
		item  T
		order uint64
	}
	var admitted []arrival
	var dropped []T
	q.mu.Lock()
	if len(q.parked) == 0 {
		q.mu.Unlock()
		return
	}
	fenced := q.owner.Fenced()
	for item, p := range q.parked {
		switch state := q.state(p.location); {
		case state == ring.Active && !fenced:
			admitted = append(admitted, arrival{item, p.arrival})
		case state == ring.Active || state == ring.Pending:
			continue
		default:
			dropped = append(dropped, item)
		}
		delete(q.parked, item)
	}
	if len(q.parked) == 0 {
		q.parked = nil // a map does not shrink
	}
	q.mu.Unlock()

	slices.SortFunc(admitted, func(a, b arrival) int { return cmp.Compare(a.order, b.order) })
	for _, a := range admitted {
		q.inner.Add(a.item)
		q.recorder.Readmitted()
	}
	for _, item := range dropped {
		q.drop(item)
	}
}

// Parked returns the number of parked items.
func (q *Queue[T]) Parked() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.parked)
}

// ParkedByState counts the parked items by their current state: pending items wait for their
// partition, active items wait for the fence to be lifted. It calls State for each item.
func (q *Queue[T]) ParkedByState() map[ring.State]int {
	counts := make(map[ring.State]int)
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.parked {
		counts[q.state(p.location)]++
	}
	return counts
}

// stopParking drops all parked items. Items that would be parked later are dropped too.
func (q *Queue[T]) stopParking() {
	q.mu.Lock()
	q.stopped = true
	dropped := q.parked
	q.parked = nil
	q.mu.Unlock()
	for item := range dropped {
		q.drop(item)
	}
}
