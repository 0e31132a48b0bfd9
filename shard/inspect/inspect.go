// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package inspect reads what the members of a ring publish on their Leases. It is for
// tools that look at a ring from outside: commands, audits, tests. It sends no request.
//
// What a Lease shows is a moment in the past. A tool must never conclude from it that it
// may do the work of a member.
package inspect

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/lease"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// LabelRing is the label that names the ring to which a Lease belongs.
const LabelRing = lease.LabelRing

// ErrForeign is the error for a Lease that is not the record of a member of the ring.
var ErrForeign = lease.ErrForeign

// The phases of a member. Only active members are on the ring.
const (
	PhaseJoining  = string(claim.PhaseJoining)
	PhaseActive   = string(claim.PhaseActive)
	PhaseDraining = string(claim.PhaseDraining)
)

// Member is the record of one member, with the metadata of its Lease.
type Member struct {
	Lease   string // metadata.name
	UID     string // metadata.uid
	Version string // metadata.resourceVersion

	Pod       string        // the member's name on the ring
	Holder    string        // "<pod>_<incarnation>"; "" on a void Lease, which claims nothing
	Phase     string        // one of the phases above
	Seq       uint64        // counts the member's writes
	Duration  time.Duration // how long peers wait for a renewal before they evict the member; 0 if unknown
	EvictedBy string        // the holder that evicted the member; "" after a release

	// Parameters are the member's own ring parameters; the zero value if this version of
	// the library cannot compute that ring.
	Parameters ring.Parameters
	Claims     Claims
	Tombstones []Tombstone
	// Watched is the newest resourceVersion that the member's watch of Leases had shown.
	Watched string
	// Settled is false while the member waits until it knows of Leases that were deleted
	// before it started. Until then it works on nothing.
	Settled bool
	// Edited is true if the record is not as a member wrote it. Then it claims everything,
	// and only the fields above Phase have values, which may be wrong.
	Edited bool

	// Faults are the errors in the record, joined; nil if it is valid. Values that cannot
	// be read have the meaning that is safe for peers: claims that cannot be read claim
	// everything.
	Faults error
}

// Void reports whether no member holds the Lease.
func (m Member) Void() bool { return m.Holder == "" && !m.Edited }

// Claims are the partitions that a member may be working on.
type Claims struct {
	Everything bool     // the claims could not be read
	Set        ring.Set // otherwise
}

// Empty reports whether nothing is claimed.
func (c Claims) Empty() bool { return !c.Everything && c.Set.Empty() }

// HasPoint reports whether a point of the hash space is claimed.
func (c Claims) HasPoint(point uint64) bool {
	return c.Everything || !c.Set.Empty() && c.Set.HasPoint(point)
}

// Tombstone represents a member whose Lease was deleted while it was held. It blocks the
// partitions that the member claimed. Without a UID it represents several members.
type Tombstone struct {
	LeaseUID  string
	Holder    string
	Claims    Claims
	Duration  time.Duration // the lease duration that counts for the member
	Remaining time.Duration // for how long it blocked when the record was written
}

// Checksum returns the checksum that a member would write on the Lease, for tests and tools
// that build one. AnnotationChecksum is its place.
func Checksum(l *coordinationv1.Lease) string { return lease.Checksum(l) }

// AnnotationChecksum is the annotation with the checksum of a record.
const AnnotationChecksum = lease.AnnotationChecksum

// LeaseName returns the name of a Pod's Lease for a value of Config.LeasePrefix, whose
// default is the ring's name and "-".
func LeaseName(prefix, pod string) string { return lease.Name(prefix, pod) }

// Selector returns the label selector for the Leases of a ring.
func Selector(ringName string) string { return LabelRing + "=" + ringName }

// Decode reads the record on a Lease of the given ring. It returns [ErrForeign] for any
// other Lease.
func Decode(l *coordinationv1.Lease, ringName string) (Member, error) {
	decoded, faults, err := lease.Decode(l, ringName)
	if err != nil {
		return Member{}, err
	}
	r := decoded.Record
	m := Member{
		Lease: decoded.Name, UID: decoded.UID, Version: decoded.Version,
		Pod: r.Member, Holder: r.Holder, Phase: string(r.Phase), Seq: r.Seq, Duration: r.Duration, EvictedBy: r.EvictedBy,
		Watched: r.Watched, Settled: r.Newcomer.IsSettled(), Edited: r.Edited,
		Parameters: r.Parameters, Claims: claims(r.Claims), Faults: faults,
	}
	for _, t := range r.Tombstones {
		m.Tombstones = append(m.Tombstones, Tombstone{LeaseUID: t.UID, Holder: t.Holder, Claims: claims(t.Claims), Duration: t.Duration, Remaining: t.Remaining})
	}
	return m, nil
}

func claims(c claim.Claims) Claims { return Claims{Everything: c.Everything, Set: c.Set} }
