// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"cmp"
	"slices"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// parked is an item that waits for its partition to become active or for the fence to
// lift.
type parked struct {
	location
	arrival uint64 // the order in which items were parked
}

// park puts an item aside, unless it already is. Call it with mu held and only after
// State or Fenced, asked with mu held, has said that the item must wait: Readmit
// comes after every change of what they say and takes mu, so either it finds the item
// here, or State and Fenced have answered for the time after the change.
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

// parkOrDrop is Add for an item whose point was not active a moment ago.
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

// drop forgets an item that is another member's, or that comes too late.
func (q *Queue[T]) drop(item T) {
	q.limiter.Forget(item)
	q.recorder.Dropped()
}

// Readmit looks at all parked items again: those that may be worked on are queued, in
// the order in which they were parked; those whose partition is not this member's
// any more are dropped and forgotten; the others stay.
//
// It must be called after every change of what State answers, and after Fenced has
// turned false; a call too many costs next to nothing while nothing is parked. It does
// not block.
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

// Parked counts the parked items.
func (q *Queue[T]) Parked() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.parked)
}

// ParkedByState counts the parked items by what State says of them now: pending ones
// wait for their partition, active ones for the fence to lift. It asks State for each.
func (q *Queue[T]) ParkedByState() map[ring.State]int {
	counts := make(map[ring.State]int)
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.parked {
		counts[q.state(p.location)]++
	}
	return counts
}

// stopParking drops what is parked, and whatever would be parked from now on.
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
