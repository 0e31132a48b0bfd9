// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/lease"
	"github.com/tom-ludwig/operator-scaling/shard/internal/metrics"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// loop is the goroutine of Run. It owns all of its fields, unless the comment on a field
// states otherwise.
type loop struct {
	s      *Sharder
	ctx    context.Context // of everything that Run starts
	cancel context.CancelFunc
	logger klog.Logger
	wait   sync.WaitGroup
	owner  *metav1.OwnerReference

	events  chan taggedEvent
	results chan taggedEvent // of requests; handled before events
	idle    chan struct{}    // capacity 1: cancelled work has ended

	watch       *lease.Watch
	client      *lease.Client
	machine     *claim.Machine
	incarnation int
	holder      string
	podUID      string // "" if it is not known
	takeOver    bool   // no other process of this Pod takes part in the ring
	synced      bool
	stopping    bool
	ended       error // why the machine ended; nil while it runs
	endedAt     time.Time
	deleted     []claim.Event // deletions of Leases since the machine ended
	fatal       error
	lost        int // how many of this member's Leases were deleted in quick succession
	lostAt      time.Time

	watermarks claim.Watermarks // published: the last writes of this member at its last release; immutable
	catching   bool             // the machine waits for a watermark that the informers have not reached

	attachedInformers, attachedQueues int

	retiredStats  metrics.Counts    // of earlier machines
	wanted        map[int]time.Time // since when a partition has been wanted but not active
	drainLoggedAt time.Time

	fence     *fence      // with a goroutine of its own
	changes   *changes    // for OnChange, likewise
	published *claim.Time // the machine's deadline that was published last; nil while the machine is fenced
	releases  uint64      // number of the last Released that the next write must wait for; 0 for none

	faultMu sync.Mutex
	faults  map[string]string // by Lease: the error that was logged last; guarded by faultMu
}

// taggedEvent is an event for one incarnation, so that a late result of a request
// is not treated as the result of a request of the next incarnation.
type taggedEvent struct {
	incarnation int
	event       any // a claim.Event, or refused
}

const anyIncarnation = 0

// post sends an event to the loop, from any other goroutine.
func (l *loop) post(incarnation int, e any) {
	select {
	case l.events <- taggedEvent{incarnation, e}:
	case <-l.ctx.Done():
	}
}

// refused is an event for the loop itself and not for the machine: the API server refused
// a request. It ends Run if this member has not joined.
type refused struct{ err error }

// postResult is post for the result of a request.
func (l *loop) postResult(incarnation int, e claim.Event) {
	select {
	case l.results <- taggedEvent{incarnation, e}:
	case <-l.ctx.Done():
	}
}

// handleResults handles all waiting results, so that many events from the watch do not
// delay the result of a renewal until the fence.
func (l *loop) handleResults() {
	for {
		select {
		case e := <-l.results:
			l.handlePosted(e)
		default:
			return
		}
	}
}

// handlePosted handles an event that another goroutine has posted.
func (l *loop) handlePosted(e taggedEvent) {
	if e.incarnation != anyIncarnation && e.incarnation != l.incarnation {
		return
	}
	switch e := e.event.(type) {
	case claim.Event:
		l.step(e)
	case refused:
		// After this member has joined, a refusal may be temporary, for instance a mistake
		// in a change of the RBAC rules. Until it is fixed, the fence protects what this
		// member owns.
		if !l.changes.hasJoined() {
			l.fatal = e.err
		} else {
			l.logger.Error(e.err, "The API server refused a request", "member", l.holder)
		}
	}
}

// step passes one event to the machine and carries out its actions.
func (l *loop) step(e claim.Event) {
	switch e.(type) {
	case claim.Synced:
		l.synced = true
	case claim.LeaseDeleted:
		if l.ended != nil {
			// The next machine must learn of it: the process of that Lease may still run.
			l.deleted = append(l.deleted, e)
		}
	}
	if l.ended != nil {
		return
	}
	givenUp := l.machine.Stats().CacheWaitsGivenUp
	actions := l.machine.Step(l.s.now(), e)
	if l.machine.Serving() {
		l.notify(Joined, ring.Set{}, nil)
	}
	for _, action := range actions { // before readers see the new state
		switch a := action.(type) {
		case claim.Unfenced:
			l.notify(Unfenced, ring.Set{}, nil)
		case claim.Activated:
			l.notify(Activated, a.Partitions, nil)
		}
	}
	if n := l.machine.Stats().CacheWaitsGivenUp - givenUp; n > 0 {
		l.logCacheLag(n)
	}
	// Readers see the new state before informers, queues and OnChange are notified of the
	// change, because they read the state when they are notified.
	l.publish(actions)
	for _, action := range actions {
		l.do(action)
	}
	if len(actions) > 0 {
		l.reportIdle()
	}
	l.catchUp()
	l.logBlockedDrain()
}

// publish makes the machine's state known to State, Fenced and the metrics.
func (l *loop) publish(actions []claim.Action) {
	if deadline, ok := l.machine.Fence(); ok {
		// Compare with the deadline that the loop published, and not with the current value:
		// the fence removes a deadline that has passed, even if the machine has not noticed yet.
		if l.published == nil || *l.published != deadline {
			unnoticed := l.fence.lift(&deadline) && l.published != nil
			l.published = &deadline
			if unnoticed {
				defer l.logger.Info("Work was stopped at the fence, and resumes because a renewal of the Lease was confirmed", "member", l.holder)
			}
			// Just before this renewal was known, a Get may have found the member fenced, by
			// the clock, and parked its item.
			_, queues := l.s.components()
			for _, q := range queues {
				q.Readmit()
			}
		}
	} else if l.published != nil {
		// Here, and not only in the action, because the actions before it may block.
		l.fence.stop(nil)
		l.published = nil
	}
	old := l.s.snapshot.Load()
	view, p := l.machine.View(), l.machine.Parameters()
	if slices.ContainsFunc(actions, changesOwnership) || view != old.ring || p.Partitions != old.partitions {
		next := &snapshot{ring: view, states: l.machine.States(), partitions: p.Partitions, tokens: make([]string, p.Partitions)}
		ended := l.machine.Ended()
		if ended {
			next = emptySnapshot(l.s.cfg.parameters()) // it may no longer work on anything that it claimed
		}
		for partition := range next.tokens {
			if ended {
				break
			}
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

// do carries out one action. It calls no function of the user, and blocks only if a log
// sink does.
func (l *loop) do(a claim.Action) {
	informers, queues := l.s.components()
	switch a := a.(type) {
	case claim.Claimed:
		l.logger.V(2).Info("Claimed", "member", l.holder, "partitions", a.Partitions.Len())
	case claim.Activated:
		l.logger.V(2).Info("Activated", "member", l.holder, "partitions", a.Partitions.Len())
		for _, unowned := range a.Unowned {
			l.s.metrics.Unowned(unowned)
		}
		for _, i := range informers {
			i.Activated(a.Partitions)
		}
		for _, q := range queues {
			q.Readmit()
		}
	case claim.Drain:
		l.logger.V(2).Info("Draining", "member", l.holder, "partitions", a.Partitions.Len())
		l.drainLoggedAt = time.Now()
		for _, q := range queues {
			q.Drain(a.Partitions.HasPoint)
		}
		l.notify(Draining, a.Partitions, nil)
	case claim.Released:
		l.watermarks = l.s.writes.Watermarks() // the work has ended, and the write that withdraws the claims is not sent yet
		l.logger.V(2).Info("Released", "member", l.holder, "partitions", a.Partitions.Len())
		l.notify(Released, a.Partitions, nil)
		l.releases = l.changes.number()
		for _, i := range informers {
			i.Released(a.Partitions)
		}
		for _, q := range queues {
			q.Readmit() // drops the parked items of these partitions
		}
	case claim.Fenced:
		l.stopWork()
	case claim.Unfenced: // publish has lifted the fence
	case claim.Ended:
		l.end(a.Reason)
	case claim.Relist:
		l.logger.Info("Lease watch is stale, restarting it", "member", l.holder)
		l.watch.Relist()
	default:
		l.request(a)
	}
}

// stopWork stops all work, unless the fence has already stopped it: the member may not act
// until it has renewed its Lease.
func (l *loop) stopWork() {
	l.fence.stop(nil)
	if l.machine != nil && !l.machine.Ended() { // else Left follows
		l.notify(Fenced, ring.Set{}, nil)
	}
	if l.machine != nil && l.machine.Serving() && !l.stopping && l.ended == nil {
		l.logger.Info("Fenced: no renewal of the Lease was confirmed in time; work resumes after the next confirmed renewal", "member", l.holder)
	}
}

// end handles the end of the machine: this member owns nothing from now on.
func (l *loop) end(reason error) {
	l.ended, l.endedAt = reason, time.Now()
	l.stopWork()
	if !errors.Is(reason, claim.ErrStopped) {
		l.logger.Info("The member has ended", "member", l.holder, "reason", reason)
	}
	left := reason
	if errors.Is(reason, claim.ErrStopped) {
		left = nil
	}
	l.notify(Left, ring.Set{}, left)
	all := ring.FullSet(l.machine.Parameters().Partitions)
	informers, queues := l.s.components()
	for _, i := range informers {
		i.Released(all)
	}
	for _, q := range queues {
		q.Readmit()
	}
}
