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
	seq        uint64   // of the last confirmed write when the list was sent
	asked      ring.Set // claimed by a confirmed write before the list was sent
	clear      ring.Set // claimed by no other member, according to the last list
	retryAt    Time
	again      int     // lists in a row that decided nothing
	contested  int     // lists in a row that showed other members' claims on all partitions
	answer     []Lease // the last one, until the watch has come to answerTo
	answerTo   string
	answeredAt Time
	gone       map[string]bool // UIDs of Leases of which the watch has shown the end since the list was sent
}

// maybeList sends a list if one is needed: a new member has to learn its peers, or there
// are claimed partitions that no other member claims, according to the watch.
func (m *Machine) maybeList() {
	if m.list.outstanding() || m.own.version == "" || !m.now.Reached(m.list.retryAt) {
		return
	}
	asked := ring.NewSet(len(m.parts.state))
	if m.known {
		if !m.canTrustView() {
			return
		}
		pending := m.PendingWatermarks()
		for p, s := range m.parts.state {
			if s == claimed && !m.parts.oldToken.Has(p) && m.parts.want.Has(p) && !m.parts.blocked.Has(p) && !m.mustWaitForCache(p, pending) {
				asked.Add(p)
			}
		}
		if asked.Empty() && !m.refusedPeer() {
			return
		}
	}
	m.stats.Lists++
	m.list.op, m.list.asked, m.list.seq, m.list.gone = m.op(), asked, m.own.confirmedSeq, map[string]bool{}
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
		wait := m.jitter(min(200*time.Millisecond<<min(m.list.again-1, 10), m.cfg.RenewPeriod))
		m.list.retryAt = m.now.Add(max(wait, min(e.RetryAfter, m.cfg.RenewPeriod)))
		return
	}
	inList := make(map[string]bool, len(e.Leases))
	showsClaims := false
	for _, l := range e.Leases {
		inList[l.UID] = true
		m.noteWatermarks(l)
		switch {
		case l.Name != m.cfg.Lease:
			m.noteListed(l)
		case l.UID == m.own.uid:
			showsClaims = m.showsClaims(l.Record)
		case !m.list.gone[l.UID]:
			m.observeSameName(l)
		}
	}
	m.findDeleted(e.Op, inList)
	if !showsClaims { // another client wrote the Lease, or this list is an old one (R17)
		m.list.again++
		m.list.retryAt = m.now.Add(min(10*time.Millisecond<<min(m.list.again-1, 10), m.cfg.RenewPeriod/3))
		return
	}
	m.list.again = 0
	for _, l := range e.Leases {
		m.noteRestored(e.Op, l)
	}
	if !m.known {
		m.known, m.knownAt = true, m.now
		return
	}
	if m.list.asked.Empty() {
		return // it was sent to find out whether Leases still exist (R24), and need not wait for the watch
	}
	m.list.answer, m.list.answerTo, m.list.answeredAt = e.Leases, "", m.now
	for _, l := range e.Leases {
		if CompareVersions(l.Version, m.list.answerTo) > 0 {
			m.list.answerTo = l.Version
		}
	}
}

// noteListed handles a peer's Lease in a list that the watch has not shown (R29): the watch may
// never do so, if it lists after the end of the Lease. The watch may also be ahead of the list,
// and does not show an end twice.
func (m *Machine) noteListed(l Lease) {
	p := m.peers[l.Name]
	switch {
	case m.list.gone[l.UID] || p != nil && p.lease.UID == l.UID:
	case CompareVersions(m.watched, l.Version) >= 0, p != nil && CompareVersions(p.lease.Version, l.Version) >= 0:
		m.removePeer(l, false) // the watch started, or listed again, after its end
	default:
		m.observe(l, true)
		m.peers[l.Name].ahead, m.peers[l.Name].unseen = true, true
	}
}

// noteRestored handles a peer's Lease in a quorum list that was sent as the given op. If it is older
// than what this member had seen before, the server's database was restored. The watch may have
// shown it in a list that it treated as one on its way (see [Machine.observe]): it does not show
// it twice.
func (m *Machine) noteRestored(op uint64, l Lease) {
	p := m.peers[l.Name]
	if p == nil || !p.ahead || op <= p.seenAfter || CompareVersions(l.Version, p.lease.Version) >= 0 {
		return
	}
	unseen := p.unseen || p.lease.UID != l.UID
	p.ahead = false
	m.observe(l, true)
	p = m.peers[l.Name]
	p.ahead, p.relisted, p.unseen = true, false, unseen
}

// showsClaims reports whether the record, of this member's Lease in a list, shows the writes
// that were confirmed before the list was sent, and claims what the list was sent for (R17).
// It may also show a later write, of which the outcome is not known yet.
func (m *Machine) showsClaims(r Record) bool {
	if r.Holder != m.cfg.Holder || r.Edited || r.Seq < m.list.seq {
		return false
	}
	for p := range m.list.asked.All() {
		if !r.Claims.overlaps(p, m.parts.parameters) {
			return false
		}
	}
	return true
}

// discard makes the list decide nothing about partitions whose claims became unsure after it
// was sent: they will be claimed again, which the list does not show.
func (l *listing) discard(unsure ring.Set) {
	for p := range unsure.All() {
		if l.asked.Has(p) {
			l.asked.Remove(p)
		}
		if l.clear.Has(p) {
			l.clear.Remove(p)
		}
	}
}

// ends handles the end of a Lease: the list in flight may be older.
func (l *listing) ends(uid string) {
	if l.op != 0 {
		l.gone[uid] = true
	}
}

// outstanding reports whether a list was sent and has not been judged yet.
func (l *listing) outstanding() bool { return l.op != 0 || l.answer != nil }

// judgeList finds the partitions that no other member claims (R18), as soon as the watch has
// come to the newest version in the list. This member's claim is one of them, and so the
// watch has then shown each earlier claim, also one on a Lease that was deleted before the
// list. A watch that lags by a renew period is restarted. The answer is kept: to a list that
// is sent again, the new watch could be late, too.
func (m *Machine) judgeList() {
	if m.list.answer == nil {
		return
	}
	if CompareVersions(m.watched, m.list.answerTo) < 0 {
		if m.now.since(m.list.answeredAt) >= m.cfg.RenewPeriod {
			m.list.answeredAt = m.now
			if m.watchProbe.relists == 0 { // otherwise guardWatch repeats it, and gives up in the end
				m.relist()
			}
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
	if !clear.Empty() {
		m.list.contested = 0
	} else { // the watch is about to show why
		m.list.contested++
		m.list.retryAt = m.now.Add(m.jitter(min(50*time.Millisecond<<min(m.list.contested-1, 10), m.cfg.RenewPeriod/3)))
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
