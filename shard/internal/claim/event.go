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
	// the VM is frozen.
	Mono time.Duration
	// Wall is the wall clock since the Unix epoch. It may jump.
	Wall time.Duration
}

// Add returns the reading with d added to both clocks.
func (t Time) Add(d time.Duration) Time { return Time{Mono: t.Mono + d, Wall: t.Wall + d} }

// Reached reports whether the deadline has passed on at least one of the clocks: each
// clock detects gaps that the other can miss.
func (t Time) Reached(deadline Time) bool {
	return t.Mono >= deadline.Mono || t.Wall >= deadline.Wall
}

// since is the time on the monotonic clock since an earlier reading.
func (t Time) since(earlier Time) time.Duration { return t.Mono - earlier.Mono }

// Outcome is the result of a request as far as it is certain.
type Outcome uint8

const (
	// Unknown is the zero value: a timeout, a lost connection, a 5xx.
	// A write may have been committed, or may still be committed later.
	Unknown Outcome = iota
	// OK: the server confirmed the request.
	OK
	// Conflict: the object does not have the expected resourceVersion or UID. The
	// server also answers an update of a deleted Lease with a conflict.
	Conflict
	// NotFound: there is no such Lease.
	NotFound
	// Exists: a Lease of that name already exists.
	Exists
	// Refused: the request was certainly not carried out, and will not be. The server was too
	// busy, did not authorize it or found it invalid, or there was no connection to send it.
	Refused
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
	case Refused:
		return "refused"
	}
	return "unknown"
}

// An Event is something that has happened. The caller passes it to [Machine.Step].
type Event interface{ event() }

// The events. RetryAfter is how long the server asks to wait after a failed request, 0 if it
// does not.
type (
	// Tick carries only the time.
	Tick struct{}
	// LeaseObserved is a Lease as the watch, or its initial list, showed it.
	LeaseObserved struct {
		Lease  Lease
		Listed bool // it is a part of a list, whose end WatchProgress reports
		// Ahead is true if the watch may still show earlier versions of the Lease: those that
		// were on their way to the machine before this one.
		Ahead bool
	}
	// WatchProgress reports that the watch has shown everything up to Version.
	WatchProgress struct {
		Version string
		Listed  bool // Version is that of a list, which the watch has shown completely
	}
	// LeaseDeleted reports that the watch showed the end of a Lease. Last is its last
	// known state. Final is true if Last is the state in which it was deleted, from a
	// watch event; a list does not show that state.
	LeaseDeleted struct {
		Last  Lease
		Final bool
	}
	// Synced reports that the caches of all registered informers have synced.
	Synced struct{}
	// Stop asks the member to drain, release and end.
	Stop struct{}
	// Idle reports that no work is in flight on these partitions any more. The caller
	// must determine this after it has carried out the Drain action for them.
	Idle struct{ Partitions ring.Set }
	// WatermarksReached reports that the caller's caches have reached Watermarks, in
	// response to [Machine.PendingWatermarks].
	WatermarksReached struct{ Watermarks Watermarks }
	// GetResult answers GetLease.
	GetResult struct {
		Op      uint64
		Outcome Outcome // OK, NotFound, Refused or Unknown
		Lease   Lease
		// Unselected: the Lease does not have the ring's label, so peers do not see it.
		Unselected bool
		RetryAfter time.Duration
	}
	// WriteResult answers CreateLease and WriteLease.
	WriteResult struct {
		Op      uint64
		Outcome Outcome
		Lease   Lease // with OK: its new UID, Version and Created

		RetryAfter time.Duration
	}
	// DeleteResult answers DeleteLease.
	DeleteResult struct {
		Op         uint64
		Outcome    Outcome
		RetryAfter time.Duration
	}
	// ListResult answers ListLeases.
	ListResult struct {
		Op      uint64
		Outcome Outcome
		Leases  []Lease

		RetryAfter time.Duration
	}
	// RingBuilt answers BuildRing.
	RingBuilt struct {
		Op   uint64
		Ring *ring.Ring
	}
	// EvictResult answers EvictLease.
	EvictResult struct {
		Op      uint64
		Outcome Outcome
		Lease   Lease // with OK: the void Lease

		RetryAfter time.Duration
	}
)

func (Tick) event()              {}
func (LeaseObserved) event()     {}
func (LeaseDeleted) event()      {}
func (WatchProgress) event()     {}
func (Synced) event()            {}
func (Stop) event()              {}
func (Idle) event()              {}
func (WatermarksReached) event() {}
func (GetResult) event()         {}
func (WriteResult) event()       {}
func (DeleteResult) event()      {}
func (ListResult) event()        {}
func (EvictResult) event()       {}
func (RingBuilt) event()         {}

// An Action is something that the caller of [Machine.Step] must do, in order.
// The caller answers each request with exactly one event with the same Op, also when the
// request fails, and bounds each request by Timeout.
type Action interface{ action() }

// The requests.
type (
	// GetLease reads the member's own Lease with a quorum read.
	GetLease struct {
		Op      uint64
		UID     string // of the Lease that this process has held, "" for none
		Timeout time.Duration
	}
	// CreateLease creates the member's own Lease.
	CreateLease struct {
		Op      uint64
		Record  Record
		Timeout time.Duration
	}
	// WriteLease updates the member's own Lease on the condition that it has the
	// resourceVersion Version.
	WriteLease struct {
		Op      uint64
		UID     string
		Version string
		Record  Record
		Timeout time.Duration
	}
	// DeleteLease deletes a void Lease on the condition that it has the resourceVersion
	// Version.
	DeleteLease struct {
		Op      uint64
		Name    string
		UID     string
		Version string
		Timeout time.Duration
	}
	// ListLeases reads all Leases of the ring with a quorum read (R16): resourceVersion
	// "", never "0", and never the local state of the watch, which can miss the member's
	// own write.
	ListLeases struct {
		Op      uint64
		Timeout time.Duration
	}
	// EvictLease voids a silent member's Lease on the condition that it has the
	// resourceVersion Version (R23). It is one request, which writes a minimal record: the
	// evicted member and the holder that evicted it.
	EvictLease struct {
		Op      uint64
		Name    string
		UID     string
		Version string
		// These belong to the holder and are kept on the void Lease. Empty if unknown.
		Member     string
		PodUID     string
		Finalizers []string
		Timeout    time.Duration
	}
)

// BuildRing computes the ring of these members, which can take seconds. Its caller must not make
// the member's renewals wait for it. The parameters are valid. It has no time limit.
type BuildRing struct {
	Op         uint64
	Parameters ring.Parameters
	Members    []string
}

// Build returns the answer to b.
func (b BuildRing) Build() RingBuilt {
	r, err := ring.New(b.Parameters, b.Members)
	if err != nil {
		panic(err) // the machine has validated the parameters
	}
	return RingBuilt{Op: b.Op, Ring: r}
}

// The commands. The caller answers none of them, except Drain, which it answers with Idle.
type (
	// Relist restarts the watch from a list.
	Relist struct{}
	// Claimed: park work on these partitions.
	Claimed struct{ Partitions ring.Set }
	// Activated: work on these partitions is allowed; replay their objects. They
	// were claimed before, or were being drained. Unowned has, for each partition that
	// came from another member, how long no member worked on it: since this machine saw
	// the release, or since it saw the last renewal of a member that was evicted or whose
	// Lease was deleted.
	Activated struct {
		Partitions ring.Set
		Unowned    []time.Duration
	}
	// Drain: hand out no more work on these partitions, and report Idle when the work in
	// flight has ended. Its contexts stay valid until Cancel.
	Drain struct{ Partitions ring.Set }
	// Cancel: cancel the contexts of the work in flight on these partitions, which are being
	// drained.
	Cancel struct{ Partitions ring.Set }
	// Released: this member no longer owns these partitions. Drop the work parked on them.
	Released struct{ Partitions ring.Set }
	// Fenced: cancel all work in flight and hand out none (R36).
	Fenced struct{}
	// Unfenced: resume work on the active partitions.
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
func (BuildRing) action()   {}
func (Relist) action()      {}
func (Claimed) action()     {}
func (Activated) action()   {}
func (Drain) action()       {}
func (Cancel) action()      {}
func (Released) action()    {}
func (Fenced) action()      {}
func (Unfenced) action()    {}
func (Ended) action()       {}
