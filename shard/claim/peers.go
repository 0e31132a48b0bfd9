// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// peer is another member's Lease as the watch shows it.
type peer struct {
	lease        Lease
	changedAt    Time // when its holder or seq was last seen to change, or the timers were restarted
	changeSeenAt Time // when its holder or seq was last seen to change
	op           uint64
	opVersion    string // the version on the condition of which op was sent
	retryAt      Time   // no eviction before it
	failures     int    // of evictions, in a row, with an unknown outcome
	// suspectAt is set after a refused eviction: if the watch still shows the
	// refused version then, it is stale.
	suspectAt      Time
	suspectVersion string
	refusedOp      uint64 // the last op at suspectAt: a list that was sent later shows whether the Lease is there
	sweepAt        Time   // when a void Lease may be deleted
}

// buriedFor is how many lease durations a member remembers that a holder is over,
// so that it does not believe those who learn of its end later.
const expiredHolderMemory = 20

// tombstone is a Tombstone with its end.
type tombstone struct {
	Tombstone
	until Time
}

// observe takes what the watch shows of a Lease. Watch events are in order, so the
// newest one always counts; its version is not compared with what came before,
// because after a restore of the server's database versions start again lower.
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
			// A list took the place of a part of the watch in which the Lease was
			// deleted and made again.
			m.addTombstoneOf(p.lease)
		case is.Void() && !was.Void():
			// It ended as it should. Who has missed that may take it for vanished.
			delete(m.tombstones, was.Holder)
			m.expiredHolders[was.Holder] = m.now.Add(expiredHolderMemory * m.cfg.LeaseDuration)
		case was.Holder == is.Holder && is.Parameters == (ring.Parameters{}):
			// One incarnation never changes its parameters. Somebody has edited them
			// away; the fleet must not drain because of that.
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
		delete(m.expiredHolders, l.Record.Holder) // it is alive: should it vanish, that is news
	}
	// Each write of a member has a new seq, and each incarnation a new holder. Whatever
	// else changes was written by somebody else and is no sign of life.
	if p.lease.UID != l.UID || p.lease.Record.Holder != l.Record.Holder || p.lease.Record.Seq != l.Record.Seq {
		p.changedAt, p.changeSeenAt = m.now, m.now
		p.sweepAt = m.now.Add(m.cfg.LeaseDuration)
	}
	p.lease, p.retryAt, p.failures, p.refusedOp = l, Time{}, 0, 0
}

// observeOwn takes the own Lease's echo. Anything in it that this machine has not
// written makes it look with a quorum read and write again.
func (m *Machine) observeOwn(l Lease) {
	wasFresh := m.WatchFresh()
	if m.own.uid == "" || l.UID == m.own.uid { // else it is not this machine's, and proves nothing
		m.watchProbe.seen(l.UID, l.Version)
	}
	if !wasFresh && m.WatchFresh() {
		m.restartTimers() // the peers may have been heard of while the watch was dead, too
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

// vanish takes the end of a peer's Lease. A void one is gone. One that was held may
// still have a process behind it, so what it claimed stays blocked for a while.
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

// buryLease makes a tombstone for a Lease that is gone, unless it was void.
func (m *Machine) addTombstoneOf(last Lease) {
	if r := last.Record; !r.Void() {
		m.addTombstone(Tombstone{Lease: last.Name, Holder: r.Holder, Claims: r.Claims}, max(r.Duration, m.cfg.LeaseDuration))
	}
}

// adopt takes over the tombstones that a peer knows of.
func (m *Machine) mergeTombstones(tombs []Tombstone) {
	for _, t := range tombs {
		m.addTombstone(t, m.cfg.LeaseDuration)
	}
}

// bury blocks what a vanished member claimed for one lease duration from now,
// once for each holder: members would keep a tombstone alive for each other.
// Members may have seen different last claims: all of them count.
func (m *Machine) addTombstone(t Tombstone, duration time.Duration) {
	if t.Claims.Empty() || t.Holder == m.cfg.Holder || t.Holder == m.cfg.Predecessor {
		return
	}
	if known, exists := m.tombstones[t.Holder]; exists {
		if t.Claims = known.Claims.union(t.Claims); t.Claims.equal(known.Claims) {
			return
		}
	}
	if _, over := m.expiredHolders[t.Holder]; over {
		return
	}
	m.tombstones[t.Holder] = tombstone{Tombstone: t, until: m.now.Add(duration)}
	m.tombGeneration++
	m.parts.blockedDirty = true
}

// forget drops the tombstones whose time is over, by the monotonic clock: a jump
// of the wall clock must not shorten it.
func (m *Machine) expireTombstones() {
	for holder, t := range m.tombstones {
		if m.now.Mono >= t.until.Mono {
			delete(m.tombstones, holder)
			m.expiredHolders[holder] = m.now.Add(expiredHolderMemory * m.cfg.LeaseDuration)
			m.tombGeneration++
			m.parts.blockedDirty = true
		}
	}
	for holder, until := range m.expiredHolders {
		if m.now.Mono >= until.Mono {
			delete(m.expiredHolders, holder)
		}
	}
}

// tombstones lists those in force, sorted by holder.
func (m *Machine) tombstoneList() []Tombstone {
	var list []Tombstone
	for _, t := range m.tombstones {
		list = append(list, t.Tombstone)
	}
	slices.SortFunc(list, func(a, b Tombstone) int { return cmp.Compare(a.Holder, b.Holder) })
	return list
}

// Tombstones returns those in force, for the machine that follows this one, and one for
// each namesake whose end this machine has not seen: perhaps only a read has shown it.
func (m *Machine) Tombstones() []Tombstone {
	list := m.tombstoneList()
	for _, uid := range slices.Sorted(maps.Keys(m.sameNameLeases)) {
		if n := m.sameNameLeases[uid]; !n.void {
			list = append(list, Tombstone{Lease: n.lease.Name, Holder: n.lease.Record.Holder, Claims: Claims{Everything: true}})
		}
	}
	return list
}

// restartTimers gives every peer its whole duration again.
func (m *Machine) restartTimers() {
	for _, p := range m.peers {
		p.changedAt = m.now
	}
	m.restartCacheWaits()
}

// hears reports whether this member may judge others: its own renewals succeed
// and its watch shows them.
func (m *Machine) canTrustView() bool {
	return !m.own.fenced && m.own.version != "" && m.watchProbe.fresh(m.now, m.cfg.WatchLagLimit) &&
		m.now.since(m.own.confirmedAt) <= 2*m.cfg.RenewPeriod
}

// maxClearing is how many evictions and deletions of peers' Leases are under way at
// most. Many members may have died at once: a rate limiter, a proxy or a busy server
// that serves such requests slowly must not make the member's renewals wait for long.
const maxRemovals = 4

// clear notes that a peer's Lease is being evicted or deleted.
func (m *Machine) startRemoval(p *peer) uint64 {
	p.op, p.opVersion = m.op(), p.lease.Version
	m.removals[p.op] = struct{}{}
	return p.op
}

// mayClear reports whether one more may be sent.
func (m *Machine) mayRemove() bool { return len(m.removals) < maxRemovals }

// evictSilent voids the Leases of peers that have not changed for the duration
// that they declare.
func (m *Machine) evictSilent() {
	if !m.mayRemove() || !m.canTrustView() {
		return
	}
	silent := m.peersWhere(func(p *peer) bool {
		return !p.lease.Record.Void() && p.op == 0 && m.now.Mono >= p.retryAt.Mono && m.now.Mono >= m.evictAt(p).Mono
	})
	turns := make(map[*peer]time.Duration, len(silent))
	for _, p := range silent {
		turns[p] = m.turn(p)
	}
	// Those that have failed come last: they must not keep the others waiting. Before
	// that, those that are this member's to evict first: once all turns have come, all
	// members would send the same requests at the same time, a few after the other.
	slices.SortStableFunc(silent, func(a, b *peer) int {
		return cmp.Or(cmp.Compare(a.failures, b.failures), cmp.Compare(turns[a], turns[b]))
	})
	for _, p := range silent {
		if !m.mayRemove() {
			return
		}
		m.do(m.eviction(m.startRemoval(p), p.lease))
	}
}

// eviction is the request that voids a Lease.
func (m *Machine) eviction(op uint64, l Lease) EvictLease {
	return EvictLease{
		Op: op, Name: l.Name, UID: l.UID, Version: l.Version,
		Member: l.Record.Member, PodUID: l.Record.PodUID, Finalizers: l.Finalizers, Timeout: m.timeout(),
	}
}

// evictAt is when a peer that stays silent is evicted.
func (m *Machine) evictAt(p *peer) Time {
	at := p.changedAt.Add(p.lease.Record.Duration)
	if m.now.Mono < at.Mono {
		return at // whose turn it is then is seen then
	}
	return at.Add(m.turn(p))
}

// turn is how long this member lets others go first. Members take turns, so that not
// all of them send the same request, of which all but one are conflicts. Each peer has
// an order of its own, given by a hash, so that when many have died their evictions are
// spread over all that are alive. Members may see different orders: that only costs a
// conflict.
func (m *Machine) turn(p *peer) time.Duration {
	seed := xxh3.HashString(p.lease.Name)
	mine := xxh3.HashStringSeed(m.cfg.Lease, seed)
	before := 0
	for _, q := range m.peers {
		r := &q.lease.Record
		alive := !r.Void() && r.Phase == PhaseActive && m.now.since(q.changeSeenAt) < r.Duration/2
		if alive && xxh3.HashStringSeed(q.lease.Name, seed) < mine {
			before++
		}
	}
	return min(time.Duration(before)*50*time.Millisecond, time.Second)
}

// refusedPeer reports whether there is a peer of which a list must show whether it still
// has a Lease.
func (m *Machine) refusedPeer() bool {
	for _, p := range m.peers {
		if p.refusedOp != 0 {
			return true
		}
	}
	return false
}

// findGone takes a quorum list that was sent as the given op. A peer whose eviction was
// refused a second before that, and that has no Lease in the list, is gone, although the watch
// did not show its end: it never shows the end of a Lease that it has not shown, but the
// first list may have had one. It may have claimed anything since it was last seen.
func (m *Machine) findDeleted(op uint64, inList map[string]bool) {
	for _, p := range m.peersWhere(func(p *peer) bool { return p.refusedOp != 0 && p.refusedOp < op }) {
		p.refusedOp = 0
		if !inList[p.lease.UID] {
			last := p.lease
			last.Record.Claims = Claims{Everything: true}
			m.removePeer(last)
		}
	}
}

// backoff is how long a request that has failed so often is not repeated. It grows, and
// members that have failed together do not try again together.
func (m *Machine) backoff(failures int) time.Duration {
	d := min(m.cfg.RenewPeriod/8<<min(failures-1, 10), 2*m.cfg.RenewPeriod)
	return d - time.Duration(m.rand.Int64N(int64(d)/2+1))
}

// evicted takes the answer to Evict.
func (m *Machine) evicted(e EvictResult) {
	delete(m.removals, e.Op)
	if e.Outcome == OK {
		m.stats.Evictions++
	} else if e.Outcome == Conflict {
		m.stats.EvictionsRefused++
	}
	if r := m.finish(e.Op); r != nil {
		if e.Outcome == Unknown {
			m.failed(Unknown)
		}
		return
	}
	for _, p := range m.peers {
		if p.op != e.Op {
			continue
		}
		p.op = 0
		switch e.Outcome {
		case OK:
			if p.lease.Version == p.opVersion { // else the watch was faster
				m.observe(e.Lease)
			}
		case NotFound:
			// The watch never shows the end of a Lease that it has not shown, but a list has.
			m.removePeer(p.lease)
		case Conflict:
			// Somebody has written: what the watch shows next decides. Another holder or seq
			// is a sign of life; anything else is not, and the eviction is repeated at that
			// version. If it shows nothing, it is stale, and this version is not tried again.
			if p.lease.Version == p.opVersion {
				p.retryAt = m.now.Add(m.cfg.LeaseDuration)
				p.suspectAt, p.suspectVersion = m.now.Add(time.Second), p.lease.Version
			}
		default:
			p.failures++
			p.retryAt = m.now.Add(m.backoff(p.failures))
		}
		return
	}
}

// sweepVoid deletes void Leases that nobody has cleared away: one duration after
// they became void, so that who was evicted can read it, and by one member only.
func (m *Machine) sweepVoid() {
	if m.rank != 0 || !m.mayRemove() || !m.canTrustView() {
		return
	}
	void := m.peersWhere(func(p *peer) bool {
		return p.lease.Record.Void() && p.op == 0 && m.now.Mono >= p.sweepAt.Mono
	})
	for _, p := range void {
		if !m.mayRemove() {
			return
		}
		m.do(DeleteLease{Op: m.startRemoval(p), Name: p.lease.Name, UID: p.lease.UID, Version: p.lease.Version, Timeout: m.timeout()})
	}
}

// swept takes the answer to the Delete of a peer's void Lease.
func (m *Machine) swept(e DeleteResult) {
	delete(m.removals, e.Op)
	for _, p := range m.peers {
		if p.op != e.Op {
			continue
		}
		p.op = 0
		p.sweepAt = m.now.Add(m.jitter(m.cfg.LeaseDuration))
		if e.Outcome == NotFound && p.lease.Version == p.opVersion {
			m.removePeer(p.lease)
		}
		return
	}
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

// minRebuild is the time between two rebuilds of the ring. With many members one takes
// milliseconds, and when many come or go at once each of them is seen for itself.
const minRebuild = 100 * time.Millisecond

// look brings the view and the ring up to date with the Leases: at once for the first
// change, and then again after minRebuild for all that has followed. Meanwhile this
// member wants what it wanted before; which partitions are claimed by others is always
// current. A change that leaves the ring as it is costs nothing.
func (m *Machine) updateView() {
	if m.viewDirty {
		m.viewDirty, m.changedAt, m.ringDirty = false, m.now, true
	}
	if !m.ringDirty {
		return
	}
	type held struct {
		name    string
		created time.Time
		record  *Record
	}
	var all []held
	if m.own.phase == PhaseActive || m.own.phase == PhaseDraining {
		all = append(all, held{m.cfg.Lease, m.own.created, &Record{Member: m.cfg.Member, Phase: m.phase(), Parameters: m.cfg.Parameters, Fingerprint: m.cfg.Parameters.Fingerprint()}})
	}
	for _, p := range m.peers {
		if !p.lease.Record.Void() && p.lease.Record.Phase != PhaseJoining {
			all = append(all, held{p.lease.Name, p.lease.Created, &p.lease.Record})
		}
	}
	// The parameters in force are those of the longest-standing held Lease, by the
	// server's clock, so that a rolling update switches all members at one point.
	slices.SortFunc(all, func(a, b held) int {
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.name, b.name))
	})
	inForce, incompatible := m.cfg.Parameters, false
	if len(all) > 0 {
		inForce = all[0].record.Parameters
		incompatible = !inForce.SameKeys(m.cfg.Parameters) || inForce.Validate() != nil
	}
	parameters := inForce
	var members []string
	if incompatible {
		parameters = m.cfg.Parameters
	} else {
		for _, h := range all {
			// Who places by another key can't follow the parameters in force and
			// claims nothing until they change: it would leave its part unowned.
			if h.record.Phase == PhaseActive && h.record.Parameters.SameKeys(inForce) {
				members = append(members, h.record.Member)
			}
		}
		slices.Sort(members)
		members = slices.Compact(members)
	}
	same := inForce == m.inForce && incompatible == m.incompatible && parameters == m.view.Parameters() && slices.Equal(members, m.view.Members())
	if !same && m.rebuilt != (Time{}) && m.now.since(m.rebuilt) < minRebuild {
		return
	}
	m.ringDirty, m.inForce, m.incompatible = false, inForce, incompatible
	if same {
		return
	}
	m.rebuilt = m.now
	if next, err := ring.New(parameters, members); err == nil {
		m.view = next
	}
	m.rank, _ = slices.BinarySearch(m.view.Members(), m.cfg.Member)
}
