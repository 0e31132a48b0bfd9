// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/claim"
	"github.com/tom-ludwig/operator-scaling/shard/lease"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// refused is an event of the loop's own: a request was refused before this member
// has joined. It ends Run.
type refused struct{ err error }

// take handles an event that another goroutine has posted.
func (l *loop) take(e any) {
	switch e := e.(type) {
	case claim.Event:
		l.step(e)
	case refused:
		// Once this member has joined, a refusal may be a passing mistake of those who
		// change the rules: the fence guards what it owns meanwhile.
		if !l.machine.Serving() {
			l.fatal = e.err
		} else {
			l.logger.Error(e.err, "A request was refused", "member", l.holder)
		}
	}
}

// step gives one event to the machine and does what it asks for.
func (l *loop) step(e claim.Event) {
	if l.ended != nil {
		return
	}
	switch e.(type) {
	case claim.Synced:
		l.synced = true
	}
	actions := l.machine.Step(l.s.now(), e)
	// Readers see the new state before anybody is told of the change: who is told
	// looks again.
	l.publish(actions)
	for _, action := range actions {
		l.do(action)
	}
	if len(actions) > 0 {
		l.reportIdle()
	}
	l.tellBlocked()
}

// publish makes the machine's state known to State, Fenced and the metrics.
func (l *loop) publish(actions []claim.Action) {
	if deadline, ok := l.machine.Fence(); ok {
		if old := l.s.deadline.Load(); old == nil || *old != deadline {
			l.s.deadline.Store(&deadline)
			// A Get may have found the member fenced, by the clock, in the moment before
			// this renewal was known, and put its item aside.
			_, queues := l.s.parts()
			for _, q := range queues {
				q.Readmit()
			}
		}
	} else {
		l.s.deadline.Store(nil)
	}
	old := l.s.snapshot.Load()
	view, p := l.machine.View(), l.machine.Parameters()
	if slices.ContainsFunc(actions, changesOwnership) || view != old.ring || p.Partitions != old.partitions {
		next := &snapshot{ring: view, states: l.machine.States(), partitions: p.Partitions, tokens: make([]string, p.Partitions)}
		if slices.ContainsFunc(actions, func(a claim.Action) bool { _, ended := a.(claim.Ended); return ended }) {
			next = emptySnapshot(l.s.cfg.parameters()) // whatever it claimed, it may not work on it any more
		}
		for partition := range next.tokens {
			next.tokens[partition] = l.machine.Token(partition)
		}
		l.s.snapshot.Store(next)
		if view != old.ring {
			l.membersChanged(old.ring, view)
		}
		l.measureHandover(next)
	}
	l.s.status.Store(l.newStatus())
}

func changesOwnership(a claim.Action) bool {
	switch a.(type) {
	case claim.Claimed, claim.Activated, claim.Drain, claim.Released, claim.Ended:
		return true
	}
	return false
}

// do carries out one action. It never blocks.
func (l *loop) do(a claim.Action) {
	informers, queues := l.s.parts()
	switch a := a.(type) {
	case claim.Claimed:
		l.logger.V(2).Info("Claimed", "member", l.holder, "partitions", a.Partitions.Len())
	case claim.Activated:
		l.logger.V(2).Info("Activated", "member", l.holder, "partitions", a.Partitions.Len())
		for _, i := range informers {
			i.Activated(a.Partitions)
		}
		for _, q := range queues {
			q.Readmit()
		}
	case claim.Drain:
		l.logger.V(2).Info("Draining", "member", l.holder, "partitions", a.Partitions.Len())
		l.drainTold = time.Now()
		for _, q := range queues {
			q.Drain(a.Partitions.HasPoint)
		}
	case claim.Released:
		l.logger.V(2).Info("Released", "member", l.holder, "partitions", a.Partitions.Len())
		for _, i := range informers {
			i.Released(a.Partitions)
		}
		for _, q := range queues {
			q.Readmit() // drops what is parked
		}
	case claim.Fenced:
		l.fence()
	case claim.Unfenced:
		l.overrunAt = time.Time{} // the queues were told with the new deadline
	case claim.Ended:
		l.end(a.Reason)
	case claim.Relist:
		l.logger.V(0).Info("The Lease watch shows nothing new; starting it again", "member", l.holder)
		l.watch.Relist()
	default:
		l.request(a)
	}
}

// fence stops all work: the member may not act until it has renewed its Lease.
func (l *loop) fence() {
	l.s.deadline.Store(nil)
	_, queues := l.s.parts()
	for _, q := range queues {
		q.Fence()
	}
	if l.workInFlight() > 0 {
		l.overrunAt = time.Now().Add(l.s.cfg.StopGrace)
	}
	if l.machine != nil && l.machine.Serving() && !l.stopping && l.ended == nil {
		l.logger.V(0).Info("Fenced: no renewal of the Lease was confirmed in time; nothing is worked on until one is", "member", l.holder)
	}
}

// end lets go of everything: the machine has ended.
func (l *loop) end(reason error) {
	l.ended, l.endedAt = reason, time.Now()
	if !errors.Is(reason, claim.ErrStopped) {
		l.logger.V(0).Info("The member has ended", "member", l.holder, "reason", reason)
	}
	l.fence()
	all := ring.FullSet(l.machine.Parameters().Partitions)
	informers, queues := l.s.parts()
	for _, i := range informers {
		i.Released(all)
	}
	for _, q := range queues {
		q.Readmit()
	}
}

// overdue tells if work goes on although it should have stopped after the fence:
// from now on peers may work on the same objects.
func (l *loop) overdue() {
	if l.overrunAt.IsZero() || time.Now().Before(l.overrunAt) {
		return
	}
	l.overrunAt = time.Time{}
	items := l.items(everything)
	if len(items) == 0 {
		return
	}
	l.logger.Error(nil, "Work goes on although this member is fenced: another member may be working on the same objects", "member", l.holder, "items", items)
	if hook := l.s.cfg.StillRunning; hook != nil {
		l.goes(func() { hook(items) })
	}
}

// reportIdle tells the machine which of the partitions that are being drained
// have no work in flight any more.
func (l *loop) reportIdle() {
	if l.ended != nil {
		return
	}
	draining := l.machine.Draining()
	if draining.Empty() {
		return
	}
	idle := draining.Clone()
	_, queues := l.s.parts()
	for _, q := range queues {
		for _, work := range q.InFlight() {
			idle.Remove(ring.PartitionOf(work.Point, idle.Partitions()))
		}
	}
	if !idle.Empty() {
		l.step(claim.Idle{Partitions: idle})
	}
}

// tellBlocked says, every few seconds, what a drain is waiting for.
func (l *loop) tellBlocked() {
	const every = 5 * time.Second
	if time.Since(l.drainTold) < every {
		return
	}
	l.drainTold = time.Now()
	if draining := l.machine.Draining(); !draining.Empty() {
		items := l.items(func(w workqueue.Work) bool { return draining.HasPoint(w.Point) })
		l.logger.V(0).Info("A drain is waiting for work to end", "member", l.holder, "partitions", draining.Len(), "items", items)
	}
	if blockers := l.machine.Blockers(); len(blockers) > 0 && l.machine.Serving() {
		l.logger.V(2).Info("Partitions of this member are still claimed by others", "member", l.holder, "blockers", blockers)
	}
}

func everything(workqueue.Work) bool { return true }

// items lists work in flight for people: item and how long it has been running.
func (l *loop) items(which func(workqueue.Work) bool) []string {
	var items []string
	_, queues := l.s.parts()
	for _, q := range queues {
		for _, work := range q.InFlight() {
			if which(work) {
				items = append(items, fmt.Sprintf("%v (%v)", work.Item, time.Since(work.Since).Round(time.Millisecond)))
			}
		}
	}
	slices.Sort(items)
	return items
}

func (l *loop) workInFlight() int {
	n := 0
	_, queues := l.s.parts()
	for _, q := range queues {
		n += len(q.InFlight())
	}
	return n
}

func (l *loop) stuckWork() string {
	items := l.items(everything)
	if len(items) == 0 {
		return ""
	}
	return "; still at work on " + strings.Join(items, ", ")
}

// request sends a request to the API server on a goroutine of its own; its answer
// comes back as an event of this incarnation.
func (l *loop) request(a claim.Action) {
	incarnation, client := l.incarnation, l.client
	send := func(timeout time.Duration, verb string, f func(context.Context) (claim.Event, error)) {
		l.goes(func() {
			ctx, cancel := context.WithTimeout(l.ctx, timeout)
			defer cancel()
			answer, err := f(ctx)
			if err != nil && l.ctx.Err() == nil {
				l.requestFailed(incarnation, verb, err)
			}
			l.post(incarnation, answer)
		})
	}
	switch a := a.(type) {
	case claim.Get:
		send(a.Timeout, "get", func(ctx context.Context) (claim.Event, error) {
			found, outcome, err := client.Get(ctx)
			if errors.Is(err, lease.ErrForeign) && strings.HasPrefix(found.Record.Holder, l.s.cfg.PodName+"_") {
				err = nil // somebody took the record off this Pod's Lease; the machine will judge it
			}
			return claim.Got{Op: a.Op, Outcome: outcome, Lease: found}, err
		})
	case claim.Create:
		send(a.Timeout, "create", func(ctx context.Context) (claim.Event, error) {
			created, outcome, err := client.Create(ctx, a.Record)
			return claim.Wrote{Op: a.Op, Outcome: outcome, Lease: created}, err
		})
	case claim.Update:
		send(a.Timeout, "update", func(ctx context.Context) (claim.Event, error) {
			updated, outcome, err := client.Update(ctx, a.UID, a.Version, a.Record)
			return claim.Wrote{Op: a.Op, Outcome: outcome, Lease: updated}, err
		})
	case claim.Delete:
		send(a.Timeout, "delete", func(ctx context.Context) (claim.Event, error) {
			outcome, err := client.Delete(ctx, a.Name, a.UID, a.Version)
			return claim.Deleted{Op: a.Op, Outcome: outcome}, err
		})
	case claim.List:
		send(a.Timeout, "list", func(ctx context.Context) (claim.Event, error) {
			leases, outcome, err := client.List(ctx)
			return claim.Listed{Op: a.Op, Outcome: outcome, Leases: leases}, err
		})
	case claim.Evict:
		send(a.Timeout, "update", func(ctx context.Context) (claim.Event, error) {
			void, outcome, err := client.Evict(ctx, a.Name, a.UID, a.Version)
			if outcome == claim.OK {
				l.logger.V(0).Info("Evicted a member that was silent for the duration of its Lease", "lease", a.Name)
			}
			return claim.Evicted{Op: a.Op, Outcome: outcome, Lease: void}, err
		})
	}
}

// requestFailed judges a failure on the goroutine of the request. Most are the
// machine's to handle; some can only be mended by a person.
func (l *loop) requestFailed(incarnation int, verb string, err error) {
	if forbidden := l.s.forbidden(err, verb); forbidden != nil {
		l.post(incarnation, refused{forbidden})
	} else if errors.Is(err, lease.ErrForeign) && verb == "get" {
		l.post(incarnation, refused{fmt.Errorf("shard: ring %s: %w; choose another LeasePrefix or delete it", l.s.cfg.Name, err)})
	}
	l.logger.V(2).Info("A request failed", "member", l.s.Identity(), "err", err)
}

// leaseFault counts and logs a Lease that can't be read. Called by the watch and
// by requests, on their goroutines; the same fault is logged once.
func (l *loop) leaseFault(name string, err error) {
	kind := "malformed"
	if errors.Is(err, lease.ErrForeign) {
		kind = "foreign"
	}
	l.s.metrics.leaseFaults.WithLabelValues(kind).Inc()
	l.faultMu.Lock()
	known := l.faults[name] == err.Error()
	if len(l.faults) > 1000 {
		clear(l.faults)
	}
	l.faults[name] = err.Error()
	l.faultMu.Unlock()
	if !known {
		l.logger.V(0).Info("A Lease can't be read as a member's record", "lease", name, "kind", kind, "err", err)
	}
}
