// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"cmp"
	"maps"
	"time"
)

// Knowledge is what a machine knows of Leases that were deleted before it started (R49), and
// which Lease it has held. A new machine of the same process inherits it, because it has the
// same watch.
type Knowledge struct {
	lease   string        // UID of the Lease that the process has held, "" for none
	settled bool          // it knows of every deletion that can matter
	listed  string        // version of the first list of the watch, "" before it
	at      Time          // when that list arrived
	wait    time.Duration // the longest lease duration that others know of
	cold    bool          // nothing shows that a member has been at work
	witness bool          // something does: that list, or a process before this one
	// hidden has the UIDs of the Leases in that list whose records were edited: they may hide a
	// longer duration. They are not changed after that list, except that they are removed.
	hidden map[string]bool
	// awaited has the UIDs of the joining members in that list whose records a cold one has to
	// read.
	awaited map[string]bool
	// leases are the last states, with their records as they were judged, of Leases that are gone
	// and still block, and of those that the earlier machine saw, by UID (R32): if such a Lease
	// shows an old record, it must not count.
	leases map[string]Lease
}

func (k Knowledge) clone() Knowledge {
	k.awaited, k.hidden, k.leases = cloned(k.awaited), cloned(k.hidden), cloned(k.leases)
	return k
}

func cloned[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return maps.Clone(m)
}

// Knowledge returns the knowledge for the machine that follows this one.
func (m *Machine) Knowledge() Knowledge {
	k := m.knowledge.clone()
	k.lease = cmp.Or(m.own.uid, k.lease)
	for _, p := range m.peers {
		if p.unseen {
			delete(k.hidden, p.lease.UID) // its tombstone counts: see [Machine.Tombstones]
		}
	}
	if m.wentBack {
		clear(k.leases) // records with a lower seq are no edits
		return k
	}
	for _, p := range m.peers {
		k.leases[p.lease.UID] = p.lease
	}
	for uid, n := range m.sameNameLeases {
		if !n.void {
			k.leases[uid] = n.lease
		}
	}
	return k
}

// newcomer returns what this member publishes of its knowledge.
func (m *Machine) newcomer() Newcomer {
	switch {
	case m.knowledge.settled && m.parts.allWorkedOn():
		return Alone
	case m.knowledge.settled:
		return Settled
	case m.knowledge.cold:
		return Cold
	}
	return ""
}

// progress handles how far the watch has come. A newcomer's first list is the one from which
// its watch starts, and never its CREATE: the watch shows every deletion after it.
func (m *Machine) progress(e WatchProgress) {
	m.watched = e.Version
	if !e.Listed {
		return
	}
	k := &m.knowledge
	for _, p := range m.peers {
		m.noteFirst(p.lease) // a quorum list may have shown more
	}
	for _, p := range m.peersWhere(func(p *peer) bool { return p.unseen && CompareVersions(p.lease.Version, e.Version) <= 0 }) {
		m.removePeer(p.lease, false) // the watch was behind it and has shown neither it nor its end
	}
	for _, p := range m.peers {
		p.relisted = true
	}
	if k.settled || k.listed != "" {
		return
	}
	k.listed, k.at = e.Version, m.now
	k.cold = !m.cfg.Quarantine && !k.witness
	for _, p := range m.peers {
		m.learn(p.lease)
	}
}

// noteFirst handles a peer's Lease in a newcomer's first list: as this list shows it, also if a
// quorum list that was sent later has shown that its member has left since.
func (m *Machine) noteFirst(l Lease) {
	k, r := &m.knowledge, l.Record
	if k.settled || k.listed != "" || l.Name == m.cfg.Lease {
		return
	}
	switch {
	case r.Edited:
		k.hidden[l.UID] = true
		m.noteWitness()
	case r.Void():
	case r.Phase == PhaseJoining:
		k.awaited[l.UID] = true
	default:
		m.noteWitness()
	}
	m.learn(l)
}

// noteWitness records that this is no cold start: an earlier process of this member's name, or a
// member that the first list shows, has been at work, perhaps together with others whose Leases were
// deleted. A member that was released may have left before its watch has shown that.
func (m *Machine) noteWitness() { m.knowledge.witness, m.knowledge.cold = true, false }

// learn handles a record that may make a newcomer settled: one that a settled member has
// written after its watch had come to the newcomer's first list. Of a cold start, those of all
// members that start at the same time count, too.
func (m *Machine) learn(l Lease) {
	k, r := &m.knowledge, l.Record
	if k.settled || r.Edited {
		return
	}
	delete(k.hidden, l.UID)
	k.wait = max(k.wait, r.Longest)
	if k.listed == "" {
		if r.Void() && r.EvictedBy != m.cfg.Holder {
			m.noteWitness()
		}
		return
	}
	// A member knows no later version than that of its own write: a record that says so was
	// written to another server, or edited.
	says := r.EvictedBy == "" && CompareVersions(r.Watched, k.listed) >= 0 && CompareVersions(r.Watched, l.Version) <= 0
	switch {
	case says && r.Newcomer.IsSettled():
		m.settle() // the tombstones of that record were adopted
	case says && r.Newcomer == Cold:
		delete(k.awaited, l.UID)
	case r.Void() && k.awaited[l.UID]:
		m.noteWitness() // it has left, or was evicted, and has not said what it knew
	}
}

// updateKnowledge makes a newcomer settled that has to wait for nothing more.
func (m *Machine) updateKnowledge() {
	k := &m.knowledge
	if k.settled || k.listed == "" {
		return
	}
	if k.cold && len(k.awaited) == 0 || len(k.hidden) == 0 && m.now.since(k.at) >= m.longest() && m.canTrustView() {
		m.settle()
	}
}

func (m *Machine) settle() {
	m.knowledge = Knowledge{lease: m.knowledge.lease, settled: true, leases: m.knowledge.leases}
	m.ended, m.lapsed = nil, nil
}

// mayBecomeActive reports whether this member may publish that it is active. Until a cold
// start has ended, no member is at work: each of them must see the others as joining.
func (m *Machine) mayBecomeActive() bool {
	k := &m.knowledge
	return k.settled || k.listed != "" && !k.cold
}

// newcomerSeen is the last newcomer that the watch has shown. The newcomer waits for a record
// whose writer's watch has come that far.
type newcomerSeen struct {
	version string // of its Lease, "" for none
	due     Time   // when this member writes such a record
}

// noteNewcomer makes this member write soon after its watch has shown a newcomer. A newcomer
// needs the record of one settled member only, and so the settled members take turns: a fleet
// would otherwise write as many records as it has members for each of them. In a cold start it
// needs those of all others. Either way, one write serves all newcomers that have come within
// Coalesce.
func (m *Machine) noteNewcomer(l Lease) {
	r, n := l.Record, &m.newcomerSeen
	if r.Void() || r.Edited || r.Newcomer.IsSettled() {
		return
	}
	due := m.now.Add(m.cfg.Coalesce)
	if m.knowledge.settled {
		due = due.Add(turn(m.cfg.Lease, l.Name, m.alive()()))
	}
	if n.version == "" || due.Mono < n.due.Mono {
		n.due = due
	}
	n.version = l.Version
}

// noteServed notes that the newcomer need not wait for this member, because another settled
// one has written what it waits for.
func (m *Machine) noteServed(r Record) {
	n := &m.newcomerSeen
	if m.knowledge.settled && r.Newcomer.IsSettled() && !r.Edited && r.EvictedBy == "" && CompareVersions(r.Watched, n.version) >= 0 {
		n.version = ""
	}
}

// newcomerDue reports whether a write is due because a newcomer waits for it, or because this
// member itself is another kind of newcomer than it has published.
func (m *Machine) newcomerDue() bool {
	mine, n := m.newcomer(), &m.newcomerSeen
	if n.version != "" && CompareVersions(m.own.watched, n.version) >= 0 {
		n.version = "" // a write has been sent
	}
	return mine != m.own.newcomer && !(mine.IsSettled() && m.own.newcomer.IsSettled()) ||
		mine != "" && n.version != "" && m.now.Reached(n.due) && CompareVersions(m.watched, n.version) >= 0
}
