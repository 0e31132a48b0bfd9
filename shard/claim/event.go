// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Time is one reading of both clocks of a process.
type Time struct {
	// Mono is the monotonic clock, from any fixed start. It may stand still while
	// the machine is frozen.
	Mono time.Duration
	// Wall is the wall clock since the Unix epoch. It may jump.
	Wall time.Duration
}

// Add moves both clocks on.
func (t Time) Add(d time.Duration) Time { return Time{Mono: t.Mono + d, Wall: t.Wall + d} }

// Reached reports whether the deadline has come on at least one of the clocks:
// each covers for what the other can't see.
func (t Time) Reached(deadline Time) bool {
	return t.Mono >= deadline.Mono || t.Wall >= deadline.Wall
}

// since is the time on the monotonic clock since an earlier reading.
func (t Time) since(earlier Time) time.Duration { return t.Mono - earlier.Mono }

// Outcome is what became of a request.
type Outcome uint8

const (
	// Unknown is the zero value: a timeout, a lost connection, a 5xx, a refusal.
	// A write may have been, or may yet be, committed.
	Unknown Outcome = iota
	// OK: the server confirmed.
	OK
	// Conflict: the object is not at the expected resourceVersion or UID (an
	// update of a deleted Lease is answered so too).
	Conflict
	// NotFound: no such Lease.
	NotFound
	// Exists: a Lease of that name is there already.
	Exists
)

// String returns the name of the outcome.
func (o Outcome) String() string {
	switch o {
	case OK:
		return "ok"
	case Conflict:
		return "conflict"
	case NotFound:
		return "not found"
	case Exists:
		return "already exists"
	}
	return "unknown"
}

// An Event is something that happened, given to [Machine.Step].
type Event interface{ event() }

// The events.
type (
	// Tick says nothing but the time.
	Tick struct{}
	// Observed is a Lease as the watch, or its initial list, showed it.
	LeaseObserved struct{ Lease Lease }
	// Vanished says that the watch showed a Lease's end. Last is its last known state.
	// Final says that Last is the state in which it was deleted, from a watch event; a
	// list does not show it.
	LeaseDeleted struct {
		Last  Lease
		Final bool
	}
	// Synced says that all registered informers hold a complete copy.
	Synced struct{}
	// Stop asks the member to drain, release and end.
	Stop struct{}
	// Idle says that no work is in flight on these partitions any more, read after
	// the Drain action for them was carried out.
	Idle struct{ Partitions ring.Set }
	// CaughtUp says that the caller's copies of objects have come as far as Marks, in
	// answer to [Machine.Awaited].
	WatermarksReached struct{ Watermarks Watermarks }
	// Got answers Get.
	GetResult struct {
		Op      uint64
		Outcome Outcome // OK, NotFound or Unknown
		Lease   Lease
	}
	// Wrote answers Create and Update.
	WriteResult struct {
		Op      uint64
		Outcome Outcome
		Lease   Lease // with OK: its new UID, Version and Created
	}
	// Deleted answers Delete.
	DeleteResult struct {
		Op      uint64
		Outcome Outcome
	}
	// Listed answers List.
	ListResult struct {
		Op      uint64
		Outcome Outcome
		Leases  []Lease
	}
	// Evicted answers Evict.
	EvictResult struct {
		Op      uint64
		Outcome Outcome
		Lease   Lease // with OK: the void Lease
	}
)

func (Tick) event()              {}
func (LeaseObserved) event()     {}
func (LeaseDeleted) event()      {}
func (Synced) event()            {}
func (Stop) event()              {}
func (Idle) event()              {}
func (WatermarksReached) event() {}
func (GetResult) event()         {}
func (WriteResult) event()       {}
func (DeleteResult) event()      {}
func (ListResult) event()        {}
func (EvictResult) event()       {}

// An Action is something that the caller of [Machine.Step] must do, in order.
// Requests are answered by exactly one event with the same Op, also when they
// fail; the caller bounds each by Timeout.
type Action interface{ action() }

// The requests.
type (
	// Get reads the own Lease with a quorum read.
	GetLease struct {
		Op      uint64
		Timeout time.Duration
	}
	// Create creates the own Lease.
	CreateLease struct {
		Op      uint64
		Record  Record
		Timeout time.Duration
	}
	// Update writes the own Lease on the condition that it is at Version.
	WriteLease struct {
		Op      uint64
		UID     string
		Version string
		Record  Record
		Timeout time.Duration
	}
	// Delete deletes a void Lease on the condition that it is at Version.
	DeleteLease struct {
		Op      uint64
		Name    string
		UID     string
		Version string
		Timeout time.Duration
	}
	// List reads all Leases of the ring with a quorum read: resourceVersion "",
	// never "0", and never the watch's copy, which can miss the own write.
	ListLeases struct {
		Op      uint64
		Timeout time.Duration
	}
	// Evict voids a silent member's Lease on the condition that it is at Version: with
	// one request, which writes a record that says nothing but who was evicted by whom.
	EvictLease struct {
		Op      uint64
		Name    string
		UID     string
		Version string
		// Of the holder, to be kept on the void Lease. Empty if unknown.
		Member     string
		PodUID     string
		Finalizers []string
		Timeout    time.Duration
	}
)

// The orders. None of them has an answer but Drain, which is followed by Idle.
type (
	// Relist forces the watch to start again from a list.
	Relist struct{}
	// Claimed: work on these partitions is to be parked.
	Claimed struct{ Partitions ring.Set }
	// Activated: work on these partitions is allowed; replay their objects. They
	// were claimed before, or were being drained. Unowned has, for each of those that
	// came from another member, how long nobody worked on it: from when this machine
	// saw the release, or the last sign of life of a member that was evicted or vanished.
	Activated struct {
		Partitions ring.Set
		Unowned    []time.Duration
	}
	// Drain: hand out no more work on these partitions, cancel what is in flight,
	// report Idle when it has ended.
	Drain struct{ Partitions ring.Set }
	// Released: these partitions are another member's now. Drop what is parked.
	Released struct{ Partitions ring.Set }
	// Fenced: cancel everything that is in flight, hand out nothing.
	Fenced struct{}
	// Unfenced: go on with what is active.
	Unfenced struct{}
	// Ended is the machine's last action.
	Ended struct{ Reason error }
)

func (GetLease) action()    {}
func (CreateLease) action() {}
func (WriteLease) action()  {}
func (DeleteLease) action() {}
func (ListLeases) action()  {}
func (EvictLease) action()  {}
func (Relist) action()      {}
func (Claimed) action()     {}
func (Activated) action()   {}
func (Drain) action()       {}
func (Released) action()    {}
func (Fenced) action()      {}
func (Unfenced) action()    {}
func (Ended) action()       {}
