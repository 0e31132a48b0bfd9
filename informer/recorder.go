// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

// Outcome is what became of an event for one handler.
type Outcome uint8

const (
	// Passed: an event of the inner informer was shown.
	Passed Outcome = iota
	// Filtered: it was not, because this member may not work on the object, or
	// because a replay had shown as much already.
	Filtered
	// Malformed: it was not, because the object's point can't be told.
	Malformed
	// Replayed: a stored object was shown as an Add because its partition became active.
	Replayed
	// ReplayedDeletion: a remembered deletion was shown for the same reason.
	ReplayedDeletion
	// Released: an object was taken from the handler because this member may not
	// work on it any more.
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

// Recorder counts outcomes. Record is called once for each event and handler, from
// many goroutines and on the hot path: an atomic counter per outcome will do.
type Recorder interface {
	Record(o Outcome)
}
