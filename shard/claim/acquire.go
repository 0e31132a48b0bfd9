// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import "github.com/tom-ludwig/operator-scaling/shard/ring"

// rival is another process that holds the Lease of this member's name.
type rival struct {
	lease     Lease
	since     Time   // when it was last seen to change
	lookAt    Time   // when to look again
	duplicate bool   // it was seen to change: it is alive
	deleted   string // UID of the void Lease that was deleted to make room
}

// acquire looks who holds the Lease of this name. Only a quorum read will do: the
// member has no heartbeat yet that could prove its watch.
func (m *Machine) acquire() {
	if !m.now.Reached(m.rival.lookAt) {
		return
	}
	r := m.begin(opGet)
	m.do(Get{Op: r.id, Timeout: m.timeout()})
}

// found goes on from what acquire saw.
func (m *Machine) found(e Got) {
	l := e.Lease
	m.publish(l.Record.Marks)
	switch {
	case e.Outcome == NotFound:
		r := m.begin(opCreate)
		m.own.seq++
		r.seq, r.phase, r.tombs = m.own.seq, Joining, m.tombGeneration
		m.do(Create{Op: r.id, Record: m.record(Joining, Claims{Parameters: m.parts.parameters, Set: ring.NewSet(m.parts.parameters.Partitions)}), Timeout: m.timeout()})
	case l.Record.Holder == m.cfg.Holder:
		// A create whose answer was lost. Nothing was claimed by it.
		m.hold(l)
		m.own.version = l.Version
		m.own.failures = max(m.own.failures, 1)
	case l.Record.Void():
		// Deleted and created again rather than taken over, so that the Lease's
		// creation time and owner reference are those of its holder.
		if m.rival.deleted == l.UID {
			m.rival.deleted = "" // still there: somebody's finalizer, or somebody writes to it
			m.rival.lookAt = m.now.Add(m.jitter(m.cfg.RenewPeriod))
			return
		}
		m.rival.deleted = l.UID
		r := m.begin(opDelete)
		m.do(Delete{Op: r.id, Name: l.Name, UID: l.UID, Version: l.Version, Timeout: m.timeout()})
	case l.Record.Holder == m.cfg.Predecessor,
		m.cfg.TakeOver && m.cfg.PodUID != "" && l.Record.PodUID == m.cfg.PodUID:
		m.evictRival(l)
	case l.UID != m.rival.lease.UID || l.Version != m.rival.lease.Version:
		m.rival.duplicate = m.rival.lease.UID == l.UID && m.rival.lease.Record.Holder == l.Record.Holder
		m.rival.lease, m.rival.since = l, m.now
		m.rival.lookAt = m.now.Add(m.jitter(m.cfg.RenewPeriod))
	case m.now.since(m.rival.since) >= l.Record.Duration:
		m.evictRival(l)
	default:
		wait := min(l.Record.Duration-m.now.since(m.rival.since), m.cfg.RenewPeriod)
		m.rival.lookAt = m.now.Add(wait)
	}
}

func (m *Machine) evictRival(l Lease) {
	r := m.begin(opEvict)
	m.do(Evict{Op: r.id, Name: l.Name, UID: l.UID, Version: l.Version, Timeout: m.timeout()})
}

// hold notes that the Lease is this machine's now.
func (m *Machine) hold(l Lease) {
	m.own.uid, m.own.created = l.UID, l.Created
	m.rival = rival{}
	m.stage = joining
}
