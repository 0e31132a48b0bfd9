// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"cmp"
	"slices"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// minRebuild is the minimum time between two computations of the ring. With many members
// one takes milliseconds, and when many join or leave at once, each change arrives as an
// event of its own.
const minRebuild = 100 * time.Millisecond

// updateView updates the view and the ring from the Leases: at once for the first change,
// and after minRebuild for all changes that followed. Until then this member wants the same
// partitions as before; which partitions others claim is always current. A change that does
// not affect the ring costs nothing.
func (m *Machine) updateView() {
	if m.viewDirty {
		m.viewDirty, m.changedAt, m.ringDirty = false, m.now, true
	}
	if !m.ringDirty {
		return
	}
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
	inForce, inForceLease, incompatible := m.cfg.Parameters, "", false
	// Parameters that cannot be read or are not valid never count (R48).
	if oldest := slices.IndexFunc(all, func(h held) bool { return h.record.Parameters.Validate() == nil }); oldest >= 0 {
		if inForce = all[oldest].record.Parameters; inForce != m.cfg.Parameters {
			inForceLease = all[oldest].name
		}
		incompatible = !inForce.SameKeys(m.cfg.Parameters)
	}
	parameters := inForce
	var members []string
	if incompatible {
		parameters = m.cfg.Parameters
	} else {
		for _, h := range all {
			// A member with another key cannot apply the parameters in force and claims
			// nothing until they change: on the ring, its partitions would stay unowned.
			if h.record.Phase == PhaseActive && h.record.Parameters.SameKeys(inForce) {
				members = append(members, h.record.Member)
			}
		}
		slices.Sort(members)
		members = slices.Compact(members)
	}
	same := inForce == m.inForce && incompatible == m.incompatible && parameters == m.view.Parameters() && slices.Equal(members, m.view.Members())
	if !same && m.rebuilt != (Time{}) && m.now.since(m.rebuilt) < minRebuild {
		return
	}
	m.ringDirty, m.inForce, m.inForceLease, m.incompatible = false, inForce, inForceLease, incompatible
	if same {
		return
	}
	m.rebuilt = m.now
	if next, err := ring.New(parameters, members); err == nil {
		m.view = next
	}
	m.rank, _ = slices.BinarySearch(m.view.Members(), m.cfg.Member)
}
