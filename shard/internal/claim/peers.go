// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"cmp"
	"slices"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// peer is another member's Lease as the watch shows it.
type peer struct {
	lease        Lease
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
}

// observe handles a Lease that the watch shows. Watch events are in order, so the newest
// one always counts. Its version is not compared with earlier ones, because after a
// restore of the server's database versions continue from a lower number.
func (m *Machine) observe(l Lease) {
	m.noteWatermarks(l.Record.Watermarks)
	if l.Name == m.cfg.Lease {
		m.observeOwn(l)
		return
	}
	m.mergeTombstones(l.Record.Tombstones)
	p := m.peers[l.Name]
	if p == nil {
		p = &peer{}
		m.peers[l.Name] = p
		m.viewDirty, m.parts.blockedDirty = true, true
	} else if p.lease.sameWrite(l) {
		return
	} else {
		was, is := p.lease.Record, l.Record
		switch {
		case p.lease.UID != l.UID:
			// A list replaced a part of the watch in which the Lease was deleted and
			// created again.
			m.addTombstoneOf(p.lease)
		case is.Void() && !was.Void():
			// It ended properly. Members that missed that may publish a tombstone for it.
			delete(m.tombstones, was.Holder)
			m.expiredHolders[was.Holder] = m.now.Add(expiredHolderMemory * m.cfg.LeaseDuration)
		case was.Holder == is.Holder && is.Parameters == (ring.Parameters{}):
			// An incarnation never changes its parameters. Another client has removed
			// them; the fleet must not drain because of that.
			l.Record.Fingerprint, l.Record.Parameters = was.Fingerprint, was.Parameters
			is = l.Record
		}
		if before, after := was.inForce(), is.inForce(); !before.equal(after) {
			since := m.now
			if is.EvictedBy != "" {
				since = p.changeSeenAt
			}
			m.parts.left(before, after, since)
		}
		if was.Holder != is.Holder || was.Phase != is.Phase || was.Member != is.Member || was.Fingerprint != is.Fingerprint || !p.lease.Created.Equal(l.Created) {
			m.viewDirty, m.parts.blockedDirty = true, true
		} else if !was.Claims.equal(is.Claims) {
			m.parts.blockedDirty = true
		}
	}
	if !l.Record.Void() {
		delete(m.expiredHolders, l.Record.Holder) // it is alive: if it is deleted later, that counts anew
	}
	// Each write of a member has a new seq, and each incarnation has a new holder. Other
	// changes were made by other clients and do not show that the member is alive.
	if p.lease.UID != l.UID || p.lease.Record.Holder != l.Record.Holder || p.lease.Record.Seq != l.Record.Seq {
		p.changedAt, p.changeSeenAt = m.now, m.now
		p.sweepAt = m.now.Add(m.cfg.LeaseDuration)
	}
	p.lease, p.retryAt, p.failures, p.refusedOp = l, Time{}, 0, 0
}

// observeOwn handles this member's own Lease as the watch shows it (R33). If it was
// written by another client, the machine reads it with a quorum read and writes it again.
func (m *Machine) observeOwn(l Lease) {
	wasFresh := m.WatchFresh()
	if m.own.uid == "" || l.UID == m.own.uid { // otherwise it is not this machine's Lease, and proves nothing
		m.watchProbe.seen(l.UID, l.Version)
	}
	if !wasFresh && m.WatchFresh() {
		m.restartTimers() // the peers may have renewed while the watch was stale
	}
	m.observeSameName(l)
	m.resolveSameName(l)
	if l.Record.Void() {
		m.otherHolder.lookAt = Time{}
	}
	if m.own.op == nil && m.own.version != "" && l.Version != m.own.version && CompareVersions(l.Version, m.own.confirmedVersion) > 0 {
		m.own.version = ""
	}
}

// removePeer handles the end of a peer's Lease. If the Lease was held, its process may
// still be at work, so its claims stay blocked by a tombstone for a while (R29).
func (m *Machine) removePeer(last Lease) {
	m.noteWatermarks(last.Record.Watermarks)
	if !m.known {
		m.list.gone[last.UID] = true
	}
	if p := m.peers[last.Name]; p != nil && p.lease.UID == last.UID {
		m.parts.left(p.lease.Record.inForce(), Claims{}, p.changeSeenAt)
		delete(m.peers, last.Name)
		m.viewDirty, m.parts.blockedDirty = true, true
	}
	m.addTombstoneOf(last)
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
