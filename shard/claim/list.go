// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// listing is the quorum read that stands between a claim and work.
type listing struct {
	op      uint64   // 0 if none is under way
	asked   ring.Set // what was claimed by a confirmed write before it was sent
	clear   ring.Set // what the last answer showed to be claimed by nobody else
	retryAt Time
	again   int             // lists in a row that have decided nothing
	gone    map[string]bool // UIDs of Leases that the watch has shown to be gone, until the first list is there
}

// lookAround sends a list if something waits for one: a new member to know its
// peers, or claimed partitions that the watch shows to be nobody else's.
func (m *Machine) maybeList() {
	if m.list.op != 0 || m.own.op != nil || m.own.version == "" || !m.now.Reached(m.list.retryAt) {
		return
	}
	asked := ring.NewSet(len(m.parts.state))
	if m.known {
		if !m.canTrustView() {
			return
		}
		awaited := m.PendingWatermarks()
		for p, s := range m.parts.state {
			if s == claimed && m.parts.want.Has(p) && !m.parts.blocked.Has(p) && !m.mustWaitForCache(p, awaited) {
				asked.Add(p)
			}
		}
		if asked.Empty() && !m.refusedPeer() {
			return
		}
	}
	m.stats.Lists++
	m.list.op, m.list.asked = m.op(), asked
	m.do(ListLeases{Op: m.list.op, Timeout: m.timeout()})
}

// listed takes the answer to List. What is clear becomes active in place, if it
// is still wanted then.
func (m *Machine) listed(e ListResult) {
	if m.list.op != e.Op {
		return
	}
	m.list.op = 0
	if e.Outcome != OK {
		m.list.again++
		m.list.retryAt = m.now.Add(m.jitter(min(200*time.Millisecond<<min(m.list.again-1, 10), m.cfg.RenewPeriod)))
		return
	}
	inList := make(map[string]bool, len(e.Leases))
	ownVersion := ""
	for _, l := range e.Leases {
		inList[l.UID] = true
		m.noteWatermarks(l.Record.Watermarks)
		switch {
		case l.Name != m.cfg.Lease:
		case l.UID == m.own.uid:
			ownVersion = l.Version
		default:
			m.observeSameName(l)
		}
	}
	m.findDeleted(e.Op, inList)
	if ownVersion == "" || ownVersion != m.own.version {
		// The list is not of a moment at which the own Lease was as this machine
		// knows it: a renewal has passed it, or somebody else wrote.
		m.list.again++
		m.list.retryAt = m.now.Add(min(10*time.Millisecond<<min(m.list.again-1, 10), m.cfg.RenewPeriod/3))
		return
	}
	m.list.again = 0
	if !m.known {
		m.known, m.knownAt = true, m.now
		for _, l := range e.Leases {
			// The watch may be ahead of the list, and does not show an end twice.
			if m.peers[l.Name] == nil && l.Name != m.cfg.Lease && !m.list.gone[l.UID] {
				m.observe(l)
			}
		}
		m.list.gone = nil
		return
	}
	clear := ring.NewSet(len(m.parts.state))
	for p := range m.list.asked.All() {
		if !m.claimedByOther(p, e.Leases, inList) {
			clear.Add(p)
		} else {
			m.stats.Contested++
			m.parts.heldSince[p] = Time{} // whoever has it has yet to say what it wrote
		}
	}
	m.list.clear = clear
	if clear.Empty() {
		m.list.retryAt = m.now.Add(m.jitter(50 * time.Millisecond)) // the watch is about to show why
	}
}

// claimedByOther judges one partition by a list. A Lease that the watch shows as
// held but the list does not have was deleted, and perhaps made again under the
// same name: until the watch says whether it was void, it counts. Its member may have
// claimed anything since the watch showed it last.
func (m *Machine) claimedByOther(partition int, leases []Lease, inList map[string]bool) bool {
	for i := range leases {
		l := &leases[i]
		if l.Name != m.cfg.Lease && !l.Record.Void() && l.Record.Claims.overlaps(partition, m.parts.parameters) {
			return true
		}
		m.mergeTombstones(l.Record.Tombstones)
	}
	for _, p := range m.peers {
		r := &p.lease.Record
		mayClaim := r.Phase != PhaseDraining // who drains claims nothing more
		if !r.Void() && !inList[p.lease.UID] && (mayClaim || r.Claims.overlaps(partition, m.parts.parameters)) {
			return true
		}
	}
	for _, t := range m.tombstones {
		if t.Claims.overlaps(partition, m.parts.parameters) {
			return true
		}
	}
	return false
}
