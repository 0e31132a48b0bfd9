// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"fmt"
	"slices"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Stats returns the counts so far.
func (m *Machine) Stats() Stats { return m.stats }

// View returns the ring of the live members as this member sees them, under the
// parameters in force.
func (m *Machine) View() *ring.Ring { return m.view }

// Serving reports whether a confirmed write has published the phase active: the member is on
// the ring, unless [Machine.Crowd] says otherwise.
func (m *Machine) Serving() bool { return m.stage == serving && m.own.phase == PhaseActive }

// Crowd returns how many active members are not on the ring because it has no room for them,
// and whether this member is one of them (R90).
func (m *Machine) Crowd() (offRing int, self bool) { return m.placed.offRing, m.placed.crowdedOut }

// Ended reports whether the machine has returned [Ended]. It returns no actions after it.
func (m *Machine) Ended() bool { return m.stage == ended }

// Incompatible reports whether this member cannot apply the parameters in force, for
// example because they are for another key. It then waits until the members that use them
// have left.
func (m *Machine) Incompatible() bool { return m.placed.incompatible }

// ParametersInForce returns the parameters in force, and the name of the Lease that they are
// from if they are not this member's own parameters (R48).
func (m *Machine) ParametersInForce() (p ring.Parameters, lease string) {
	return m.placed.inForce, m.placed.inForceLease
}

// Duplicate returns the holder of this member's Lease if it is another live process with
// the same name, otherwise "".
func (m *Machine) Duplicate() string {
	if m.stage == acquiring && m.otherHolder.duplicate {
		return m.otherHolder.lease.Record.Holder
	}
	return ""
}

// WaitsFor says what this member waits for before it works for the first time: with an empty
// text for nothing, or for what only takes a request or two. It does not know which informers
// have not synced.
func (m *Machine) WaitsFor() string {
	k := &m.knowledge
	if k.settled && m.hasSettled {
		return ""
	}
	var starting []string // Leases
	for _, p := range m.peers {
		if r := p.lease.Record; !r.Void() && r.Phase == PhaseJoining && (m.stage == serving || k.awaited[p.lease.UID]) {
			starting = append(starting, p.lease.Name)
		}
	}
	slices.Sort(starting)
	rest := max(k.at.Add(m.longest()).since(m.now), 0).Round(time.Second)
	switch {
	case m.stage == acquiring:
		return "it does not hold its Lease yet"
	case m.stage == joining && !m.synced:
		return "its informers have not synced"
	case m.stage == joining && (!m.known || k.listed == ""):
		return "it has not seen the Leases of the ring yet"
	case m.stage == joining && k.cold && len(starting) > 0:
		return fmt.Sprintf("it waits until %s has seen its Lease, at most %v more", few(starting), rest)
	case (m.stage == joining || m.stage == serving) && !k.settled:
		return fmt.Sprintf("it waits for a member that is at work, or until Leases that may have been deleted count no more, at most %v more", rest)
	case m.stage == serving && m.cfg.Quarantine && m.now.since(m.knownAt) < m.cfg.LeaseDuration:
		return "it waits one lease duration, because Quarantine is set"
	case m.stage == serving && !m.hasSettled && len(starting) > 0:
		return fmt.Sprintf("it waits for %s, which starts at the same time", few(starting))
	case m.stage == serving && !m.hasSettled:
		return "it waits a moment for other members that start at the same time"
	}
	return ""
}

// few returns one of some names, and how many others there are.
func few(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return fmt.Sprintf("%s (and %d more)", names[0], len(names)-1)
}

// RenewedAt returns when a write to the member's Lease was last confirmed. It returns false
// if none was.
func (m *Machine) RenewedAt() (Time, bool) { return m.own.confirmedAt, m.own.confirmedVersion != "" }

// TombstoneCount returns how many tombstones are in force.
func (m *Machine) TombstoneCount() int { return len(m.tombstones) }

// WatchFresh reports whether the member's own writes come back through the watch in time
// (R33).
func (m *Machine) WatchFresh() bool { return m.watchProbe.fresh(m.now, m.cfg.WatchLagLimit) }

// Parameters returns the parameters that define the partitions in [Machine.States].
func (m *Machine) Parameters() ring.Parameters { return m.parts.parameters }

// States returns what the member may do with each partition.
func (m *Machine) States() []ring.State {
	states := make([]ring.State, len(m.parts.state))
	for p, s := range m.parts.state {
		switch s {
		case active:
			states[p] = ring.Active
		case claimed, draining, drained:
			states[p] = ring.Pending
		}
	}
	return states
}

// Draining returns the partitions on which work may still be in flight although
// it should end.
func (m *Machine) Draining() ring.Set { return m.parts.in(draining) }

// Token returns the resourceVersion of the write that claimed the partition, "" if the
// partition is free. It strictly increases from owner to owner.
func (m *Machine) Token(partition int) string {
	if partition < 0 || partition >= len(m.parts.state) || m.parts.state[partition] == free {
		return ""
	}
	return m.parts.token[partition]
}

// PeerStatus is another member's Lease as this member sees it.
type PeerStatus struct {
	Lease  Lease
	Silent time.Duration // since it was last seen to change
}

// Peers returns the other members' Leases, void ones included, sorted by name.
func (m *Machine) Peers() []PeerStatus {
	var list []PeerStatus
	for _, p := range m.peersWhere(func(*peer) bool { return true }) {
		list = append(list, PeerStatus{Lease: p.lease, Silent: m.now.since(p.changedAt)})
	}
	return list
}

// Blockers returns, by holder, how many of the partitions that this member waits for are
// claimed by another member or a tombstone.
func (m *Machine) Blockers() map[string]int {
	blockers := map[string]int{}
	var waiting []int
	for p := range m.parts.want.All() {
		if s := m.parts.state[p]; s == free || s == claimed {
			waiting = append(waiting, p)
		}
	}
	if len(waiting) == 0 {
		return blockers // the caller asks after each heartbeat of each peer
	}
	count := func(holder string, c Claims) {
		for _, p := range waiting {
			if c.overlaps(p, m.parts.parameters) {
				blockers[holder]++
			}
		}
	}
	for _, p := range m.peers {
		if !p.lease.Record.Void() {
			count(p.lease.Record.Holder, p.lease.Record.Claims)
		}
	}
	for _, t := range m.tombstones {
		count(t.Holder, t.Claims)
	}
	return blockers
}

// Next returns the time, on the monotonic clock, by which the machine needs its next
// event at the latest: a Tick if nothing else happens. It is always later than the last
// event, but soon after it: timers do not follow the wall clock, on which the fence may
// be reached first.
func (m *Machine) Next() time.Duration {
	next := m.now.Mono + min(m.cfg.RenewPeriod, time.Second)
	at := func(t Time) {
		if t.Mono > m.now.Mono {
			next = min(next, t.Mono)
		}
	}
	if m.own.op == nil {
		at(m.own.renewAt)
		at(m.own.retryAt)
		if m.own.answer {
			at(m.own.answerAt)
		}
		at(m.otherHolder.lookAt)
		if m.newcomerSeen.version != "" {
			at(m.newcomerSeen.due)
		}
		if m.parts.waiting {
			at(m.parts.waitUntil)
		}
	} else if m.own.op.kind == opUpdate && !m.own.op.hasRead {
		at(m.own.op.sent.Add(m.cfg.RenewPeriod))
	}
	if !m.own.fenced {
		at(m.own.fence)
	}
	if m.stage == stopping {
		at(m.stoppedAt.Add(m.cfg.Coalesce))
		at(m.stoppedAt.Add(m.cfg.LeaseDuration))
	}
	if m.stage == leaving {
		at(m.leftAt.Add(m.cfg.Coalesce))
	}
	at(m.list.retryAt)
	if m.ringDirty && m.building.op == 0 {
		at(m.building.next)
	}
	if len(m.watchProbe.waiting) > 0 {
		at(m.watchProbe.waiting[0].at.Add(m.cfg.WatchLagLimit))
		at(m.watchProbe.relist.Add(m.cfg.WatchLagLimit))
	}
	alive := m.alive()
	for _, p := range m.peers {
		switch {
		case !m.mayRemove(): // a response comes first
		case !p.lease.Record.Void():
			at(m.evictAt(p, alive))
		default:
			at(p.sweepAt)
		}
		at(p.retryAt)
		if p.suspectVersion != "" {
			at(p.suspectAt)
		}
	}
	for _, t := range m.tombstones {
		at(t.until)
	}
	if m.knowledge.listed != "" {
		at(m.knowledge.at.Add(m.knowledge.wait))
	}
	if m.list.answer != nil {
		at(m.list.answeredAt.Add(m.cfg.RenewPeriod))
	}
	m.cacheTimes(at)
	for p := range m.parts.in(draining).All() {
		if !m.parts.cancelled.Has(p) {
			at(m.parts.drainSince[p].Add(m.cfg.DrainGrace))
		}
		at(m.parts.drainSince[p].Add(m.cfg.DrainGrace + m.cfg.DrainTimeout))
	}
	if m.stage == serving && !m.hasSettled {
		at(Time{Mono: m.settlesAt()})
		at(m.servedAt.Add(5 * m.cfg.StartupSettle))
	}
	if m.cfg.Quarantine {
		at(m.knownAt.Add(m.cfg.LeaseDuration))
	}
	return max(next, m.now.Mono)
}
