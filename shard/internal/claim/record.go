// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"time"

	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Phase is the phase of a member's life, as it publishes it on its Lease.
type Phase string

// The phases. Only active members are on the ring.
const (
	PhaseJoining  Phase = "joining"
	PhaseActive   Phase = "active"
	PhaseDraining Phase = "draining"
)

// Claims are the partitions that a member publishes as those it may be working on.
type Claims struct {
	// Everything is true for claims that could not be read: they overlap with all claims
	// (R2).
	Everything bool
	// Parameters define how the partitions of Set divide the hash space. Only Key and
	// Partitions matter.
	Parameters ring.Parameters
	Set        ring.Set
}

// Empty reports whether nothing is claimed.
func (c Claims) Empty() bool { return !c.Everything && c.Set.Empty() }

// overlaps reports whether a point of the hash space may lie both in the claims and in a
// partition under the given parameters (R22). Claims with another key cannot be compared
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

// equal reports whether both claims block the same partitions.
func (c Claims) equal(other Claims) bool {
	return c.Everything == other.Everything && c.Parameters == other.Parameters && c.Set.Equal(other.Set)
}

// union returns claims that cover both. Unless it can combine them exactly, they claim
// everything.
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

// A Tombstone represents a member whose Lease was deleted without having been void (R29):
// its process may still be at work. It blocks the member's claims for one lease duration.
type Tombstone struct {
	Lease  string // name of the deleted Lease
	Holder string // incarnation that held it
	Claims Claims
}

// Record is what a member keeps on its Lease.
type Record struct {
	// Member is the name under which the ring knows the member: the Pod's name.
	Member string
	// Holder is "<pod>_<incarnation>", unique to one incarnation of one process. Empty on
	// a void Lease (released or evicted), which claims nothing.
	Holder string
	// PodUID is the UID of the member's Pod, "" if unknown.
	PodUID string
	// Duration is how long peers wait for a renewal before they evict the member. Positive.
	Duration time.Duration
	Phase    Phase
	// Seq counts the member's own writes: Seq on the server is never below the Seq
	// of a confirmed write, unless the server's database was restored.
	Seq uint64
	// Fingerprint is that of the member's own ring parameters.
	Fingerprint string
	// Parameters are those that Fingerprint encodes; the zero value if this version
	// cannot compute that ring.
	Parameters ring.Parameters
	Claims     Claims
	Tombstones []Tombstone
	// Watermarks are those of the member's writes, as of its last release. The machine
	// reads those of other members; its caller adds the member's own to the records that
	// it writes.
	Watermarks Watermarks
	// EvictedBy is the holder that evicted the member; empty for a release.
	EvictedBy string
}

// Void reports whether no member holds the Lease.
func (r Record) Void() bool { return r.Holder == "" }

// Lease is a Record with the metadata of its Lease object.
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

// sameWrite reports whether both are the result of the same write. To compare the versions
// would be enough if databases were never restored.
func (l Lease) sameWrite(other Lease) bool {
	return l.Version == other.Version && l.UID == other.UID && l.Record.Holder == other.Record.Holder && l.Record.Seq == other.Record.Seq
}

// ValidVersion reports whether a resourceVersion can be compared: a positive decimal
// number of any length without leading zeros, as the API conventions promise since
// Kubernetes 1.35. Some aggregated API servers and most fakes have others.
func ValidVersion(v string) bool {
	_, err := resourceversion.CompareResourceVersion(v, v)
	return err == nil
}

// CompareVersions orders two resourceVersions that are valid, or "" for none, which is
// the lowest.
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
