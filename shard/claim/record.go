// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Phase is where a member stands in its life, as it says on its Lease.
type Phase string

// The phases. Only active members are on the ring.
const (
	PhaseJoining  Phase = "joining"
	PhaseActive   Phase = "active"
	PhaseDraining Phase = "draining"
)

// Claims are the partitions that a member says it may be working on.
type Claims struct {
	// Everything is true for claims that could not be read: they block all others.
	Everything bool
	// Parameters say how the partitions of Set lie in the hash space. Only Key and
	// Partitions matter.
	Parameters ring.Parameters
	Set        ring.Set
}

// Empty reports whether nothing is claimed.
func (c Claims) Empty() bool { return !c.Everything && c.Set.Empty() }

// overlaps reports whether some point may lie both in the claims and in a
// partition under the given parameters. Keys of another kind can't be compared
// and overlap with everything.
func (c Claims) overlaps(partition int, p ring.Parameters) bool {
	switch {
	case c.Empty():
		return false
	case c.Everything || !c.Parameters.SameKeys(p):
		return true
	}
	return c.Set.OverlapsPartition(partition, p.Partitions)
}

// equal compares what two claims block.
func (c Claims) equal(other Claims) bool {
	return c.Everything == other.Everything && c.Parameters == other.Parameters && c.Set.Equal(other.Set)
}

// union is what either of the two claims.
func (c Claims) union(other Claims) Claims {
	switch {
	case other.Empty():
		return c
	case c.Empty():
		return other
	case c.Everything || other.Everything || c.Parameters != other.Parameters:
		return Claims{Everything: true}
	}
	both := Claims{Parameters: c.Parameters, Set: c.Set.Clone()}
	for p := range other.Set.All() {
		both.Set.Add(p)
	}
	return both
}

// A Tombstone stands for a member whose Lease vanished without having been void:
// its process may still be at work. It blocks what the member claimed for one
// lease duration.
type Tombstone struct {
	Lease  string // name of the Lease that vanished
	Holder string // incarnation that held it
	Claims Claims
}

// Record is what a member keeps on its Lease.
type Record struct {
	// Member is the name under which the ring knows the member: the Pod's name.
	Member string
	// Holder is "<pod>_<incarnation>", unique to one life of one process. Empty on
	// a void Lease (released, or evicted), which claims nothing.
	Holder string
	// PodUID is the UID of the member's Pod, "" if unknown.
	PodUID string
	// Duration is how long peers wait for a sign of life before they evict. Above 0.
	Duration time.Duration
	Phase    Phase
	// Seq counts the member's own writes: Seq on the server is never below the Seq
	// of a confirmed write, unless the server went back in time.
	Seq uint64
	// Fingerprint is that of the member's own ring parameters.
	Fingerprint string
	// Parameters are those that Fingerprint stands for; the zero value if this
	// version can't compute that ring.
	Parameters ring.Parameters
	Claims     Claims
	Tombstones []Tombstone
	// Marks are how far the member has written, as of its last release. The machine
	// reads those of others; its caller puts the own ones on what it writes.
	Watermarks Watermarks
	// EvictedBy names who voided the Lease; empty for a release.
	EvictedBy string
}

// Void reports whether nobody holds the Lease.
func (r Record) Void() bool { return r.Holder == "" }

// Lease is a Record with its place on the API server.
type Lease struct {
	Name    string
	UID     string
	Version string    // metadata.resourceVersion
	Created time.Time // metadata.creationTimestamp, by the server's clock, to the second
	Record  Record
	// Finalizers are metadata.finalizers. The machine does not act on them; an
	// eviction leaves them in place.
	Finalizers []string
}

// sameWrite reports whether both are what one write left. The version alone could
// say so if databases were never restored.
func (l Lease) sameWrite(other Lease) bool {
	return l.Version == other.Version && l.UID == other.UID && l.Record.Holder == other.Record.Holder && l.Record.Seq == other.Record.Seq
}

// CompareVersions orders two resourceVersions as the API conventions allow since
// Kubernetes 1.35: decimal numbers of any length without leading zeros.
func CompareVersions(a, b string) int {
	switch {
	case len(a) != len(b):
		if len(a) < len(b) {
			return -1
		}
		return 1
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// inForce returns the claims that count: none of a void Lease.
func (r Record) inForce() Claims {
	if r.Void() {
		return Claims{}
	}
	return r.Claims
}
