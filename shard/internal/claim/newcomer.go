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
	wait    time.Duration // the longest lease duration that it shows
	cold    bool          // it shows no member at work
	// partial says that the dead process whose place this one takes claimed only a part:
	// other members may have been at work.
	partial bool
	awaited map[string]bool
	// peers are the Leases of other members, by UID, as the earlier machine judged them (R32): an
	// old record must not count for this one either.
	peers map[string]Record
	// awaited has, of a cold one, the UIDs of the joining members in that list whose records
	// it has to read.
}

// Knowledge returns the knowledge for the machine that follows this one.
func (m *Machine) Knowledge() Knowledge {
	k := m.knowledge
	k.awaited = maps.Clone(k.awaited)
	k.lease = cmp.Or(m.own.uid, k.lease)
	k.peers = make(map[string]Record, len(m.peers))
	for _, p := range m.peers {
		if m.wentBack {
			break // records with a lower seq are no edits
		}
		k.peers[p.lease.UID] = p.lease.Record
	}
	return k
}

// newcomer returns what this member publishes of its knowledge.
func (m *Machine) newcomer() Newcomer {
	switch {
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
	k := &m.knowledge
	if !e.Listed || k.settled || k.listed != "" {
		return
	}
	k.listed, k.at, k.wait = e.Version, m.now, m.longest()
	k.cold, k.awaited = !m.cfg.Quarantine && !k.partial, map[string]bool{}
	for _, p := range m.peers {
		switch r := p.lease.Record; {
		case r.Void():
			k.wait = max(k.wait, r.Longest)
		case r.Phase == PhaseJoining:
			k.awaited[p.lease.UID] = true
		default:
			k.cold = false
		}
	}
	for _, n := range m.sameNameLeases {
		k.cold = k.cold && n.void // another process of this member's name is not proven dead
	}
	for _, p := range m.peers {
		m.learn(p.lease)
	}
}

// notePredecessor handles the record of a dead process whose place this one takes. If it was
// at work and did not claim everything, this is no cold start: another member may have been
// at work whose Lease was deleted.
func (m *Machine) notePredecessor(r Record) {
	all := !r.Edited && !r.Claims.Everything && r.Claims.Set.Len() == r.Claims.Set.Partitions() && !r.Claims.Empty()
	if k := &m.knowledge; r.Phase != PhaseJoining && !all || r.Edited {
		k.partial, k.cold = true, false
	}
}

// learn handles a record that may make a newcomer settled: one that a settled member has
// written after its watch had come to the newcomer's first list. Of a cold start, those of all
// members that start at the same time count, too.
func (m *Machine) learn(l Lease) {
	k, r := &m.knowledge, l.Record
	if k.settled || k.listed == "" {
		return
	}
	if r.EvictedBy != "" {
		delete(k.awaited, l.UID)
	}
	if r.Edited || r.EvictedBy != "" || CompareVersions(r.Watched, k.listed) < 0 {
		return
	}
	switch {
	case r.Newcomer == Settled:
		m.adoptTombstones(l)
		m.settle()
	case r.Newcomer == Cold && k.awaited[l.UID]:
		m.adoptTombstones(l)
		delete(k.awaited, l.UID)
	}
}

// updateKnowledge makes a newcomer settled that has to wait for nothing more.
func (m *Machine) updateKnowledge() {
	k := &m.knowledge
	if k.settled || k.listed == "" {
		return
	}
	if k.cold && len(k.awaited) == 0 || m.now.since(k.at) >= k.wait && m.canTrustView() {
		m.settle()
	}
}

func (m *Machine) settle() {
	m.knowledge = Knowledge{lease: m.knowledge.lease, settled: true, peers: m.knowledge.peers}
	m.ended = nil
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
	if r.Void() || r.Edited || r.Newcomer == Settled {
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
	if m.knowledge.settled && r.Newcomer == Settled && !r.Edited && r.EvictedBy == "" && CompareVersions(r.Watched, n.version) >= 0 {
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
	return mine != m.own.newcomer ||
		mine != "" && n.version != "" && m.now.Reached(n.due) && CompareVersions(m.watched, n.version) >= 0
}
