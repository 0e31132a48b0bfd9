// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/lease"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// waitForPod waits until no other live process of this Pod takes part in the ring. Only
// the process with the Pod's lock ever holds a Lease with this Pod's UID. A process that
// gets the lock may therefore void the Lease that it finds, because the process that held
// it is dead. waitForPod returns false if the context ends first.
//
// A process that cannot use the lock does not wait. It voids no Lease of its Pod, and
// publishes no UID, neither by itself nor in an owner reference: a process that gets the
// lock would treat it as dead.
func (m *Member) waitForPod(ctx context.Context) bool {
	const period = 100 * time.Millisecond
	lock := m.pod.Lock
	if !lock.Usable() {
		return true
	}
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for waiting := false; ; waiting = true {
		held, err := lock.TryAcquire()
		if err != nil {
			m.logger.Error(err, "It cannot be determined whether another process of this Pod is alive: after a restart in place, this member waits until its Lease has expired", "podUID", m.pod.UID)
			m.pod.UID, m.pod.Owner = "", nil
		}
		switch {
		case held || err != nil:
			if waiting && held {
				m.logger.Info("The other process with this member's identity has exited")
			}
			m.Published.Change(func(v *View) { v.Status.Duplicate = "" })
			return true
		case !waiting:
			m.logger.Error(nil, "Another live process has this member's identity; waiting until it exits", "podUID", m.pod.UID)
			m.Published.Change(func(v *View) { v.Status.Duplicate = "with the same name and Pod UID" })
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return false
		}
	}
}

// startIncarnation creates a new machine: a new member with the same name.
func (m *Member) startIncarnation(predecessor string) {
	var tombstones []claim.Tombstone
	var knowledge claim.Knowledge
	if predecessor != "" {
		m.machine.Step(m.Published.Now(), claim.Tick{}) // it gets no ticks, and the time of its tombstones has passed
		tombstones, knowledge = m.machine.Tombstones(), m.machine.Knowledge()
		m.retiredStats = m.retiredStats.Plus(m.machine.Stats())
		m.Published.Change(func(v *View) { v.Holder = newHolder(m.cfg.Machine.Member) })
	}
	m.holder = m.Published.View().Holder
	m.incarnation++
	m.begunAt, m.worked = time.Now(), false
	m.ended, m.confirmed, m.successor = nil, claim.Lease{}, ""
	m.client = lease.NewClient(m.leaseConfig(m.holder))
	machine := m.cfg.Machine
	machine.Holder, machine.PodUID, machine.TakeOver = m.holder, m.pod.UID, m.pod.Lock.Held()
	machine.Predecessor, machine.Tombstones, machine.Knowledge = predecessor, tombstones, knowledge
	m.machine = claim.New(machine)
	m.logger.Info("Joining the ring", "member", m.holder)
	m.step(claim.Tick{})
	for _, known := range m.watch.Leases() {
		// Not as events of the watch, which may be ahead of the events that wait for the loop:
		// this member must not publish that its watch has come further (R49).
		m.step(claim.LeaseObserved{Lease: known, Listed: true, Ahead: true})
	}
	if m.synced {
		m.step(claim.Synced{})
	}
	if m.stopping {
		m.step(claim.Stop{})
	}
}

// end handles the end of the machine: this member owns nothing from now on.
func (m *Member) end(reason error) {
	m.ended, m.endedAt = reason, time.Now()
	m.stopWork()
	left := reason
	if errors.Is(reason, claim.ErrStopped) {
		left = nil
	} else {
		m.logger.Info("The member has ended", "member", m.holder, "reason", reason, "by", m.successor)
	}
	switch {
	case errors.Is(reason, claim.ErrEvicted):
		m.cfg.Metrics.LeaseLost("evicted")
	case errors.Is(reason, claim.ErrVanished):
		m.cfg.Metrics.LeaseLost("deleted")
	case errors.Is(reason, claim.ErrWentBack):
		m.cfg.Metrics.LeaseLost("restored")
	case errors.Is(reason, claim.ErrTakenOver):
		m.cfg.Metrics.LeaseLost("taken_over")
	}
	m.notify(Left, ring.Set{}, left)
	m.Components.released(ring.FullSet(m.machine.Parameters().Partitions))
}

// handleEnd decides what happens after a machine has ended: a new one starts (again is
// true), or Run returns err (again is false).
func (m *Member) handleEnd() (again bool, err error) {
	reason := m.ended
	if errors.Is(reason, claim.ErrStopped) {
		m.logger.Info("Left the ring", "member", m.holder)
		return false, nil
	}
	if errors.Is(reason, claim.ErrDrainTimeout) || errors.Is(reason, claim.ErrStaleWatch) {
		return false, fmt.Errorf("shard: ring %s, member %s: %w%s", m.cfg.Lease.Ring, m.holder, reason, m.stuckWork())
	}
	// The Lease was lost, and peers may own everything. Join again only when all work
	// has stopped, so that this process never works for two incarnations.
	if m.Components.InFlight() > 0 {
		if time.Since(m.endedAt) >= m.cfg.Machine.DrainTimeout {
			return false, fmt.Errorf("shard: ring %s, member %s: after %w: %w%s", m.cfg.Lease.Ring, m.holder, reason, claim.ErrDrainTimeout, m.stuckWork())
		}
		m.Published.Change(func(v *View) { v.Status.At = time.Now() }) // the loop waits and has not hung
		return true, nil
	}
	if m.stopping {
		m.logger.Info("Left the ring", "member", m.holder, "reason", reason)
		return false, nil
	}
	if errors.Is(reason, claim.ErrVanished) {
		m.dropSuspectOwnerRef()
	}
	m.startIncarnation(m.holder)
	return true, nil
}

// dropSuspectOwnerRef removes the owner reference if the Lease is deleted repeatedly: if
// no Pod has the UID, the garbage collector deletes every Lease that this member creates,
// and each time the partitions that it claimed have to wait.
func (m *Member) dropSuspectOwnerRef() {
	if time.Since(m.lostAt) > 20*m.cfg.Machine.LeaseDuration {
		m.lost = 0
	}
	m.lost, m.lostAt = m.lost+1, time.Now()
	if m.lost >= 3 && m.pod.Owner != nil {
		m.logger.Error(nil, "The Lease was deleted several times in a short time; creating it without an owner reference from now on. Check that POD_UID is the UID of this Pod", "podUID", m.pod.Owner.UID)
		m.pod.Owner = nil
	}
}

// stuckWork names the work in flight, for an error.
func (m *Member) stuckWork() string {
	items := m.Components.Items(nil)
	if len(items) == 0 {
		return ""
	}
	return "; work in flight: " + strings.Join(few(items), ", ")
}
