// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// expiredHolderMemory is for how many lease durations a member remembers that a holder
// has ended or that its tombstone has expired, so that it does not adopt that tombstone
// from members that learn of the end later.
const expiredHolderMemory = 20

// tombstone is a Tombstone with its expiry time.
type tombstone struct {
	Tombstone
	until Time
}

// addTombstoneOf adds a tombstone for a Lease that is gone, unless it was void.
func (m *Machine) addTombstoneOf(last Lease) {
	if r := last.Record; !r.Void() {
		m.addTombstone(Tombstone{Lease: last.Name, Holder: r.Holder, Claims: r.Claims}, max(r.Duration, m.cfg.LeaseDuration))
	}
}

// mergeTombstones adopts the tombstones that a peer publishes.
func (m *Machine) mergeTombstones(tombstones []Tombstone) {
	for _, t := range tombstones {
		m.addTombstone(t, m.cfg.LeaseDuration)
	}
}

// addTombstone blocks the claims of a member whose Lease is gone for the given duration
// from now (R29), once for each holder: otherwise members would keep a tombstone alive by
// adopting it from each other. Members may have seen different last claims: all of them
// count.
func (m *Machine) addTombstone(t Tombstone, duration time.Duration) {
	if t.Claims.Empty() || t.Holder == m.cfg.Holder || t.Holder == m.cfg.Predecessor {
		return
	}
	if known, exists := m.tombstones[t.Holder]; exists {
		if t.Claims = known.Claims.union(t.Claims); t.Claims.equal(known.Claims) {
			return
		}
	}
	if _, over := m.expiredHolders[t.Holder]; over {
		return
	}
	m.tombstones[t.Holder] = tombstone{Tombstone: t, until: m.now.Add(duration)}
	m.tombGeneration++
	m.parts.blockedDirty = true
}

// expireTombstones drops the tombstones that have expired by the monotonic clock: a jump
// of the wall clock must not shorten their time.
func (m *Machine) expireTombstones() {
	for holder, t := range m.tombstones {
		if m.now.Mono >= t.until.Mono {
			delete(m.tombstones, holder)
			m.expiredHolders[holder] = m.now.Add(expiredHolderMemory * m.cfg.LeaseDuration)
			m.tombGeneration++
			m.parts.blockedDirty = true
		}
	}
	for holder, until := range m.expiredHolders {
		if m.now.Mono >= until.Mono {
			delete(m.expiredHolders, holder)
		}
	}
}

// tombstoneList returns the tombstones in force, sorted by holder.
func (m *Machine) tombstoneList() []Tombstone {
	var list []Tombstone
	for _, t := range m.tombstones {
		list = append(list, t.Tombstone)
	}
	slices.SortFunc(list, func(a, b Tombstone) int { return cmp.Compare(a.Holder, b.Holder) })
	return list
}

// Tombstones returns the tombstones for the machine that follows this one: those in force,
// and one for each other Lease of this member's name whose end this machine has not seen,
// because perhaps only a read has shown that Lease.
func (m *Machine) Tombstones() []Tombstone {
	list := m.tombstoneList()
	for _, uid := range slices.Sorted(maps.Keys(m.sameNameLeases)) {
		if n := m.sameNameLeases[uid]; !n.void {
			list = append(list, Tombstone{Lease: n.lease.Name, Holder: n.lease.Record.Holder, Claims: Claims{Everything: true}})
		}
	}
	return list
}
