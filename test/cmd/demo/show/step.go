// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"time"
)

// step measures what one change of the members does to the objects.
type step struct {
	began   time.Time
	before  []int                 // owner of each object when it began
	want    []int                 // owner that the ring names for each object
	unowned map[int]time.Duration // by object, for those that were seen without an owner and have one again
	settled time.Time             // when every object was with its owner; zero until then
}

// result is what a step came to.
type result struct {
	took  time.Duration // until every object was with the member that the ring names
	moved int           // objects that have another owner than before
	ideal int           // the share of the member that came or went: that many must move
	// Over the objects that moved or were without an owner for a while.
	longest, median time.Duration
}

// begin starts to measure. want gives the owner of each object in the end.
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

// settle notes the time at which every object is where it belongs.
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

// settled tells whether every object is with its owner since the step began.
func (b *board) settled() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.step != nil && !b.step.settled.IsZero()
}

// finish ends a step that has settled and returns what it came to. m is the
// member that came or went.
func (b *board) finish(m int) result {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.step
	b.step = nil
	r := result{took: s.settled.Sub(s.began)}
	var unowned []time.Duration
	for i, o := range b.objects {
		gap, lost := s.unowned[i]
		moved := s.before[i] != nobody && o.owner != s.before[i]
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
