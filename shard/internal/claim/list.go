// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// listing is the quorum read that a member makes between a claim and work on it (R16).
type listing struct {
	op         uint64   // 0 if none is in flight
	asked      ring.Set // claimed by a confirmed write before the list was sent
	clear      ring.Set // claimed by no other member, according to the last list
	retryAt    Time
	again      int     // lists in a row that decided nothing
	answer     []Lease // the last one, until the watch has come to answerTo
	answerTo   string
	answeredAt Time
	gone       map[string]bool // UIDs of Leases that the watch has shown to be deleted, until the first list has arrived
}

// maybeList sends a list if one is needed: a new member has to learn its peers, or there
// are claimed partitions that no other member claims, according to the watch.
func (m *Machine) maybeList() {
	if m.list.outstanding() || m.own.op != nil || m.own.version == "" || !m.now.Reached(m.list.retryAt) {
		return
	}
	asked := ring.NewSet(len(m.parts.state))
	if m.known {
		if !m.canTrustView() {
			return
		}
		pending := m.PendingWatermarks()
		for p, s := range m.parts.state {
			if s == claimed && m.parts.want.Has(p) && !m.parts.blocked.Has(p) && !m.mustWaitForCache(p, pending) {
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

// listed handles the response to ListLeases (R17, R18). The partitions that it finds
// clear become active in reconcilePartitions, if the member still wants them then.
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
		m.noteWatermarks(l)
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
		// The list does not show this member's Lease at the version that this machine
		// knows: a renewal overtook the list, or another client wrote the Lease.
		m.list.again++
		m.list.retryAt = m.now.Add(min(10*time.Millisecond<<min(m.list.again-1, 10), m.cfg.RenewPeriod/3))
		return
	}
	m.list.again = 0
	if !m.known {
		m.known, m.knownAt = true, m.now
		for _, l := range e.Leases {
			// The watch may be ahead of the list, and does not show a deletion twice.
			if m.peers[l.Name] == nil && l.Name != m.cfg.Lease && !m.list.gone[l.UID] {
				m.observe(l, true)
			}
		}
		m.list.gone = nil
		return
	}
	m.list.answer, m.list.answerTo, m.list.answeredAt = e.Leases, "", m.now
	for _, l := range e.Leases {
		if CompareVersions(l.Version, m.list.answerTo) > 0 {
			m.list.answerTo = l.Version
		}
	}
}

// discard makes the list decide nothing about partitions that were claimed again after it was
// sent: their token is that of the new claim, which the list does not show.
func (l *listing) discard(again ring.Set) {
	for p := range again.All() {
		if l.asked.Has(p) {
			l.asked.Remove(p)
		}
		if l.clear.Has(p) {
			l.clear.Remove(p)
		}
	}
}

// outstanding reports whether a list was sent and has not been judged yet.
func (l *listing) outstanding() bool { return l.op != 0 || l.answer != nil }

// judgeList finds the partitions that no other member claims (R18), as soon as the watch has
// come to the newest version in the list. This member's claim is one of them, and so the
// watch has then shown each earlier claim, also one on a Lease that was deleted before the
// list.
func (m *Machine) judgeList() {
	if m.list.answer == nil {
		return
	}
	if CompareVersions(m.watched, m.list.answerTo) < 0 {
		if m.now.since(m.list.answeredAt) >= m.cfg.RenewPeriod {
			m.list.answer = nil // too old; it is sent again when the watch is fresh
		}
		return
	}
	leases, inList := m.list.answer, map[string]bool{}
	m.list.answer = nil
	for _, l := range leases {
		inList[l.UID] = true
	}
	clear := ring.NewSet(len(m.parts.state))
	for p := range m.list.asked.All() {
		if !m.claimedByOther(p, leases, inList) {
			clear.Add(p)
		} else {
			m.stats.Contested++
			m.parts.heldSince[p] = Time{} // its owner has not published the watermarks of its release yet
		}
	}
	m.list.clear = clear
	if clear.Empty() {
		m.list.retryAt = m.now.Add(m.jitter(50 * time.Millisecond)) // the watch is about to show why
	}
}

// claimedByOther reports whether another member may work on the partition, according to
// a list. A Lease that the watch shows as held but that is missing from the list was
// deleted, and perhaps created again under the same name: until the watch shows whether
// it was void, it counts (R31). Its member may have claimed anything since the watch last
// showed it.
func (m *Machine) claimedByOther(partition int, leases []Lease, inList map[string]bool) bool {
	for i := range leases {
		l := &leases[i]
		if l.Name != m.cfg.Lease && !l.Record.Void() && l.Record.Claims.overlaps(partition, m.parts.parameters) {
			return true
		}
	}
	for _, p := range m.peers {
		r := &p.lease.Record
		mayClaim := r.Phase != PhaseDraining // a draining member claims nothing more
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
