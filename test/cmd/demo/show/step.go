// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"time"
)

// step measures how one membership change affects the objects.
type step struct {
	began   time.Time
	before  []int                 // owner of each object when it began
	want    []int                 // owner that the ring names for each object
	unowned map[int]time.Duration // by object, for those that had no owner and have one again
	settled time.Time             // when every object was with its owner; zero until then
}

// result is the result of a step.
type result struct {
	took  time.Duration // until every object was with the member that the ring names
	moved int           // objects whose owner changed
	ideal int           // objects of the member that joined or left: that many must move
	// Over the objects that moved or had no owner for a while.
	longest, median time.Duration
}

// begin starts the measurement. want returns the final owner of each object.
func (b *board) begin(now time.Time, want func(point uint64) int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &step{began: now, unowned: map[int]time.Duration{}}
	for _, o := range b.objects {
		s.before = append(s.before, o.owner)
		s.want = append(s.want, want(o.point))
	}
	b.step = s
}

// settle notes the time at which every object is with its owner on the ring.
func (b *board) settle(now time.Time) {
	if b.step == nil || !b.step.settled.IsZero() {
		return
	}
	for i, o := range b.objects {
		if o.owner != b.step.want[i] {
			return
		}
	}
	b.step.settled = now
}

// settled reports whether every object has been with its owner since the step began.
func (b *board) settled() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.step != nil && !b.step.settled.IsZero()
}

// finish ends a settled step and returns its result. m is the member that joined or left.
func (b *board) finish(m int) result {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.step
	b.step = nil
	r := result{took: s.settled.Sub(s.began)}
	var unowned []time.Duration
	for i, o := range b.objects {
		gap, lost := s.unowned[i]
		moved := s.before[i] != noOwner && o.owner != s.before[i]
		if moved {
			r.moved++
		}
		if moved || lost {
			unowned = append(unowned, gap)
		}
		if (o.owner == m) != (s.before[i] == m) {
			r.ideal++
		}
	}
	if len(unowned) > 0 {
		slices.Sort(unowned)
		r.longest, r.median = unowned[len(unowned)-1], unowned[len(unowned)/2]
	}
	return r
}
