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

	"github.com/tom-ludwig/operator-scaling/shard/claim"
	"github.com/tom-ludwig/operator-scaling/shard/lease"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// loop is the goroutine of Run: all of its fields belong to it, but for those that
// say otherwise.
type loop struct {
	s      *Sharder
	ctx    context.Context // of everything that Run started
	cancel context.CancelFunc
	logger klog.Logger
	wait   sync.WaitGroup
	owner  *metav1.OwnerReference

	events  chan taggedEvent
	answers chan taggedEvent // to requests; taken before events
	idle    chan struct{}    // capacity 1: some work that was cancelled has ended

	watch       *lease.Watch
	client      *lease.Client
	machine     *claim.Machine
	incarnation int
	holder      string
	podUID      string // "" if it is not known
	takeOver    bool   // no other process of this Pod has a part in the ring
	synced      bool
	stopping    bool
	ended       error // why the machine ended, nil while it lives
	endedAt     time.Time
	vanished    []claim.Event // since the machine ended
	fatal       error
	lost        int // Leases that were deleted, one soon after the other
	lostAt      time.Time

	watermarks claim.Watermarks // published: how far this member had written at its last release; immutable
	catching   bool             // a mark is awaited that the informers have not reached

	attachedInformers, attachedQueues int

	retiredStats  counts            // of earlier machines
	wanted        map[int]time.Time // since when a partition is wanted but not active
	drainLoggedAt time.Time

	fence     *fence      // with a goroutine of its own
	changes   *changes    // for OnChange, likewise
	published *claim.Time // the machine's deadline when it was published last; nil while the machine is fenced
	releases  uint64      // number of the last Released that the next write must wait for; 0 for none

	faultMu sync.Mutex
	faults  map[string]string // by Lease: what was logged of it last; guarded by faultMu
}

// incarnated is an event for one incarnation, so that an answer that comes late
// is not taken for one to its successor's request.
type taggedEvent struct {
	incarnation int
	event       any // a claim.Event, or refused
}

const anyIncarnation = 0

// post gives an event to the loop, from any other goroutine.
func (l *loop) post(incarnation int, e any) {
	select {
	case l.events <- taggedEvent{incarnation, e}:
	case <-l.ctx.Done():
	}
}

// refused is an event of the loop's own: a request was refused before this member
// has joined. It ends Run.
type refused struct{ err error }

// answer is post for the answer to a request.
func (l *loop) answer(incarnation int, e claim.Event) {
	select {
	case l.answers <- taggedEvent{incarnation, e}:
	case <-l.ctx.Done():
	}
}

// takeAnswers handles the answers that are there: a flood of events from the watch must
// not keep a renewal's answer waiting until the fence.
func (l *loop) handleResults() {
	for {
		select {
		case e := <-l.answers:
			l.handlePosted(e)
		default:
			return
		}
	}
}

// take handles an event that another goroutine has posted.
func (l *loop) handlePosted(e taggedEvent) {
	if e.incarnation != anyIncarnation && e.incarnation != l.incarnation {
		return
	}
	switch e := e.event.(type) {
	case claim.Event:
		l.step(e)
	case refused:
		// Once this member has joined, a refusal may be a passing mistake of those who
		// change the rules: the fence guards what it owns meanwhile.
		if !l.changes.hasJoined() {
			l.fatal = e.err
		} else {
			l.logger.Error(e.err, "A request was refused", "member", l.holder)
		}
	}
}

// step gives one event to the machine and does what it asks for.
func (l *loop) step(e claim.Event) {
	switch e.(type) {
	case claim.Synced:
		l.synced = true
	case claim.LeaseDeleted:
		if l.ended != nil {
			// The next machine must know: there may still be a process behind it.
			l.vanished = append(l.vanished, e)
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
	// Readers see the new state before anybody is told of the change: who is told
	// looks again.
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
		// Compared with what was published, and not with what stands there: the fence takes
		// a deadline away that has passed, although the machine may not have noticed yet.
		if l.published == nil || *l.published != deadline {
			unnoticed := l.fence.lift(&deadline) && l.published != nil
			l.published = &deadline
			if unnoticed {
				defer l.logger.Info("Work was stopped at the fence; a renewal of the Lease has lifted it", "member", l.holder)
			}
			// A Get may have found the member fenced, by the clock, in the moment before
			// this renewal was known, and put its item aside.
			_, queues := l.s.components()
			for _, q := range queues {
				q.Readmit()
			}
		}
	} else if l.published != nil {
		// Here, and not only by the action: what comes before that may block.
		l.fence.stop(nil)
		l.published = nil
	}
	old := l.s.snapshot.Load()
	view, p := l.machine.View(), l.machine.Parameters()
	if slices.ContainsFunc(actions, changesOwnership) || view != old.ring || p.Partitions != old.partitions {
		next := &snapshot{ring: view, states: l.machine.States(), partitions: p.Partitions, tokens: make([]string, p.Partitions)}
		ended := l.machine.Ended()
		if ended {
			next = emptySnapshot(l.s.cfg.parameters()) // whatever it claimed, it may not work on it any more
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
			l.s.metrics.unowned.Observe(unowned.Seconds())
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
		l.watermarks = l.s.watermarks() // the work on them has ended, and the write that withdraws them is yet to be sent
		l.logger.V(2).Info("Released", "member", l.holder, "partitions", a.Partitions.Len())
		l.notify(Released, a.Partitions, nil)
		l.releases = l.changes.number()
		for _, i := range informers {
			i.Released(a.Partitions)
		}
		for _, q := range queues {
			q.Readmit() // drops what is parked
		}
	case claim.Fenced:
		l.stopWork()
	case claim.Unfenced: // publish has lifted the fence
	case claim.Ended:
		l.end(a.Reason)
	case claim.Relist:
		l.logger.Info("The Lease watch shows nothing new; starting it again", "member", l.holder)
		l.watch.Relist()
	default:
		l.request(a)
	}
}

// stopWork stops all work, if the fence has not: the member may not act until it has
// renewed its Lease.
func (l *loop) stopWork() {
	l.fence.stop(nil)
	if l.machine != nil && !l.machine.Ended() { // else Left follows
		l.notify(Fenced, ring.Set{}, nil)
	}
	if l.machine != nil && l.machine.Serving() && !l.stopping && l.ended == nil {
		l.logger.Info("Fenced: no renewal of the Lease was confirmed in time; nothing is worked on until one is", "member", l.holder)
	}
}

// end lets go of everything: the machine has ended.
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
