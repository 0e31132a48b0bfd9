// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// partitionState is the state of one partition; see the diagram in the package
// documentation.
type partitionState uint8

const (
	free     partitionState = iota
	claimed                 // on the member's Lease by a confirmed write
	active                  // the member may work on it
	draining                // no new work is admitted; work may be in flight
	drained                 // nothing in flight; still on the member's Lease
)

// partitions is the state of every partition under one partition count.
type partitions struct {
	parameters ring.Parameters // whose Key and Partitions apply to this table
	state      []partitionState
	token      []string // version of the write that claimed it
	drainSince []Time
	cancelled  ring.Set // draining, and the contexts of the work were cancelled
	unsure     ring.Set // draining or claimed, and the claim must be checked before work on it continues (R52)
	oldToken   ring.Set // unsure, and no write has been confirmed since
	heldSince  []Time   // since when a claimed one waits for the caches; zero if it does not
	want       ring.Set
	claimable  ring.Set // free, wanted, and claimed by no member, according to the watch

	// leftAt is the time since which, as far as this machine knows, no other member has
	// worked on a partition that another member owned before. Zero if unknown.
	leftAt []Time

	blocked      ring.Set // claimed by another held Lease or a tombstone
	blockedDirty bool

	waiting   bool // there are partitions to claim or release
	waitUntil Time // until when to collect them for one write
}

func newPartitions(p ring.Parameters) partitions {
	return partitions{
		parameters:   p,
		state:        make([]partitionState, p.Partitions),
		token:        make([]string, p.Partitions),
		drainSince:   make([]Time, p.Partitions),
		cancelled:    ring.NewSet(p.Partitions),
		unsure:       ring.NewSet(p.Partitions),
		oldToken:     ring.NewSet(p.Partitions),
		leftAt:       make([]Time, p.Partitions),
		heldSince:    make([]Time, p.Partitions),
		want:         ring.NewSet(p.Partitions),
		claimable:    ring.NewSet(p.Partitions),
		blockedDirty: true,
	}
}

// sameTable reports whether the parameters cut the hash space in the same way.
func (t *partitions) sameTable(p ring.Parameters) bool {
	return t.parameters.SameKeys(p) && t.parameters.Partitions == p.Partitions
}

// claims returns what the member's Lease must claim: every partition that is not free.
func (t *partitions) claims() Claims {
	c := Claims{Parameters: t.parameters, Set: ring.NewSet(t.parameters.Partitions)}
	for p, s := range t.state {
		if s != free {
			c.Set.Add(p)
		}
	}
	return c
}

// in returns the partitions in the given state.
func (t *partitions) in(s partitionState) ring.Set {
	set := ring.NewSet(len(t.state))
	for p, is := range t.state {
		if is == s {
			set.Add(p)
		}
	}
	return set
}

// allWorkedOn reports whether this member has worked on all partitions since it claimed them.
func (t *partitions) allWorkedOn() bool {
	for p, s := range t.state {
		if s == free || s == claimed || t.unsure.Has(p) {
			return false
		}
	}
	return len(t.state) > 0
}

// quiescent reports whether no work can be in flight on any partition.
func (t *partitions) quiescent() bool {
	for _, s := range t.state {
		if s == active || s == draining {
			return false
		}
	}
	return true
}

func (t *partitions) allFree() bool {
	for _, s := range t.state {
		if s != free {
			return false
		}
	}
	return true
}

// idle records that nothing is in flight on the partitions (R11).
func (t *partitions) idle(set ring.Set) {
	if set.Partitions() != len(t.state) {
		return
	}
	for p := range set.All() {
		if t.state[p] != draining {
			continue
		}
		if t.state[p] = drained; t.unsure.Has(p) {
			t.state[p] = claimed
		}
	}
}

// recheck makes all partitions with work or claims wait until the work has ended and a list
// has confirmed the claim (R52). It returns those that were active.
func (t *partitions) recheck(now Time) ring.Set {
	set := t.in(active)
	for p, s := range t.state {
		switch s {
		case active:
			t.state[p], t.drainSince[p] = draining, now
			t.cancelled.Remove(p)
			t.unsure.Add(p)
		case draining:
			t.unsure.Add(p)
		case claimed, drained:
			t.state[p] = claimed
			t.unsure.Add(p)
		}
	}
	t.oldToken = t.unsure.Clone()
	return set
}

// release frees the partitions that the next write withdraws (R13).
func (t *partitions) release() ring.Set {
	set := ring.NewSet(len(t.state))
	for p, s := range t.state {
		if (s == drained || s == claimed) && !t.want.Has(p) {
			t.state[p] = free
			set.Add(p)
		}
	}
	return set
}

// releaseAll frees everything. It may only be called when quiescent.
func (t *partitions) releaseAll() ring.Set {
	set := t.claims().Set
	for p := range set.All() {
		t.state[p] = free
	}
	return set
}

// confirm records that a write that claims the set was confirmed (R15).
func (t *partitions) confirm(set ring.Set, version string) ring.Set {
	if set.Partitions() != len(t.state) {
		return ring.Set{}
	}
	for p := range set.All() {
		t.state[p], t.token[p], t.heldSince[p] = claimed, version, Time{}
		t.unsure.Remove(p)
	}
	return set
}

// reclaim records that a write was confirmed that claims all partitions with an unsure claim
// again: another member may have owned them meanwhile, with a higher token.
func (t *partitions) reclaim(version string) {
	for p := range t.oldToken.All() {
		if s := t.state[p]; s == draining || s == claimed {
			t.token[p] = version
		}
	}
	t.oldToken = ring.NewSet(len(t.state))
}

// left records since when the partitions that are in before but not in after are no
// longer claimed by the other member.
func (t *partitions) left(before, after Claims, since Time) {
	for p, s := range t.state {
		// The other member's claim on a partition that is active here never took effect.
		if (s == free || s == claimed) && before.overlaps(p, t.parameters) && !after.overlaps(p, t.parameters) {
			t.leftAt[p] = since
		}
	}
}

// takeLeft returns for how long a partition has had no owner, and forgets it.
func (t *partitions) takeLeft(p int, now Time) (unowned time.Duration, known bool) {
	since := t.leftAt[p]
	t.leftAt[p] = Time{}
	return now.since(since), since != Time{}
}

// reconcilePartitions moves partitions through their states as the ring, the peers'
// claims and the last list require (R10, R12, R14, R18). It changes nothing on the server:
// writeOwn does that.
func (m *Machine) reconcilePartitions() {
	m.updateView()
	t := &m.parts
	if !t.sameTable(m.placed.inForce) && !m.placed.incompatible && t.allFree() && m.own.op == nil && !m.list.outstanding() {
		m.parts = newPartitions(m.placed.inForce)
	}
	m.updateWanted()
	m.updateBlocked()

	may := m.stage == serving && m.canTrustView() && m.knowledge.settled && m.settled()
	toActivate, toDrain, toCancel := ring.NewSet(len(t.state)), ring.NewSet(len(t.state)), ring.NewSet(len(t.state))
	var unowned []time.Duration
	pending := m.PendingWatermarks()
	t.claimable = ring.NewSet(len(t.state))
	waiting, more := false, false // there is something to write; more may follow in a moment
	for p := range t.state {
		want := t.want.Has(p)
		switch t.state[p] {
		case free:
			// A write while a list is in flight could overtake the list, which would have
			// to be repeated: with a slow server and many changes, over and over.
			if want && may && !m.list.outstanding() && !t.blocked.Has(p) {
				t.claimable.Add(p)
				waiting, more = true, true // other members release their partitions one after the other
			}
		case claimed:
			if t.blocked.Has(p) {
				t.heldSince[p] = Time{} // its owner publishes the watermarks with its release
			}
			if !want {
				waiting = true
			} else if may && m.list.clear.Has(p) && !t.blocked.Has(p) && !m.mustWaitForCache(p, pending) {
				t.state[p] = active
				t.unsure.Remove(p)
				toActivate.Add(p)
				if d, known := t.takeLeft(p, m.now); known {
					unowned = append(unowned, d)
				}
				m.countCacheWait(p)
			}
		case active:
			if !want {
				t.state[p], t.drainSince[p] = draining, m.now
				t.cancelled.Remove(p)
				t.unsure.Remove(p)
				toDrain.Add(p)
			}
		case draining:
			more = true
			if want && !m.own.fenced && !t.cancelled.Has(p) && !t.unsure.Has(p) { // no context was cancelled, and the claim still holds (R12a)
				t.state[p] = active
				toActivate.Add(p)
			} else if m.now.since(t.drainSince[p]) >= m.cfg.DrainGrace+m.cfg.DrainTimeout {
				m.end(ErrDrainTimeout)
				return
			}
		case drained:
			switch {
			case !want:
				waiting = true
			case !m.own.fenced:
				// Its release was not sent and no peer can have evicted this member (R12),
				// so the claim still holds and no other member has become active.
				t.state[p] = active
				toActivate.Add(p)
			}
		}
	}
	m.list.clear = ring.Set{}
	for p, s := range t.state {
		if s == draining && !t.cancelled.Has(p) && (t.unsure.Has(p) || m.now.since(t.drainSince[p]) >= m.cfg.DrainGrace) {
			t.cancelled.Add(p)
			toCancel.Add(p)
		}
	}
	switch {
	case waiting && !more:
		t.waitUntil = m.now
	case waiting && !t.waiting:
		t.waitUntil = m.now.Add(m.cfg.Coalesce)
	}
	t.waiting = waiting
	if !toDrain.Empty() {
		m.do(Drain{Partitions: toDrain})
	}
	if !toCancel.Empty() {
		m.do(Cancel{Partitions: toCancel})
	}
	if !toActivate.Empty() {
		m.do(Activated{Partitions: toActivate, Unowned: unowned})
	}
}

// settled reports whether a new member has waited long enough to claim partitions.
// Otherwise replicas that start together would each claim everything and hand most of it
// over at once, and every object would be reconciled several times.
func (m *Machine) settled() bool {
	if m.cfg.Quarantine && m.now.since(m.knownAt) < m.cfg.LeaseDuration {
		return false
	}
	if m.hasSettled {
		return true
	}
	peerJoining := false
	for _, p := range m.peers {
		switch r := p.lease.Record; {
		case r.Void():
		case !r.Claims.Empty():
			m.hasSettled = true // a peer has claims: the partitions that are free now are left for this member
			return true
		case r.Phase == PhaseJoining:
			peerJoining = true
		}
	}
	m.hasSettled = m.now.since(m.servedAt) >= 5*m.cfg.StartupSettle ||
		!peerJoining && !m.ringDirty && m.building.op == 0 && m.now.Mono >= m.settlesAt()
	return m.hasSettled
}

// settlesAt returns when, on the monotonic clock, a new member may claim partitions if no other
// member is joining and its ring has all active members. Others start within StartupSettle after the last Lease
// was added; it does not matter that the informers sync in that time. When the members on the
// ring have changed, all of them need some time for the ring: otherwise the first one to claim
// would make the others claim by rings that lack some of the members.
func (m *Machine) settlesAt() time.Duration {
	settle := m.cfg.StartupSettle
	return max(m.knownAt.Mono+settle, m.cameAt.Mono+settle, m.changedAt.Mono+min(settle, 2*minRebuild))
}

// updateWanted computes which partitions this member should own. None while it stops,
// while the parameters in force divide the hash space differently from the partitions that
// it still holds, or while the parameters in force have another key.
func (m *Machine) updateWanted() {
	t := &m.parts
	if m.stage != serving || m.placed.incompatible || !t.sameTable(m.placed.inForce) {
		t.want = ring.NewSet(len(t.state))
		return
	}
	t.want = m.view.Owned(m.cfg.Member)
}

// updateBlocked computes which partitions other members or tombstones claim.
func (m *Machine) updateBlocked() {
	t := &m.parts
	if !t.blockedDirty {
		return
	}
	t.blockedDirty = false
	t.blocked = ring.NewSet(len(t.state))
	for _, p := range m.peers {
		if p.lease.Record.Void() {
			continue
		}
		if c := p.lease.Record.Claims; p.blocksOf != t.parameters || !p.blocksFor.equal(c) {
			p.blocks, p.blocksOf, p.blocksFor = c.under(t.parameters), t.parameters, c
		}
		t.blocked.AddAll(p.blocks)
	}
	for _, tomb := range m.tombstones {
		t.blocked.AddAll(tomb.Claims.under(t.parameters))
	}
}
