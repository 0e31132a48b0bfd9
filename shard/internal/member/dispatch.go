// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"maps"
	"slices"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/metrics"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// catchUpPeriod is how often the loop checks the caches while they have not reached a
// watermark.
const catchUpPeriod = 5 * time.Millisecond

// step passes an event to the machine, and then what the member itself observes.
func (m *Member) step(e claim.Event) {
	m.followUp(m.apply(e))
}

// followUp passes to the machine what the member itself observes, until that changes
// nothing: work that no longer holds up a drain, after actions; and caches that have
// reached watermarks.
func (m *Member) followUp(acted bool) {
	for m.ended == nil {
		if acted {
			acted = false
			if idle := m.idlePartitions(); !idle.Empty() {
				acted = m.apply(claim.Idle{Partitions: idle})
				continue
			}
		}
		reached := m.reachedWatermarks()
		if len(reached) == 0 {
			m.logBlockedDrain()
			return
		}
		acted = m.apply(claim.WatermarksReached{Watermarks: reached})
	}
}

// idlePartitions returns the draining partitions that have no work in flight.
func (m *Member) idlePartitions() ring.Set {
	draining := m.machine.Draining()
	if draining.Empty() {
		return draining
	}
	return m.Components.idle(draining)
}

// reachedWatermarks returns those of the watermarks that the machine waits for that the
// caches have reached. If there are others, the loop looks again soon.
func (m *Member) reachedWatermarks() claim.Watermarks {
	pending := m.machine.PendingWatermarks()
	if m.catching = pending != nil; !m.catching {
		return nil
	}
	m.looked = m.Published.Now().Mono
	reached := m.cfg.Caches.Reached(pending)
	m.catching = len(reached) < len(pending)
	return reached
}

// apply passes one event to the machine, publishes the new state, and then carries out
// the machine's actions. It reports whether there were any.
func (m *Member) apply(e claim.Event) (acted bool) {
	switch e := e.(type) {
	case claim.Synced:
		m.synced = true
	case claim.LeaseObserved:
		m.noteLease(e.Lease)
	case claim.GetResult:
		if e.Outcome == claim.OK {
			m.noteLease(e.Lease)
		}
	case claim.WriteResult:
		// A late response, to a write that a read has confirmed, may come after that of a later one.
		if e.Outcome == claim.OK && (e.Lease.UID != m.confirmed.UID || e.Lease.Record.Seq > m.confirmed.Record.Seq) {
			m.confirmed, m.successor = e.Lease, ""
		}
	}
	if m.ended != nil {
		m.machine.Step(m.Published.Now(), e) // it follows the watch for the next machine (R64)
		return false
	}
	before := m.machine.Stats()
	actions := m.machine.Step(m.Published.Now(), e)
	after := m.machine.Stats()
	if e, ok := e.(claim.LeaseObserved); ok && after.OldRecords > before.OldRecords {
		m.leaseFault(e.Lease.Name, errOldRecord)
	}
	if m.machine.Serving() {
		m.joined = true
		m.notify(Joined, ring.Set{}, nil)
	}
	for _, action := range actions { // OnChange learns of work that is allowed before it can begin
		switch a := action.(type) {
		case claim.Unfenced:
			m.notify(Unfenced, ring.Set{}, nil)
		case claim.Activated:
			m.notify(Activated, a.Partitions, nil)
		}
	}
	// Readers see the new state before informers, queues and OnChange are notified of the
	// change, because they read the state when they are notified.
	m.publish(actions)
	for _, action := range actions {
		m.do(action)
	}
	if !m.assigned && m.machine.Serving() && m.assignedNothing() {
		m.activated(ring.NewSet(m.machine.Parameters().Partitions)) // so that no handler waits for its first replay
	}
	if n := after.CacheWaitsGivenUp - before.CacheWaitsGivenUp; n > 0 {
		m.logCacheLag(n)
	}
	return len(actions) > 0
}

func (m *Member) activated(set ring.Set) {
	m.assigned = true
	m.Components.activated(set)
}

// assignedNothing reports whether this member is ready (see Status) although it gets no partition: it is on
// a ring that has more members than partitions, or cannot be on the ring before others have left.
func (m *Member) assignedNothing() bool {
	view := m.machine.View()
	return m.machine.Incompatible() ||
		slices.Contains(view.Members(), m.cfg.Machine.Member) && view.Owned(m.cfg.Machine.Member).Empty()
}

// publish makes the machine's state known to all readers, in one piece. Then it notifies
// the queues of a change of the fence.
func (m *Member) publish(actions []claim.Action) {
	old := m.Published.View()
	next := *old
	view, p := m.machine.View(), m.machine.Parameters()
	moved := slices.ContainsFunc(actions, changesOwnership) || view != old.Ring || p.Partitions != len(old.States)
	switch {
	case moved && m.machine.Ended():
		next.ownNothing(m.cfg.Machine.Parameters) // it may no longer work on anything that it claimed
	case moved:
		next.Ring, next.States, next.Tokens = view, m.machine.States(), make([]string, p.Partitions)
		for partition := range next.Tokens {
			next.Tokens[partition] = m.machine.Token(partition)
		}
	}
	var took []time.Duration
	if moved {
		took = m.handovers.observe(&next, m.cfg.Machine.Member)
	}
	next.Status = m.status()
	if moved {
		next.Moved = next.Status.At
	}
	// Compare with the deadline that the loop published, and not with the current one: the
	// fence removes a deadline that has passed, even if the machine has not noticed yet.
	deadline, working := m.machine.Fence()
	renewed := working && (m.deadline == nil || *m.deadline != deadline)
	stopped := !working && m.deadline != nil
	before := m.deadline
	switch {
	case renewed:
		next.Fence = &deadline
		m.deadline = next.Fence
	case stopped:
		next.Fence, m.deadline = nil, nil
	}
	wasDown := m.fence.publish(next, !renewed && !stopped)

	if stopped {
		m.fence.stop(nil) // here, and not only in the action, because the actions before it may block
	}
	if renewed {
		// Just before this renewal was known, a Get may have found the member fenced, by
		// the clock, and parked its item.
		m.Components.readmit()
		if wasDown && before != nil {
			m.logger.Info("Work was stopped at the fence, and resumes because a renewal of the Lease was confirmed", "member", m.holder)
		}
	}
	m.logWait(next.Status.WaitsFor)
	if other := next.Status.Duplicate; other != "" && other != old.Status.Duplicate {
		m.logRarely(&m.duplicates, other, nil, "Another live process holds the Lease of this member's Pod name: each replica needs a name of its own", "member", m.holder, "holder", short(other))
	}
	if from := next.Status.InForceLease; from != old.Status.InForceLease {
		m.logParameters(from)
	}
	if was, is := old.Status, next.Status; is.CrowdedOut != was.CrowdedOut || (is.OffRing > 0) != (was.OffRing > 0) {
		m.logCrowd(is)
	}
	if moved && view != old.Ring {
		m.ringChanged(old.Ring, view)
	}
	for _, lasted := range took {
		m.cfg.Metrics.HandedOver(lasted)
	}
}

func changesOwnership(a claim.Action) bool {
	switch a.(type) {
	case claim.Claimed, claim.Activated, claim.Drain, claim.Released, claim.Ended:
		return true
	}
	return false
}

func (m *Member) status() Status {
	s := Status{
		At:           time.Now(),
		Renewed:      m.Published.View().Status.Renewed,
		Tombstones:   m.machine.TombstoneCount(),
		Serving:      m.machine.Serving(),
		WaitsFor:     m.machine.WaitsFor(),
		Incompatible: m.machine.Incompatible(),
		Duplicate:    m.machine.Duplicate(),
		Counts:       m.retiredStats.Plus(m.machine.Stats()),
		Draining:     m.machine.Draining().Len(),
		Warnings:     m.warn(),
	}
	if at, ok := m.machine.RenewedAt(); ok {
		s.Renewed = m.Published.started.Add(at.Mono)
	}
	_, s.InForceLease = m.machine.ParametersInForce()
	s.OffRing, s.CrowdedOut = m.machine.Crowd()
	if m.handovers.waiting() {
		s.Blockers = m.blockersNow()
	}
	return s
}

// blockersNow returns the partitions that other members still claim, by Pod, as of the last
// second: with many Leases, to look at all claims in each step would cost more than the step.
func (m *Member) blockersNow() map[string]int {
	if now := time.Now(); now.Sub(m.blockersAt) >= time.Second {
		m.blockers, m.blockersAt = byPod(m.machine.Blockers()), now
	}
	return m.blockers
}

// do carries out one action. It calls no function of the user, and blocks only if a log
// sink does.
func (m *Member) do(a claim.Action) {
	switch a := a.(type) {
	case claim.Claimed:
		m.logger.V(2).Info("Claimed", "member", m.holder, "partitions", a.Partitions.Len())
	case claim.Activated:
		m.logActivated(a.Partitions.Len())
		for _, unowned := range a.Unowned {
			m.cfg.Metrics.Unowned(unowned)
		}
		m.activated(a.Partitions)
	case claim.Drain:
		m.logger.V(2).Info("Draining", "member", m.holder, "partitions", a.Partitions.Len())
		m.drainLoggedAt = time.Now()
		m.Components.drain(a.Partitions)
		m.notify(Draining, a.Partitions, nil)
	case claim.Cancel:
		m.logger.V(2).Info("Cancelling the work that has not ended within DrainGrace", "member", m.holder, "partitions", a.Partitions.Len())
		m.Components.cancel(a.Partitions)
	case claim.Released:
		m.watermarks = m.cfg.Writes.Watermarks() // the work has ended, and the write that withdraws the claims is not sent yet
		m.logger.V(2).Info("Released", "member", m.holder, "partitions", a.Partitions.Len())
		m.notify(Released, a.Partitions, nil)
		m.releases = m.changes.number()
		m.Components.released(a.Partitions)
	case claim.Fenced:
		m.stopWork()
	case claim.Unfenced: // publish has lifted the fence
	case claim.Ended:
		m.end(a.Reason)
	case claim.BuildRing:
		// Not on the loop: a large ring takes seconds, and renewals must not wait (R28).
		incarnation := m.incarnation
		m.start(func() { m.post(m.results, incarnation, a.Build()) })
	case claim.Relist:
		m.logRarely(&m.relists, "", nil, "Lease watch is stale, restarting it", "member", m.holder)
		m.watch.Relist()
	default:
		m.request(a)
	}
}

// logActivated logs that partitions became active, for everyone to see if they are the first.
func (m *Member) logActivated(partitions int) {
	if m.worked {
		m.logger.V(2).Info("Activated", "member", m.holder, "partitions", partitions)
		return
	}
	m.worked = true
	m.logger.Info("Activated the first partitions: work begins", "member", m.holder, "partitions", partitions, "after", time.Since(m.begunAt).Round(time.Millisecond))
}

// logWait logs what a member waits for that does not work soon after it has started. What it
// logs of informers is more detailed.
func (m *Member) logWait(waitsFor string) {
	const soon = 3 * time.Second
	if waitsFor != "" && m.synced && time.Since(m.begunAt) >= soon {
		m.logRarely(&m.waits, "", nil, "This member does not work yet", "member", m.holder, "because", short(waitsFor))
	}
}

// stopWork stops all work, unless the fence has already stopped it: the member may not act
// until it has renewed its Lease.
func (m *Member) stopWork() {
	m.fence.stop(nil)
	if m.machine == nil {
		return
	}
	if !m.machine.Ended() { // else Left follows
		m.notify(Fenced, ring.Set{}, nil)
	}
	if m.machine.Serving() && !m.stopping && m.ended == nil {
		m.logger.Info("Fenced: no renewal of the Lease was confirmed in time; work resumes after the next confirmed renewal", "member", m.holder, "err", m.failures.last())
	}
}

// notify posts a change to OnChange.
func (m *Member) notify(kind ChangeKind, partitions ring.Set, err error) {
	c := Change{Kind: kind, Member: m.holder, Err: err}
	if m.cfg.OnChange != nil {
		c.Partitions = slices.Collect(partitions.All())
	}
	m.changes.post(c)
}

// logParameters logs whose parameters are in force (R48).
func (m *Member) logParameters(from string) {
	inForce, _ := m.machine.ParametersInForce()
	own := m.cfg.Machine.Parameters.Fingerprint()
	if from == "" {
		m.logger.Info("This member's own ring parameters are in force", "member", m.holder, "parameters", own)
		return
	}
	m.logger.Info("The ring parameters of an older Lease are in force, and not this member's own, until no member holds that Lease", "member", m.holder,
		"lease", from, "parameters", inForce.Fingerprint(), "own", own)
}

// logCrowd logs that the ring has no room for some of the members, or that it has again (R90).
func (m *Member) logCrowd(s Status) {
	switch {
	case s.CrowdedOut:
		m.logRarely(&m.crowds, "this", nil, "This member owns nothing: so many older members are active that it is not on the ring", "member", m.holder, "most", ring.MaxMembers, "offRing", s.OffRing)
	case s.OffRing > 0:
		m.logRarely(&m.crowds, "others", nil, "More members are active than the ring has room for; the youngest are not on it", "member", m.holder, "most", ring.MaxMembers, "offRing", s.OffRing)
	default:
		m.logRarely(&m.crowds, "none", nil, "All active members are on the ring again", "member", m.holder)
	}
}

// ringChanged counts and logs a change of the view.
func (m *Member) ringChanged(before, after *ring.Ring) {
	was, is := before.Members(), after.Members()
	change := metrics.Change{
		Added: difference(is, was), Removed: difference(was, is),
		Parameters: before.Parameters() != after.Parameters(),
		Relocated:  after.Relocated(before), Partitions: after.Parameters().Partitions,
	}
	m.cfg.Metrics.RingChanged(change)
	if len(change.Added)+len(change.Removed) > 0 || change.Relocated > 0 {
		m.logger.Info("The ring has changed", "member", m.holder, "members", len(is), "added", few(change.Added), "removed", few(change.Removed), "relocated", change.Relocated)
	}
}

// logBlockedDrain logs, every few seconds, what a drain is waiting for.
func (m *Member) logBlockedDrain() {
	const every = 5 * time.Second
	if time.Since(m.drainLoggedAt) < every {
		return
	}
	m.drainLoggedAt = time.Now()
	if draining := m.machine.Draining(); !draining.Empty() {
		m.logger.Info("A drain is waiting for work to end", "member", m.holder, "partitions", draining.Len(), "items", few(m.Components.Items(draining.HasPoint)))
	}
	if d := m.machine.StaysFor(); d > 0 && m.machine.Draining().Empty() {
		m.logger.Info("This member stops later: no other member knows that Leases were deleted whose processes may still work", "member", m.holder, "leases", m.machine.TombstoneCount(), "atMost", d)
	}
	if d := m.changes.stuck(); d >= every {
		m.logger.Error(nil, "OnChange has not returned; later changes wait for it", "member", m.holder, "running", d)
	}
	if blockers := m.machine.Blockers(); len(blockers) > 0 && m.machine.Serving() {
		m.logger.V(2).Info("Other members still claim partitions of this member", "member", m.holder, "blockers", len(blockers), "holders", few(slices.Sorted(maps.Keys(blockers))))
	}
}

// logCacheLag logs that partitions became active although the caches have not reached the
// watermarks within CacheSyncTimeout.
func (m *Member) logCacheLag(partitions uint64) {
	logger := m.logger.V(2)
	if !logger.Enabled() {
		return
	}
	lagging := m.machine.UnreachedWatermarks()
	logger.Info("Activated partitions although the caches have not reached what their former owners wrote", "member", m.holder,
		"partitions", partitions, "watermarks", lagging, "cached", m.cfg.Caches.Cached(lagging))
}
