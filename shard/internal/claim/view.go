// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"cmp"
	"slices"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// minRebuild is the minimum time between a new ring and the request for the next one. When many
// members join or leave at once, each change arrives as an event of its own.
const minRebuild = 100 * time.Millisecond

// placement is what a ring is computed from, and what else follows from the same Leases.
type placement struct {
	inForce      ring.Parameters // the parameters in force
	inForceLease string          // the Lease that they are from, if they are not this member's own parameters
	incompatible bool            // those are for another key: this member wants nothing
	parameters   ring.Parameters // of the ring
	members      []string        // on the ring: sorted, unique
	offRing      int             // active members for which the ring has no room
	crowdedOut   bool            // this member is one of them
}

// building is the ring that this machine has requested. There is at most one such request, so
// that a caller who needs long for a ring is not asked for many. A result is used although the
// Leases have changed since: another request follows, and if members come and go all the time,
// this member still gets rings.
type building struct {
	op        uint64 // 0 if none is requested
	sent      Time
	placement placement
	next      Time // no other request before this time; zero for none
}

// updateView requests a ring when the Leases have changed: at once for the first change, and
// later for all changes that followed. Until the ring is there, this member wants the same
// partitions as before; which partitions others claim is always current. A change that does
// not affect the ring costs nothing.
func (m *Machine) updateView() {
	if m.viewDirty {
		m.viewDirty, m.changedAt, m.ringDirty = false, m.now, true
	}
	b := &m.building
	if !m.ringDirty || b.op != 0 || !m.now.Reached(b.next) {
		return
	}
	m.ringDirty = false
	p := m.placement()
	if p.parameters == m.view.Parameters() && slices.Equal(p.members, m.view.Members()) {
		m.placed = p
		return
	}
	b.op, b.sent, b.placement = m.op(), m.now, p
	m.do(BuildRing{Op: b.op, Parameters: p.parameters, Members: p.members})
}

// ringBuilt handles the response to BuildRing. The next request waits at least as long as this
// one took, so that a ring that takes seconds does not keep a CPU busy.
func (m *Machine) ringBuilt(e RingBuilt) {
	b := &m.building
	if b.op == 0 || b.op != e.Op || e.Ring == nil {
		return
	}
	b.op, b.next = 0, m.now.Add(max(minRebuild, m.now.since(b.sent)))
	m.placed, m.view = b.placement, e.Ring
	m.rank = slices.Index(m.view.Members(), m.cfg.Member)
}

// placement determines the parameters in force and the members on the ring.
func (m *Machine) placement() placement {
	type held struct {
		name    string
		created time.Time
		record  *Record
	}
	var all []held
	if m.own.phase == PhaseActive || m.own.phase == PhaseDraining {
		all = append(all, held{m.cfg.Lease, m.own.created, &Record{Member: m.cfg.Member, Phase: m.phase(), Parameters: m.cfg.Parameters, Fingerprint: m.cfg.Parameters.Fingerprint()}})
	}
	for _, p := range m.peers {
		if !p.lease.Record.Void() && p.lease.Record.Phase != PhaseJoining {
			all = append(all, held{p.lease.Name, p.lease.Created, &p.lease.Record})
		}
	}
	// The parameters in force are those of the oldest held Lease, by the server's clock,
	// so that in a rolling update all members switch at the same point.
	slices.SortFunc(all, func(a, b held) int {
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.name, b.name))
	})
	p := placement{inForce: m.cfg.Parameters}
	// Parameters that cannot be read or are not valid never count (R48).
	if oldest := slices.IndexFunc(all, func(h held) bool { return h.record.Parameters.Validate() == nil }); oldest >= 0 {
		if p.inForce = all[oldest].record.Parameters; p.inForce != m.cfg.Parameters {
			p.inForceLease = all[oldest].name
		}
		p.incompatible = !p.inForce.SameKeys(m.cfg.Parameters)
	}
	if p.parameters = p.inForce; p.incompatible {
		p.parameters = m.cfg.Parameters
		return p
	}
	seen := map[string]bool{}
	for _, h := range all {
		// A member with another key cannot apply the parameters in force and claims
		// nothing until they change: on the ring, its partitions would stay unowned.
		if h.record.Phase != PhaseActive || !h.record.Parameters.SameKeys(p.inForce) || seen[h.record.Member] {
			continue
		}
		seen[h.record.Member] = true
		if len(p.members) < ring.MaxMembers { // the oldest, in an order that is the same for all members (R90)
			p.members = append(p.members, h.record.Member)
			continue
		}
		p.offRing++
		p.crowdedOut = p.crowdedOut || h.record.Member == m.cfg.Member
	}
	slices.Sort(p.members)
	return p
}
