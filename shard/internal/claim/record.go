// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"slices"
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

// under returns the partitions under the given parameters that the claims overlap. The caller
// must not change the set.
func (c Claims) under(p ring.Parameters) ring.Set {
	switch {
	case c.Empty():
		return ring.Set{}
	case c.Everything || !c.Parameters.SameKeys(p):
		return ring.FullSet(p.Partitions)
	case c.Set.Partitions() == p.Partitions:
		return c.Set
	}
	s := ring.NewSet(p.Partitions)
	for partition := range p.Partitions {
		if c.overlaps(partition, p) {
			s.Add(partition)
		}
	}
	return s
}

// equal reports whether both claims block the same partitions.
func (c Claims) equal(other Claims) bool {
	return c.Everything == other.Everything && c.Parameters == other.Parameters && c.Set.Equal(other.Set)
}

// readsAs reports whether a Lease to which these claims were written shows the others.
func (c Claims) readsAs(shown Claims) bool {
	return c.Everything && shown.Everything || c.equal(shown)
}

// MaxLeaseDuration is the longest duration that counts for a holder (R46), and so the
// longest time for which a tombstone blocks.
const MaxLeaseDuration = time.Hour

// A Tombstone represents a member whose Lease was deleted without having been void (R29):
// its process may still be at work. Without a UID it stands for several such members
// (R47).
type Tombstone struct {
	UID    string // of the deleted Lease
	Holder string // incarnation that held it
	Seq    uint64 // of the last write of the holder that was seen
	Claims Claims
	// Duration is the lease duration that counts for the holder (R46).
	Duration time.Duration
	// Remaining is for how long the tombstone still blocks, from the moment at which the
	// record with it was written.
	Remaining time.Duration
}

// Newcomer is how much a member knows of Leases that were deleted before it started (R49).
// The zero value is for one that must still wait.
type Newcomer string

const (
	// Settled: it knows of every deletion that can matter.
	Settled Newcomer = "settled"
	// Cold: no member was at work when it started.
	Cold Newcomer = "cold"
	// Alone: it is settled, and has worked on all partitions under the claims of this record.
	// So no other member can be at work while the record stands.
	Alone Newcomer = "alone"
)

// IsSettled reports whether the member knows of every deletion that can matter.
func (n Newcomer) IsSettled() bool { return n == Settled || n == Alone }

// Record is what a member keeps on its Lease.
type Record struct {
	// Member is the name under which the ring knows the member: the Pod's name.
	Member string
	// Holder is "<pod>_<incarnation>", unique to one incarnation of one process. Empty on
	// a void Lease (released or evicted), which claims nothing, and perhaps on an edited one.
	Holder string
	// PodUID is the UID of the member's Pod, "" if unknown.
	PodUID string
	// Edited is true if the record is not as a member wrote it (R32). Nothing on it counts,
	// and it claims everything.
	Edited bool
	// Duration is how long peers wait for a renewal before they evict the member; 0 if the
	// record does not show what the member has declared.
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
	// Watched is the newest resourceVersion that the member's watch has shown, "" for none.
	Watched  string
	Newcomer Newcomer
	// Longest is the longest lease duration that the member knows of, tombstones included
	// (R49).
	Longest time.Duration
	// Watermarks are those of the member's writes, as of its last release. The machine
	// reads those of other members; its caller adds the member's own to the records that
	// it writes.
	Watermarks Watermarks
	// Copied is true for a void record that was written to another Lease than this one.
	Copied bool
	// EvictedBy is the holder that evicted the member; empty for a release.
	EvictedBy string
	// Kinds are those of the objects that the member watches, "" if unknown. The machine does
	// not use them; its caller adds the member's own to the records that it writes.
	Kinds string
	// Extra is known only of the member's own Lease.
	Extra Extra
}

// Extra is what other clients have put on a member's Lease, as far as the member keeps it
// (R42). The maps and the slice are never changed.
type Extra struct {
	Labels, Annotations map[string]string
	Finalizers          []string
}

// Void reports whether no member holds the Lease, because it was released or evicted
// (R45). On any other Lease without a holder, someone has removed it.
func (r Record) Void() bool { return r.Holder == "" && !r.Edited }

// ReadsAs reports whether a Lease to which this record was written shows the other one, in
// all that other members act on (R40). Watermarks only delay them (R78). A Lease shows its
// duration in seconds, and others in milliseconds, rounded up.
func (r Record) ReadsAs(shown Record) bool {
	same := func(a, b, unit time.Duration) bool {
		up := func(d time.Duration) time.Duration { return min((d+unit-1)/unit*unit, MaxLeaseDuration) }
		return up(a) == up(b)
	}
	return !shown.Edited && r.Member == shown.Member && r.Holder == shown.Holder && r.PodUID == shown.PodUID &&
		r.Phase == shown.Phase && r.Seq == shown.Seq && r.Fingerprint == shown.Fingerprint && r.Claims.readsAs(shown.Claims) &&
		r.Watched == shown.Watched && r.Newcomer == shown.Newcomer && r.EvictedBy == shown.EvictedBy &&
		same(r.Duration, shown.Duration, time.Second) && same(r.Longest, shown.Longest, time.Millisecond) &&
		slices.EqualFunc(r.Tombstones, shown.Tombstones, func(t, u Tombstone) bool {
			return t.UID == u.UID && t.Holder == u.Holder && t.Seq == u.Seq && t.Claims.readsAs(u.Claims) &&
				same(t.Duration, u.Duration, time.Millisecond) && same(t.Remaining, u.Remaining, time.Millisecond)
		})
}

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
