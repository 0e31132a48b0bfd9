// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// partitionState is where a partition stands on its way; see the picture in the
// package documentation.
type partitionState uint8

const (
	free     partitionState = iota
	claimed                 // on the own Lease by a confirmed write
	active                  // may be worked on
	draining                // nothing new; work may be in flight
	drained                 // nothing in flight; still on the own Lease
)

// partitions is the state of every partition under one partition count.
type partitions struct {
	parameters ring.Parameters // Key and Partitions are those of the table
	state      []partitionState
	token      []string // version of the write that claimed it
	drainSince []Time
	heldSince  []Time // claimed, and waits for the caches; zero if not
	want       ring.Set
	claimable  ring.Set // free, wanted, and claimed by nobody as far as the watch shows

	// leftAt is since when, as far as this machine knows, no other member works on a
	// partition that another one had. Zero: nothing is known.
	leftAt []Time

	blocked      ring.Set // claimed by another held Lease or a tombstone
	blockedDirty bool

	waiting   bool // something is to be claimed or released
	waitUntil Time // collected until then
}

func newPartitions(p ring.Parameters) partitions {
	return partitions{
		parameters:   p,
		state:        make([]partitionState, p.Partitions),
		token:        make([]string, p.Partitions),
		drainSince:   make([]Time, p.Partitions),
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

// claims is what the own Lease must say: everything that is not free.
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

// workless reports whether nothing can be in flight anywhere.
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

// idle takes the news that nothing is in flight on the partitions.
func (t *partitions) idle(set ring.Set) {
	if set.Partitions() != len(t.state) {
		return
	}
	for p := range set.All() {
		if t.state[p] == draining {
			t.state[p] = drained
		}
	}
}

// release frees what is to be withdrawn by the write that is about to be sent.
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

// releaseAll frees everything; only when workless.
func (t *partitions) releaseAll() ring.Set {
	set := t.claims().Set
	for p := range set.All() {
		t.state[p] = free
	}
	return set
}

// confirm takes the confirmation of a write that claims the set.
func (t *partitions) confirm(set ring.Set, version string) ring.Set {
	if set.Partitions() != len(t.state) {
		return ring.Set{}
	}
	for p := range set.All() {
		t.state[p], t.token[p], t.heldSince[p] = claimed, version, Time{}
	}
	return set
}

// left notes since when the partitions of before that are not in after are without
// the member that claimed them.
func (t *partitions) left(before, after Claims, since Time) {
	for p, s := range t.state {
		// What is active here was claimed by the other one only to no avail.
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

// place moves partitions through their states as the ring, the peers' claims and
// the last list demand. It changes nothing on the server: writeOwn does that.
func (m *Machine) reconcilePartitions() {
	m.updateView()
	t := &m.parts
	if !t.sameTable(m.inForce) && !m.incompatible && t.allFree() && m.own.op == nil && m.list.op == 0 {
		m.parts = newPartitions(m.inForce)
	}
	m.updateWanted()
	m.updateBlocked()

	may := m.stage == serving && m.canTrustView() && m.settled()
	toActivate, toDrain := ring.NewSet(len(t.state)), ring.NewSet(len(t.state))
	var unowned []time.Duration
	awaited := m.PendingWatermarks()
	t.claimable = ring.NewSet(len(t.state))
	waiting, more := false, false // something is to be written; more may follow in a moment
	for p := range t.state {
		want := t.want.Has(p)
		switch t.state[p] {
		case free:
			// A write while a list is under way would pass it, and it would have to be
			// repeated: with a slow server and many changes, again and again.
			if want && may && m.list.op == 0 && !t.blocked.Has(p) {
				t.claimable.Add(p)
				waiting, more = true, true // others release what they hold one after the other
			}
		case claimed:
			if t.blocked.Has(p) {
				t.heldSince[p] = Time{} // what its owner has written comes with its release
			}
			if !want {
				waiting = true
			} else if may && m.list.clear.Has(p) && !m.mustWaitForCache(p, awaited) {
				t.state[p] = active
				toActivate.Add(p)
				if d, known := t.takeLeft(p, m.now); known {
					unowned = append(unowned, d)
				}
				m.countCacheWait(p)
			}
		case active:
			if !want {
				t.state[p], t.drainSince[p] = draining, m.now
				toDrain.Add(p)
			}
		case draining:
			more = true
			if m.now.since(t.drainSince[p]) >= m.cfg.DrainTimeout {
				m.end(ErrDrainTimeout)
				return
			}
		case drained:
			switch {
			case !want:
				waiting = true
			case !m.own.fenced:
				// Its release was not sent and nobody can have evicted this member, so
				// the claim stands and nobody else has become active.
				t.state[p] = active
				toActivate.Add(p)
			}
		}
	}
	m.list.clear = ring.Set{}
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
	if !toActivate.Empty() {
		m.do(Activated{Partitions: toActivate, Unowned: unowned})
	}
}

// settled reports whether a new member has waited long enough to claim. Replicas
// that start together would else each claim everything and hand most of it on at
// once, with all objects worked on several times.
func (m *Machine) settled() bool {
	if m.cfg.Quarantine && m.now.since(m.knownAt) < m.cfg.LeaseDuration {
		return false
	}
	if m.hasSettled {
		return true
	}
	someoneJoins := false
	for _, p := range m.peers {
		switch r := p.lease.Record; {
		case r.Void():
		case !r.Claims.Empty():
			m.hasSettled = true // somebody is at work: what is free now waits for this member
			return true
		case r.Phase == PhaseJoining:
			someoneJoins = true
		}
	}
	if m.now.since(m.servedAt) >= 5*m.cfg.StartupSettle || !someoneJoins && m.now.since(m.changedAt) >= m.cfg.StartupSettle {
		m.hasSettled = true
		return true
	}
	return false
}

// wish says which partitions this member should have. None while it stops, while
// the partitions in force are cut in another way than those that it still holds,
// or while others place by another key.
func (m *Machine) updateWanted() {
	t := &m.parts
	if m.stage != serving || m.incompatible || !t.sameTable(m.inForce) {
		t.want = ring.NewSet(len(t.state))
		return
	}
	t.want = m.view.Owned(m.cfg.Member)
}

// block works out which partitions are claimed by others.
func (m *Machine) updateBlocked() {
	t := &m.parts
	if !t.blockedDirty {
		return
	}
	t.blockedDirty = false
	t.blocked = ring.NewSet(len(t.state))
	add := func(c Claims) {
		if !c.Everything && c.Parameters.SameKeys(t.parameters) && c.Set.Partitions() == len(t.state) {
			for p := range c.Set.All() { // the usual case, in a fraction of the time
				t.blocked.Add(p)
			}
			return
		}
		for p := range t.state {
			if c.overlaps(p, t.parameters) {
				t.blocked.Add(p)
			}
		}
	}
	for _, p := range m.peers {
		if !p.lease.Record.Void() {
			add(p.lease.Record.Claims)
		}
	}
	for _, tomb := range m.tombstones {
		add(tomb.Claims)
	}
}
