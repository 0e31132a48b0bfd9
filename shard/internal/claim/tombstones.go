// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// The bounds of the tombstones that a member publishes (R47): the API server rejects a
// Lease that is too large, also a renewal.
const (
	maxTombstones    = 64
	maxTombstoneSize = 12 << 10 // estimated, in bytes
)

// tombstoneKey identifies a tombstone. The same Lease may have several, because members
// may have seen different last states of it: all of them count. The holder's text alone
// identifies nothing, because another client may have written it to another Lease.
type tombstoneKey struct {
	uid, holder string
	seq         uint64
	everything  bool
}

// merged is the key of the tombstone that stands for those that exceed the bounds.
var merged = tombstoneKey{everything: true}

// tombstone is a Tombstone with its expiry time.
type tombstone struct {
	Tombstone
	until Time
}

func (t Tombstone) key() tombstoneKey {
	return tombstoneKey{t.UID, t.Holder, t.Seq, t.Claims.Everything}
}

// addTombstone adds a tombstone for a Lease that is gone, unless it was void (R29). If last
// is not its final state, it claims everything. Its time counts from since (R43).
func (m *Machine) addTombstone(last Lease, final bool, since Time) {
	r := last.Record
	if r.Void() {
		m.noteEnded(last.UID)
		return
	}
	t := Tombstone{UID: last.UID, Holder: r.Holder, Seq: r.Seq, Claims: r.Claims, Duration: m.counting(r.Duration)}
	if !final {
		t.Claims = Claims{Everything: true}
	}
	m.putTombstone(t, since.Add(t.Duration))
	if _, blocks := m.tombstones[t.key()]; blocks {
		m.knowledge.leases[last.UID] = last // if the Lease comes back, for instance with its label
	}
}

// putTombstone adds a tombstone, or shortens its time: the same write of the same holder
// cannot have been sent later than any member has seen it.
func (m *Machine) putTombstone(t Tombstone, until Time) {
	if t.Claims.Empty() || m.now.Mono >= until.Mono {
		return
	}
	known, exists := m.tombstones[t.key()]
	switch {
	case !exists:
		m.tombstonesDue = m.tombstonesDue || !m.lapsed[t.key()]
	case t.key() == merged && until.Mono <= known.until.Mono, t.key() != merged && until.Mono >= known.until.Mono:
		return // different merged tombstones stand for different Leases
	}
	m.tombstones[t.key()] = tombstone{Tombstone: t, until: until}
	m.parts.blockedDirty = true
	if !exists || t.key() == merged { // else only its time is shorter
		m.tombstonesPut++
		m.own.heirSince = "" // an heir must have seen what is behind this one, too
	}
}

// adoptTombstones handles the tombstones on a Lease (R29, R47): the smaller time of each
// counts. Only a newcomer learns of others from it, whoever has written them (R49); otherwise
// members could keep a tombstone alive by adopting it from each other.
func (m *Machine) adoptTombstones(l Lease) {
	if l.Record.Edited || l.Record.EvictedBy != "" {
		return
	}
	for _, t := range l.Record.Tombstones {
		if _, known := m.tombstones[t.key()]; known && t.UID != "" || !m.knowledge.settled && m.mayAdopt(t) {
			m.putTombstone(t, m.now.Add(min(t.Remaining, MaxLeaseDuration)))
		}
	}
}

func (m *Machine) mayAdopt(t Tombstone) bool {
	if t.UID == "" {
		return true
	}
	if t.Holder == m.cfg.Holder || t.Holder == m.cfg.Predecessor || m.ended[t.UID] || m.lapsed[t.key()] {
		return false
	}
	for _, p := range m.peers {
		if p.lease.UID == t.UID {
			return false // this member sees its Lease
		}
	}
	return true
}

// noteEnded records that the holder of a Lease has ended properly (R43).
func (m *Machine) noteEnded(uid string) {
	m.dropTombstones(uid)
	if !m.knowledge.settled { // later it adopts none of others
		m.ended[uid] = true
	}
}

// dropTombstones drops the tombstones for a Lease that this member sees again.
func (m *Machine) dropTombstones(uid string) {
	for key := range m.tombstones {
		if key.uid == uid && key != merged {
			delete(m.tombstones, key)
			m.parts.blockedDirty = true
		}
	}
}

// expireTombstones drops the tombstones that have expired by the monotonic clock: a jump
// of the wall clock must not shorten their time.
func (m *Machine) expireTombstones() {
	var expired []string
	for key, t := range m.tombstones {
		if m.now.Mono >= t.until.Mono {
			delete(m.tombstones, key)
			if !m.knowledge.settled { // later it adopts none of others
				m.lapsed[key] = true
			}
			expired = append(expired, key.uid)
			m.parts.blockedDirty = true
		}
	}
	for _, uid := range expired {
		if !m.hasTombstone(uid) {
			delete(m.knowledge.leases, uid)
		}
	}
}

func (m *Machine) hasTombstone(uid string) bool {
	for key := range m.tombstones {
		if key.uid == uid {
			return true
		}
	}
	return false
}

// tombstonesNow returns the tombstones with the time that remains of each, those first that
// block for the longest time.
func (m *Machine) tombstonesNow() []Tombstone {
	var list []Tombstone
	for _, t := range m.tombstones {
		t.Remaining = t.until.since(m.now)
		list = append(list, t.Tombstone)
	}
	slices.SortFunc(list, func(a, b Tombstone) int {
		return cmp.Or(cmp.Compare(b.Remaining, a.Remaining), cmp.Compare(a.UID, b.UID), cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.Holder, b.Holder))
	})
	return list
}

// tombstonesToPublish returns the tombstones for this member's record. Those that exceed
// the bounds are merged into one that claims everything, for the longest of their times.
func (m *Machine) tombstonesToPublish() []Tombstone {
	var list []Tombstone
	rest := Tombstone{Claims: Claims{Everything: true}}
	size := 0
	for _, t := range m.tombstonesNow() {
		size += 150 + encodedSize(t.UID) + encodedSize(t.Holder) + t.Claims.Set.Partitions()/6
		if t.key() != merged && len(list) < maxTombstones && size <= maxTombstoneSize {
			list = append(list, t)
			continue
		}
		rest.Remaining, rest.Duration = max(rest.Remaining, t.Remaining), max(rest.Duration, t.Duration)
	}
	if rest.Remaining > 0 {
		list = append(list, rest)
	}
	return list
}

// encodedSize returns how many bytes a string takes in JSON, at most: six for a character that
// is escaped.
func encodedSize(s string) int {
	size := len(s)
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || strings.IndexByte(`"\<>&`, c) >= 0 {
			size += 5
		}
	}
	return size
}

// Tombstones returns the tombstones for the machine that follows this one: those in force,
// and one for each held Lease whose end the watch may never show, because only a read or a
// list has shown that Lease. What remains of their times is that at the last [Machine.Step].
func (m *Machine) Tombstones() []Tombstone {
	list := m.tombstonesNow()
	add := func(l Lease) {
		d := m.counting(l.Record.Duration)
		list = append(list, Tombstone{UID: l.UID, Holder: l.Record.Holder, Seq: l.Record.Seq, Claims: Claims{Everything: true}, Duration: d, Remaining: d})
	}
	for _, uid := range slices.Sorted(maps.Keys(m.sameNameLeases)) {
		if n := m.sameNameLeases[uid]; !n.void {
			add(n.lease)
		}
	}
	for _, p := range m.peersWhere(func(p *peer) bool { return p.unseen && !p.lease.Record.Void() }) {
		add(p.lease)
	}
	return list
}

// longest returns the longest lease duration that this member knows of (R49). A held Lease of
// which it knows no duration claims everything itself. What others know of counts only for a
// newcomer (see [Machine.learn]): others have seen each Lease or its tombstone, and members that
// repeated each other's duration would never forget it.
func (m *Machine) longest() time.Duration {
	longest := m.cfg.LeaseDuration
	for _, p := range m.peers {
		if r := p.lease.Record; !r.Void() {
			longest = max(longest, r.Duration)
		}
	}
	for _, t := range m.tombstones {
		longest = max(longest, t.Duration)
	}
	return min(max(longest, m.knowledge.wait), MaxLeaseDuration)
}
