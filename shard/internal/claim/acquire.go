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
	lease     Lease
	since     Time   // when it was last seen to change
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
	m.do(GetLease{Op: r.id, Timeout: m.timeout()})
}

// found handles the result of the read that acquire sent.
func (m *Machine) found(e GetResult) {
	l := e.Lease
	m.noteWatermarks(l.Record.Watermarks)
	if e.Outcome == OK {
		m.observeSameName(l)
	}
	switch {
	case e.Outcome == NotFound:
		// The Leases of this name that the watch or a read has shown may have been held
		// until they were deleted. This member gains nothing until the watch has reached
		// the new Lease and so has shown how the others ended: see
		// [Machine.resolveSameName].
		r := m.begin(opCreate)
		m.own.seq++
		r.seq, r.phase, r.tombstones = m.own.seq, PhaseJoining, m.tombGeneration
		m.do(CreateLease{Op: r.id, Record: m.record(PhaseJoining, Claims{Parameters: m.parts.parameters, Set: ring.NewSet(m.parts.parameters.Partitions)}), Timeout: m.timeout()})
	case l.Record.Holder == m.cfg.Holder:
		// A create whose response was lost. It claimed nothing.
		m.acquired(l)
		m.own.version = l.Version
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
	case m.provenDead(l.Record):
		m.evictOtherHolder(l)
	case l.UID != m.otherHolder.lease.UID || l.Version != m.otherHolder.lease.Version:
		m.otherHolder.duplicate = m.otherHolder.lease.UID == l.UID && m.otherHolder.lease.Record.Holder == l.Record.Holder
		m.otherHolder.lease, m.otherHolder.since = l, m.now
		m.otherHolder.lookAt = m.now.Add(m.jitter(m.cfg.RenewPeriod))
	case m.now.since(m.otherHolder.since) >= l.Record.Duration:
		m.evictOtherHolder(l)
	default:
		wait := min(l.Record.Duration-m.now.since(m.otherHolder.since), m.cfg.RenewPeriod)
		m.otherHolder.lookAt = m.now.Add(wait)
	}
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
	void  bool // it was seen void: its holder has stopped its work
}

// provenDead reports whether the process that wrote the record can no longer work (R3,
// R30): it is this process, whose earlier machine has ended with all its work, or one of
// the same Pod, whose lock this process holds. The name alone proves nothing: a Pod that
// was force-deleted may still run on a partitioned node.
func (m *Machine) provenDead(r Record) bool {
	return r.Holder == m.cfg.Predecessor ||
		m.cfg.TakeOver && m.cfg.PodUID != "" && r.PodUID == m.cfg.PodUID
}

// observeSameName records a Lease of this member's name as a read or the watch shows it.
// A read may be ahead of the watch. A Lease that was void is never held again.
func (m *Machine) observeSameName(l Lease) {
	r, known := l.Record, m.sameNameLeases[l.UID]
	switch {
	case r.Void():
		m.rememberEnded(known.lease.Record.Holder)
		m.sameNameLeases[l.UID] = sameNameLease{lease: l, void: true}
	case known.void || r.Holder == m.cfg.Holder:
		return
	case m.provenDead(r):
		m.rememberEnded(r.Holder)
	default:
		delete(m.expiredHolders, r.Holder) // it is alive: if it is deleted later, that counts anew
		l.Record.Duration = max(r.Duration, known.lease.Record.Duration)
		m.sameNameLeases[l.UID] = sameNameLease{lease: l}
	}
	// This process already has the tombstones of its earlier machine. Those of an evicted
	// member are older than a lease duration.
	if r.EvictedBy == "" && (r.Void() || r.Holder != m.cfg.Predecessor) {
		m.mergeTombstones(r.Tombstones)
	}
}

// rememberEnded records that a holder has ended properly: it needs no tombstone.
func (m *Machine) rememberEnded(holder string) {
	if holder == "" {
		return
	}
	if _, exists := m.tombstones[holder]; exists {
		delete(m.tombstones, holder)
		m.tombGeneration++
		m.parts.blockedDirty = true
	}
	m.expiredHolders[holder] = m.now.Add(expiredHolderMemory * m.cfg.LeaseDuration)
}

// handleDeleted handles the deletion of a Lease that the watch has shown.
func (m *Machine) handleDeleted(e LeaseDeleted) {
	if e.Last.Name != m.cfg.Lease {
		m.removePeer(e.Last)
		return
	}
	m.noteWatermarks(e.Last.Record.Watermarks)
	m.otherHolder.lookAt = Time{}
	if m.own.op == nil && e.Last.UID == m.own.uid {
		m.own.version = ""
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
// unless its holder is known to have stopped (R30). If the last state is not the final
// one, the holder may have claimed anything since.
func (m *Machine) addSameNameTombstone(last Lease, final bool) {
	known, r := m.sameNameLeases[last.UID], last.Record
	delete(m.sameNameLeases, last.UID)
	if known.void || r.Void() || m.provenDead(r) {
		return
	}
	claims := Claims{Everything: true}
	if final {
		claims = r.Claims
	}
	m.addTombstone(Tombstone{Lease: last.Name, Holder: r.Holder, Claims: claims}, max(r.Duration, known.lease.Record.Duration, m.cfg.LeaseDuration))
}
