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

// expiredHolderMemory is for how many lease durations a member remembers that a holder
// has ended or that its tombstone has expired, so that it does not adopt that tombstone
// from members that learn of the end later.
const expiredHolderMemory = 20

// tombstone is a Tombstone with its expiry time.
type tombstone struct {
	Tombstone
	until Time
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

// addTombstoneOf adds a tombstone for a Lease that is gone, unless it was void.
func (m *Machine) addTombstoneOf(last Lease) {
	if r := last.Record; !r.Void() {
		m.addTombstone(Tombstone{Lease: last.Name, Holder: r.Holder, Claims: r.Claims}, max(r.Duration, m.cfg.LeaseDuration))
	}
}

// mergeTombstones adopts the tombstones that a peer publishes.
func (m *Machine) mergeTombstones(tombstones []Tombstone) {
	for _, t := range tombstones {
		m.addTombstone(t, m.cfg.LeaseDuration)
	}
}

// addTombstone blocks the claims of a member whose Lease is gone for the given duration
// from now (R29), once for each holder: otherwise members would keep a tombstone alive by
// adopting it from each other. Members may have seen different last claims: all of them
// count.
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

// expireTombstones drops the tombstones that have expired by the monotonic clock: a jump
// of the wall clock must not shorten their time.
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

// tombstoneList returns the tombstones in force, sorted by holder.
func (m *Machine) tombstoneList() []Tombstone {
	var list []Tombstone
	for _, t := range m.tombstones {
		list = append(list, t.Tombstone)
	}
	slices.SortFunc(list, func(a, b Tombstone) int { return cmp.Compare(a.Holder, b.Holder) })
	return list
}

// Tombstones returns the tombstones for the machine that follows this one: those in force,
// and one for each other Lease of this member's name whose end this machine has not seen,
// because perhaps only a read has shown that Lease.
func (m *Machine) Tombstones() []Tombstone {
	list := m.tombstoneList()
	for _, uid := range slices.Sorted(maps.Keys(m.sameNameLeases)) {
		if n := m.sameNameLeases[uid]; !n.void {
			list = append(list, Tombstone{Lease: n.lease.Name, Holder: n.lease.Record.Holder, Claims: Claims{Everything: true}})
		}
	}
	return list
}

// restartTimers restarts every peer's timer with its full duration (R26).
func (m *Machine) restartTimers() {
	for _, p := range m.peers {
		p.changedAt = m.now
	}
	m.restartCacheWaits()
}

// canTrustView reports whether this member may act on its view of its peers: its own
// renewals succeed (R25) and come back through its watch (R34).
func (m *Machine) canTrustView() bool {
	return !m.own.fenced && m.own.version != "" && m.watchProbe.fresh(m.now, m.cfg.WatchLagLimit) &&
		m.now.since(m.own.confirmedAt) <= 2*m.cfg.RenewPeriod
}

// maxRemovals is how many evictions and deletions of peers' Leases may be in flight
// (R27). Many members may have died at once: a rate limiter, a proxy or a busy server
// that serves such requests slowly must not delay the member's renewals for long.
const maxRemovals = 4

// startRemoval records that a peer's Lease is being evicted or deleted.
func (m *Machine) startRemoval(p *peer) uint64 {
	p.op, p.opVersion = m.op(), p.lease.Version
	m.removals[p.op] = struct{}{}
	return p.op
}

// mayRemove reports whether one more eviction or deletion may be sent.
func (m *Machine) mayRemove() bool { return len(m.removals) < maxRemovals }

// evictSilent evicts the peers whose Leases have not changed for the duration that they
// declare (R25).
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
	// Peers whose eviction has failed come last, so that they do not delay the others.
	// Among the rest, those come first whose turn this member has first: once all turns
	// have come, all members would otherwise send the same requests at the same time.
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

// eviction returns the request that voids a Lease (R23).
func (m *Machine) eviction(op uint64, l Lease) EvictLease {
	return EvictLease{
		Op: op, Name: l.Name, UID: l.UID, Version: l.Version,
		Member: l.Record.Member, PodUID: l.Record.PodUID, Finalizers: l.Finalizers, Timeout: m.timeout(),
	}
}

// evictAt returns when this member evicts the peer if it stays silent.
func (m *Machine) evictAt(p *peer) Time {
	at := p.changedAt.Add(p.lease.Record.Duration)
	if m.now.Mono < at.Mono {
		return at // the turn is computed when that time has come
	}
	return at.Add(m.turn(p))
}

// turn returns how long this member waits for other members to evict the peer first.
// Members take turns so that they do not all send the same request, of which all but one
// end in a conflict. A hash gives each peer its own order of members, so that when many
// members have died their evictions are spread over all live members. Members may compute
// different orders: that only costs a conflict.
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

// refusedPeer reports whether there is a peer for which a list must show whether its Lease
// still exists.
func (m *Machine) refusedPeer() bool {
	for _, p := range m.peers {
		if p.refusedOp != 0 {
			return true
		}
	}
	return false
}

// findDeleted handles a quorum list that was sent as the given op. A peer whose eviction
// was refused at least a second before the list, and whose Lease is not in the list, is
// gone although the watch did not show its end: the watch never shows the end of a Lease
// that it has not shown, but the first list may have contained that Lease. The member may
// have claimed anything since it was last seen.
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

// backoff returns the delay after the given number of failures. It grows, and it is
// jittered so that members whose requests failed together do not retry together (R27).
func (m *Machine) backoff(failures int) time.Duration {
	d := min(m.cfg.RenewPeriod/8<<min(failures-1, 10), 2*m.cfg.RenewPeriod)
	return d - time.Duration(m.rand.Int64N(int64(d)/2+1))
}

// evicted handles the response to EvictLease.
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
			if p.lease.Version == p.opVersion { // otherwise the watch was faster
				m.observe(e.Lease)
			}
		case NotFound:
			// The watch never shows the end of a Lease that only a list has shown.
			m.removePeer(p.lease)
		case Conflict:
			// Another client has written the Lease: the next version that the watch shows
			// decides (R24). Another holder or seq shows that the peer is alive. Otherwise the
			// eviction is repeated with that version. If the watch shows no newer version, it
			// is stale, and the eviction is not repeated with the refused version.
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

// sweepVoid deletes void Leases that still exist one lease duration after they became void
// (R39). Until then an evicted member can read that it was evicted. Only one member, the
// first of the view, does so.
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

// swept handles the response to the DeleteLease of a peer's void Lease.
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

// minRebuild is the minimum time between two computations of the ring. With many members
// one takes milliseconds, and when many join or leave at once, each change arrives as an
// event of its own.
const minRebuild = 100 * time.Millisecond

// updateView updates the view and the ring from the Leases: at once for the first change,
// and after minRebuild for all changes that followed. Until then this member wants the same
// partitions as before; which partitions others claim is always current. A change that does
// not affect the ring costs nothing.
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
	// The parameters in force are those of the oldest held Lease, by the server's clock,
	// so that in a rolling update all members switch at the same point.
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
			// A member with another key cannot apply the parameters in force and claims
			// nothing until they change: on the ring, its partitions would stay unowned.
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
