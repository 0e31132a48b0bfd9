// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"cmp"
	"slices"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// peer is another member's Lease as the watch shows it.
type peer struct {
	lease Lease
	// blocks are the partitions under the parameters blocksOf that the claims blocksFor overlap.
	blocks    ring.Set
	blocksOf  ring.Parameters
	blocksFor Claims

	changedAt    Time // when its holder or seq was last seen to change, or the timers were restarted
	changeSeenAt Time // when its holder or seq was last seen to change
	op           uint64
	opVersion    string // the version that op was sent with as its condition
	retryAt      Time   // no eviction before it
	failures     int    // evictions in a row with an unknown outcome
	// suspectAt is set after a refused eviction: if the watch still shows the
	// refused version at that time, it is stale (R24).
	suspectAt      Time
	suspectVersion string
	refusedOp      uint64 // the last op at suspectAt: a list that was sent later shows whether the Lease exists
	sweepAt        Time   // when a void Lease may be deleted
	sweptLast      bool   // its deletion was sent when this member, the last one, left
	ahead          bool   // the watch may still show earlier versions
	relisted       bool   // the watch has ended a list since ahead was set
	unseen         bool   // a list has shown it, and the watch has not
	seenAfter      uint64 // op of the last request before lease was seen: those with a higher one were sent later
}

// observe handles a Lease that the watch shows. Watch events are in order, so the newest
// one always counts. Its version is not compared with earlier ones, because after a
// restore of the server's database versions continue from a lower number. Only what is older than
// a list has shown does not count: events until the watch has come to that version, and the list
// that it may be in. A later list may be that of a restored database (see [Machine.noteRestored]).
//
// A list may show it after a gap, in which there may have been other versions.
func (m *Machine) observe(l Lease, listed bool) {
	m.noteWatermarks(l)
	if l.Name == m.cfg.Lease {
		m.observeOwn(l)
		return
	}
	p := m.peers[l.Name]
	if p != nil && p.ahead && (!listed || !p.relisted) && CompareVersions(l.Version, p.lease.Version) < 0 {
		return // it was on its way when a list showed a later version
	}
	if p != nil && p.lease.UID != l.UID {
		// A list replaced a part of the watch in which the Lease was deleted and created again.
		m.removePeer(p.lease, false)
		p = nil
	}
	if p == nil {
		l = m.judgeInherited(l)
		p = &peer{changedAt: m.now, changeSeenAt: m.now, sweepAt: m.now.Add(m.cfg.LeaseDuration)}
		m.peers[l.Name] = p
		m.cameAt = m.now
		m.viewDirty, m.parts.blockedDirty = true, true
		m.noteNewcomer(l)
	} else if p.lease.sameWrite(l) {
		return
	} else {
		if p.lease.Record.Newcomer != l.Record.Newcomer || p.lease.Record.Phase != l.Record.Phase {
			m.noteNewcomer(l)
		}
		detected := p.lease.Record.Edited || l.Record.Edited
		l.Record = judge(p.lease.Record, l.Record)
		was, is := p.lease.Record, l.Record
		if is.Edited && !detected {
			m.stats.OldRecords++
		}
		if before, after := was.inForce(), is.inForce(); !before.equal(after) {
			m.parts.blockedDirty = true
			since := m.now
			if is.EvictedBy != "" {
				since = p.changeSeenAt
			}
			m.parts.left(before, after, since)
		}
		if was.Void() != is.Void() || was.Holder != is.Holder || was.Phase != is.Phase || was.Member != is.Member || was.Fingerprint != is.Fingerprint || !p.lease.Created.Equal(l.Created) {
			m.viewDirty, m.parts.blockedDirty = true, true
		}
		// Only a newer version with another holder or seq shows that the member is alive
		// (R44). An edit may hide a write of the member.
		if (changed(was, is) || listed && hidden(p.lease, l)) && CompareVersions(l.Version, p.lease.Version) >= 0 {
			p.changedAt, p.changeSeenAt = m.now, m.now
			p.sweepAt = m.now.Add(m.cfg.LeaseDuration)
		}
	}
	m.dropTombstones(l.UID) // its record counts instead
	p.lease, p.refusedOp, p.seenAfter = l, 0, m.lastOp
	if !l.Record.Edited || p.failures == 0 { // otherwise it may be what a webhook has made of this member's eviction
		p.retryAt, p.failures = Time{}, 0
	}
	m.noteServed(l.Record)
	m.adoptTombstones(l)
	m.learn(l)
}

// changed reports whether a record may show another write of a member than an earlier
// record of its Lease.
func changed(was, is Record) bool {
	return was.Holder != is.Holder || was.Seq != is.Seq || !was.Edited && is.Edited
}

// hidden reports whether there may have been a write between two versions of a Lease of which
// the later one was edited.
func hidden(was, is Lease) bool { return is.Record.Edited && was.Version != is.Version }

// judge returns what counts of a newer record on a Lease (R32, R46): of a held one that was
// edited, the last record that its holder has written, except that it claims everything. So is
// a held one to which the void record of another Lease was written.
// Only one incarnation ever holds a Lease with a certain UID, and it writes a higher seq each
// time.
func judge(was, is Record) Record {
	switch {
	case was.Void() && !is.Void():
		is.Edited, is.Claims = true, Claims{Everything: true}
	case is.Void() && (!is.Copied || was.Void()):
	case is.Edited, is.Void(), is.Holder != was.Holder && was.Duration > 0, is.Seq < was.Seq:
		is, is.Edited = was, true
		is.Claims, is.Tombstones = Claims{Everything: true}, nil
		return is
	}
	is.Duration = max(is.Duration, was.Duration)
	return is
}

// judgeInherited judges a Lease that is new to this machine by what was known of it before it
// was gone, or by what the earlier machine of this process knew of it.
func (m *Machine) judgeInherited(l Lease) Lease {
	if was, known := m.knowledge.leases[l.UID]; known {
		l.Record = judge(was.Record, l.Record)
		delete(m.knowledge.leases, l.UID)
	}
	return l
}

// counting returns the lease duration that counts for a holder that has declared the given
// one, 0 if it has declared none to this member (R46).
func (m *Machine) counting(declared time.Duration) time.Duration {
	if declared <= 0 {
		return MaxLeaseDuration
	}
	return min(max(declared, m.cfg.LeaseDuration), MaxLeaseDuration)
}

// observeOwn handles this member's own Lease as the watch shows it (R33, R42).
func (m *Machine) observeOwn(l Lease) {
	if l.Record.Holder == m.cfg.Holder && !l.Record.Edited && (m.own.uid == "" || l.UID == m.own.uid) {
		m.watchProbe.seen(l.UID, l.Record.Seq)
	}
	m.observeSameName(l)
	m.resolveSameName(l)
	if l.Record.Void() {
		m.otherHolder.lookAt = Time{}
	}
	m.own.shown, m.own.gone = l, m.own.gone && l.UID != m.own.uid
	m.followOwn()
}

// removePeer handles the end of a peer's Lease. If the Lease was held, its process may
// still be at work, so a tombstone blocks its claims for a while (R29). If last is not the
// final state, the process may have claimed anything since.
func (m *Machine) removePeer(last Lease, final bool) {
	m.noteWatermarks(last)
	m.list.ends(last.UID)
	if m.knowledge.awaited[last.UID] {
		m.noteWitness() // it has not said what it knew
	}
	delete(m.knowledge.hidden, last.UID) // its tombstone blocks everything for as long
	since := m.now
	if p := m.peers[last.Name]; p == nil || p.lease.UID != last.UID {
		last = m.judgeInherited(last)
	} else {
		was := p.lease.Record
		m.parts.left(was.inForce(), Claims{}, p.changeSeenAt)
		delete(m.peers, last.Name)
		m.viewDirty, m.parts.blockedDirty = true, true
		last.Record = judge(was, last.Record)
		if final && !changed(was, last.Record) {
			since = p.changeSeenAt // it has written nothing since (R43)
		}
	}
	m.addTombstone(last, final, since)
}

// canTrustView reports whether this member may act on its view of its peers: its own
// renewals succeed (R25) and come back through its watch (R34).
func (m *Machine) canTrustView() bool {
	return !m.own.fenced && m.own.version != "" && m.watchProbe.fresh(m.now, m.cfg.WatchLagLimit) &&
		m.now.since(m.own.confirmedAt) <= 2*m.cfg.RenewPeriod
}

// peersWhere returns the peers for which the condition holds, sorted by name: the
// order of actions is a function of the state.
func (m *Machine) peersWhere(condition func(*peer) bool) []*peer {
	var list []*peer
	for _, p := range m.peers {
		if condition(p) {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *peer) int { return cmp.Compare(a.lease.Name, b.lease.Name) })
	return list
}
