// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"maps"
	"slices"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// otherHolder is another process that holds the Lease of this member's name.
type otherHolder struct {
	lease     Lease  // its Duration is the longest that was seen
	since     Time   // when its holder or seq was last seen to change
	lookAt    Time   // when to read the Lease again
	duplicate bool   // it was seen to change: the other process is alive
	deleted   string // UID of the void Lease that this member deleted in order to create its own
}

// acquire reads the Lease of this member's name to find out whether another process
// holds it (R3). Only a quorum read is good enough: the member has no heartbeat yet that
// could prove that its watch is fresh.
func (m *Machine) acquire() {
	if !m.now.Reached(m.otherHolder.lookAt) {
		return
	}
	r := m.begin(opGet)
	m.do(m.get(r))
}

// found handles the result of the read that acquire sent.
func (m *Machine) found(e GetResult) {
	l := e.Lease
	m.noteWatermarks(l)
	if m.own.ends[l.UID] {
		return // the watch is ahead of this read, and the member reads again
	}
	if e.Outcome == OK {
		m.observeSameName(l)
		if n, held := m.sameNameLeases[l.UID]; held && !n.void && l.Record.Copied {
			l.Record = n.lease.Record // it is an edit
		}
	}
	switch {
	case e.Outcome == NotFound:
		// The Leases of this name that the watch or a read has shown may have been held
		// until they were deleted. This member gains nothing until the watch has reached
		// the new Lease and so has shown how the others ended: see
		// [Machine.resolveSameName].
		r := m.begin(opCreate)
		m.own.seq++
		r.seq, r.phase = m.own.seq, PhaseJoining
		m.do(CreateLease{Op: r.id, Record: m.record(PhaseJoining, Claims{Parameters: m.parts.parameters, Set: ring.NewSet(m.parts.parameters.Partitions)}), Timeout: m.timeout()})
	case l.Record.Holder == m.cfg.Holder:
		// A create whose response was lost. It claimed nothing.
		m.acquired(l)
		m.own.at(l)
		m.own.failures = max(m.own.failures, 1)
	case l.Record.Void():
		// Deleted and created again rather than taken over, so that the Lease's
		// creation time and owner reference are those of its holder.
		if m.otherHolder.deleted == l.UID {
			m.otherHolder.deleted = "" // still there: it has a finalizer, or another client writes to it
			m.otherHolder.lookAt = m.now.Add(m.jitter(m.cfg.RenewPeriod))
			return
		}
		m.otherHolder.deleted = l.UID
		r := m.begin(opDelete)
		m.do(DeleteLease{Op: r.id, Name: l.Name, UID: l.UID, Version: l.Version, Timeout: m.timeout()})
	case m.provenDead(l):
		m.evictOtherHolder(l)
	default:
		m.pollOtherHolder(l)
	}
}

// pollOtherHolder evicts another holder of this member's name when the Lease has shown no
// other write of it for the duration that counts for it.
func (m *Machine) pollOtherHolder(l Lease) {
	o := &m.otherHolder
	was, is := o.lease.Record, l.Record
	same := o.lease.UID == l.UID
	if same {
		l.Record.Duration = max(was.Duration, is.Duration)
	}
	if !same || changed(was, is) || hidden(o.lease, l) {
		o.duplicate = same && was.Holder == is.Holder && !is.Edited
		o.since = m.now
	}
	o.lease = l
	silent, limit := m.now.since(o.since), m.counting(l.Record.Duration)
	if silent >= limit {
		m.evictOtherHolder(l)
		return
	}
	o.lookAt = m.now.Add(min(limit-silent, m.jitter(m.cfg.RenewPeriod)))
}

func (m *Machine) evictOtherHolder(l Lease) {
	r := m.begin(opEvict)
	m.do(m.eviction(r.id, l))
}

// acquired records that this machine now holds the Lease.
func (m *Machine) acquired(l Lease) {
	m.own.uid, m.own.created = l.UID, l.Created
	m.otherHolder = otherHolder{}
	m.stage = joining
}

// sameNameLease is a Lease of this member's name that another process held when it was
// last seen, and whose end the watch has not shown.
type sameNameLease struct {
	lease Lease
	since Time // when its holder or seq was last seen to change
	void  bool // it was seen void: its holder has stopped its work
}

// provenDead reports whether the process that held the Lease can no longer work (R3,
// R30): it is this process, whose earlier machine has ended with all its work, or one of
// the same Pod, whose lock this process holds. The name alone proves nothing: a Pod that
// was force-deleted may still run on a partitioned node.
func (m *Machine) provenDead(l Lease) bool {
	return l.Record.Holder != "" && l.Record.Holder == m.cfg.Predecessor ||
		l.UID != "" && l.UID == m.knowledge.lease ||
		m.cfg.TakeOver && m.cfg.PodUID != "" && l.Record.PodUID == m.cfg.PodUID
}

// observeSameName records a Lease of this member's name as a read or the watch shows it.
// A read may be ahead of the watch. A Lease that was void is never held again.
func (m *Machine) observeSameName(l Lease) {
	if l.Record.Holder == m.cfg.Holder || l.UID == m.own.uid && m.own.uid != "" {
		return
	}
	switch {
	case l.UID == m.knowledge.lease: // of this process
	case l.Record.Void(): // see learn
	case l.Record.Newcomer == Alone && !l.Record.Edited && m.provenDead(l):
	default:
		m.noteWitness()
	}
	if l.Record.Holder == "" || l.Record.Holder != m.cfg.Predecessor { // the tombstones of the earlier machine are inherited
		m.adoptTombstones(l)
	}
	m.learn(l)
	known, seen := m.sameNameLeases[l.UID]
	if !seen {
		l = m.judgeInherited(l)
	}
	switch {
	case l.Record.Void() && !(l.Record.Copied && seen && !known.void):
		m.noteEnded(l.UID)
		m.sameNameLeases[l.UID] = sameNameLease{lease: l, void: true}
	case known.void:
	case m.provenDead(l):
		m.noteEnded(l.UID)
	default:
		since := m.now
		if seen {
			was := known.lease.Record
			if l.Record = judge(was, l.Record); !changed(was, l.Record) && !hidden(known.lease, l) {
				since = known.since
			}
		}
		m.dropTombstones(l.UID)
		m.sameNameLeases[l.UID] = sameNameLease{lease: l, since: since}
	}
}

// handleDeleted handles the deletion of a Lease that the watch has shown.
func (m *Machine) handleDeleted(e LeaseDeleted) {
	if e.Last.Name != m.cfg.Lease {
		m.removePeer(e.Last, e.Final)
		return
	}
	m.noteWatermarks(e.Last)
	m.list.ends(e.Last.UID)
	m.own.ends[e.Last.UID] = true
	m.otherHolder.lookAt = Time{}
	if e.Last.UID == m.own.uid {
		m.own.gone = true // or only the label of the ring was removed
		m.followOwn()
	}
	m.addSameNameTombstone(e.Last, e.Final)
}

// resolveSameName adds a tombstone for each Lease of this member's name that has ended
// although the watch has not shown how (R30): the watch shows another Lease instead,
// because a list replaced a part of the watch, or because the watch started after the
// deletion. If the watch shows this member's own Lease, which was created when there was
// no other, then all the others have ended.
func (m *Machine) resolveSameName(l Lease) {
	for _, uid := range slices.Sorted(maps.Keys(m.sameNameLeases)) {
		last := m.sameNameLeases[uid].lease
		if uid != l.UID && (l.Record.Holder == m.cfg.Holder || CompareVersions(last.Version, l.Version) < 0) {
			m.addSameNameTombstone(last, false)
		}
	}
}

// addSameNameTombstone adds a tombstone for a Lease of this member's name that is gone,
// unless its holder is known to have stopped (R30).
func (m *Machine) addSameNameTombstone(last Lease, final bool) {
	known, seen := m.sameNameLeases[last.UID]
	delete(m.sameNameLeases, last.UID)
	if known.void || last.Record.Holder == m.cfg.Holder || m.own.uid != "" && last.UID == m.own.uid || m.provenDead(last) {
		return
	}
	since := m.now
	if seen {
		was := known.lease.Record
		last.Record = judge(was, last.Record)
		if final && !changed(was, last.Record) {
			since = known.since
		}
	}
	m.addTombstone(last, final, since)
}
