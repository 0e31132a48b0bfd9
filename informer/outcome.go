// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import "sync/atomic"

// Outcome is the result of an event for one handler.
type Outcome uint8

const (
	// Passed: an event of the inner informer was delivered.
	Passed Outcome = iota
	// Filtered: it was not delivered, because this member may not work on the object, or
	// because a replay had already delivered the same state or a later one.
	Filtered
	// Malformed: it was not delivered, because the object's point cannot be determined.
	Malformed
	// Replayed: a stored object was delivered as an Add because its partition became active.
	Replayed
	// ReplayedDeletion: a remembered deletion was delivered because its partition became
	// active.
	ReplayedDeletion
	// Released: the handler's knowledge of an object was dropped because this member may no
	// longer work on it.
	Released
	// Outcomes is the number of outcomes.
	Outcomes = iota
)

// String returns the value of a metric label.
func (o Outcome) String() string {
	switch o {
	case Passed:
		return "passed"
	case Filtered:
		return "filtered"
	case Malformed:
		return "malformed"
	case Replayed:
		return "replayed"
	case ReplayedDeletion:
		return "replayed_deletion"
	case Released:
		return "released"
	}
	return "unknown"
}

// Counts are numbers of events, indexed by Outcome.
type Counts [Outcomes]uint64

// Add adds other counts.
func (c *Counts) Add(other Counts) {
	for o, n := range other {
		c[o] += n
	}
}

// counters count the outcomes of one handler. They are summed when somebody asks, so that
// handlers that run at the same time do not write to one cache line.
type counters [Outcomes]atomic.Uint64

func (c *counters) read() (counts Counts) {
	for o := range c {
		counts[o] = c[o].Load()
	}
	return counts
}
