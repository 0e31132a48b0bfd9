// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package member runs one member of a ring: the loop that passes events to the state
// machine of package claim and carries out its actions, and the fence.
//
// A Member owns all state. Other goroutines read one immutable [View] and post events. It
// learns what it needs of the outside from the values and small interfaces of its [Config],
// and it does not know package shard.
package member

import (
	"context"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/lease"
	"github.com/tom-ludwig/operator-scaling/shard/internal/metrics"
	"github.com/tom-ludwig/operator-scaling/shard/internal/podlock"
)

// Config configures a Member. Package shard documents the settings for users, and checks
// them.
type Config struct {
	// Machine configures the state machine. The member sets what differs between
	// incarnations: Holder, PodUID, TakeOver, Predecessor, Tombstones and Knowledge.
	Machine claim.Config
	// Lease configures the member's Lease. The member sets Holder, Owner, Acquired and
	// Faults.
	Lease           lease.Config
	StopGracePeriod time.Duration
	OnOverrun       func(items []string) // nil for none
	OnChange        func(Change)         // nil for none
	OnStop          func()               // called on the loop when the member begins to leave; must not block

	Access  lease.Access // explains refused requests
	Caches  Caches
	Writes  Writes
	Metrics *metrics.Metrics
}

// Caches are the informers' stores, which show what former owners wrote.
type Caches interface {
	Reached(claim.Watermarks) claim.Watermarks
	Cached(claim.Watermarks) claim.Watermarks
	ForgetStopped()
}

// Writes remembers how far this member has written.
type Writes interface{ Watermarks() claim.Watermarks }

// Pod is what a process knows of its Pod when it begins to run.
type Pod struct {
	UID   string                 // "" if it is not known
	Owner *metav1.OwnerReference // for the Lease; nil for none
	Lock  *podlock.Lock
}

// Member is one process on a ring: one incarnation after another. The exported fields and
// methods may be used from any goroutine. The loop, which is the goroutine of Run, owns all
// other fields, unless their comments state otherwise.
type Member struct {
	Published  *Published
	Components *Components

	cfg     Config
	pod     Pod
	ctx     context.Context // of everything that Run starts
	logger  klog.Logger
	wait    sync.WaitGroup
	fence   *fence   // with a goroutine of its own
	changes *changes // for OnChange, likewise

	failures failures // of requests
	// The lines of the log about events that other clients cause.
	failureLog, faults, evictions, conflicts, finalizers, edits, duplicates, relists, kinds, obstacles, crowds, waits throttle

	warnings warnings

	events  chan taggedEvent
	results chan taggedEvent // of requests; handled before events
	idle    chan struct{}    // capacity 1: cancelled work has ended
	ask     chan func()      // functions to run on the loop's goroutine

	watch       *lease.Watch
	client      *lease.Client
	machine     *claim.Machine
	incarnation int
	holder      string
	begunAt     time.Time // when this incarnation started
	worked      bool      // this incarnation has had an active partition
	synced      bool
	stopping    bool
	ended       error // why the machine ended; nil while it runs
	endedAt     time.Time
	fatal       error
	joined      bool        // at least once
	assigned    bool        // the informers have learned what this member owned first, or that it owned nothing
	confirmed   claim.Lease // as the last confirmed write of this incarnation left it
	successor   string      // who has voided this member's Lease or holds it instead, as far as it was seen
	lost        int         // how many of this member's Leases were deleted in quick succession
	lostAt      time.Time

	watermarks    claim.Watermarks // published: the last writes of this member at its last release; immutable
	catching      bool             // the machine waits for a watermark that the caches have not reached
	looked        time.Duration    // when the loop last looked at the caches, on the monotonic clock
	deadline      *claim.Time      // the machine's deadline that was published last; nil while the machine is fenced
	releases      uint64           // number of the last Released that the next write must wait for; 0 for none
	retiredStats  metrics.Counts   // of earlier machines
	handovers     handovers
	drainLoggedAt time.Time
	blockers      map[string]int // of the last look
	blockersAt    time.Time      // when that was
}

// New returns a member that owns nothing until Run. It starts nothing.
func New(cfg Config) *Member {
	m := &Member{
		Published:  newPublished(newHolder(cfg.Machine.Member), cfg.Machine.Parameters),
		Components: newComponents(),
		cfg:        cfg,
		events:     make(chan taggedEvent, 64),
		results:    make(chan taggedEvent, 64),
		idle:       make(chan struct{}, 1),
		ask:        make(chan func()),
		changes:    newChanges(cfg.OnChange),
	}
	m.fence = newFence(m.Published, m.Components, m.changes, cfg)
	return m
}

// newHolder returns the identity of a new incarnation.
func newHolder(pod string) string { return pod + "_" + string(uuid.NewUUID()) }

// Run takes part in the ring until the context is done, and returns after everything that
// it has started has ended. It may be called once. The logger of the context names the ring
// and the Pod.
func (m *Member) Run(ctx context.Context, pod Pod) (err error) {
	m.logger, m.pod = klog.FromContext(ctx), pod
	defer m.releaseLock()
	defer func() {
		if err == nil {
			m.Published.Change(func(v *View) { v.Status.At = time.Time{} }) // the loop has ended as it should: it has not hung
		}
	}()
	if !m.waitForPod(ctx) {
		return nil // ctx has ended
	}
	// The context of everything that Run starts: it must outlive ctx, because draining and
	// releasing begin when ctx ends.
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m.ctx = inner
	m.watch = lease.NewWatch(m.leaseConfig(""), m.cfg.Machine.WatchLagLimit)
	// In this order: no more work is handed out; all goroutines end; the functions of the
	// user return; the lock on the identity is released, if no work is in flight.
	defer m.awaitCalls()
	defer m.wait.Wait()
	defer cancel()
	defer m.stopWork()
	m.start(func() { m.fence.run(m.ctx) })
	if m.cfg.OnChange != nil {
		go m.changes.deliver()
	} else {
		close(m.changes.done)
	}
	return m.run(ctx)
}

// releaseLock lets another process of the Pod take part in the ring, now or when the work that
// Run gave up on has ended. If that never ends, the lock ends with this process.
func (m *Member) releaseLock() {
	release := sync.OnceFunc(m.pod.Lock.Release)
	releaseIfIdle := func() {
		if m.Components.InFlight() == 0 {
			release()
		}
	}
	for _, q := range m.Components.allQueues() {
		q.OnDone(releaseIfIdle)
	}
	releaseIfIdle()
}

// awaitCalls waits until OnChange has received the remaining changes and OnOverrun has
// returned. Both are functions of the user, and may wait for Run or block forever.
// Therefore awaitCalls waits no longer than StopGracePeriod.
func (m *Member) awaitCalls() {
	m.changes.close()
	timer := time.NewTimer(m.cfg.StopGracePeriod)
	defer timer.Stop()
	calls := map[string]<-chan struct{}{"OnChange": m.changes.done}
	if m.fence.reporting != nil {
		calls["OnOverrun"] = m.fence.reporting
	}
	for name, done := range calls {
		select {
		case <-done:
			continue
		default:
		}
		select {
		case <-done:
		case <-timer.C:
			timer.Reset(0) // for the other one
			m.logger.Error(nil, "A function of the configuration has not returned; Run does not wait for it any longer", "function", name, "waited", m.cfg.StopGracePeriod)
		}
	}
	m.changes.giveUp()
}

// start runs f on a new goroutine, which Run waits for. Goroutines of the loop are
// started only here.
func (m *Member) start(f func()) { m.wait.Go(f) }

// run is the loop.
func (m *Member) run(ctx context.Context) error {
	m.start(func() {
		err := m.watch.Run(m.ctx, func(e claim.Event) { m.post(m.events, anyIncarnation, e) }, m.watchAnswered)
		if err != nil && m.ctx.Err() == nil {
			m.logger.Error(err, "The Lease watch could not be started")
		}
	})
	m.startNewComponents()
	m.waitForSync()
	m.startIncarnation("")

	timer := time.NewTimer(0)
	defer timer.Stop()
	stop := ctx.Done()
	for {
		// What is due comes before the select, which may find other work each time: readers of
		// the status page, for instance, wake the loop but give the machine no event.
		m.handleResults()
		if m.pause() <= 0 {
			m.step(claim.Tick{})
		}
		if m.fatal != nil {
			return m.fatal
		}
		if m.ended != nil {
			again, err := m.handleEnd()
			if !again {
				return err
			}
		}
		timer.Reset(max(m.pause(), time.Millisecond))
		select {
		case e := <-m.results:
			m.handlePosted(e)
		case e := <-m.events:
			m.handleResults()
			m.handlePosted(e)
		case <-m.idle:
			m.followUp(true)
		case <-timer.C: // a tick is due
		case <-stop:
			stop = nil
			m.stopping = true
			m.cfg.OnStop()
			m.logger.Info("Stopping: draining and releasing", "member", m.holder)
			m.step(claim.Stop{})
		case <-m.Components.added:
			m.startNewComponents()
			m.followUp(true) // work in a new queue may have ended before OnDone was set
		case f := <-m.ask:
			f()
		}
	}
}

// pause returns how long the loop may wait for the next event. It is not positive if the
// machine needs a tick now.
func (m *Member) pause() time.Duration {
	if m.ended != nil {
		return 50 * time.Millisecond
	}
	next := m.machine.Next()
	if m.catching {
		next = min(next, m.looked+catchUpPeriod)
	}
	return next - m.Published.Now().Mono
}

// startNewComponents starts the replays of new informers, and subscribes to the end of
// work in new queues.
func (m *Member) startNewComponents() {
	for _, i := range m.Components.takeNewInformers() {
		m.start(func() {
			err := i.Replay(m.ctx)
			switch {
			case m.ctx.Err() != nil:
			case err != nil:
				m.logger.Error(err, "The replay to handlers has ended")
			case i.IsStopped():
				m.Components.removeInformer(i)
				m.cfg.Caches.ForgetStopped()
			}
		})
	}
	for _, q := range m.Components.takeNewQueues() {
		q.OnDone(func() { signal(m.idle) })
		q.Readmit()
	}
}

// waitForSync notifies the machine when the informers that are registered now have synced.
func (m *Member) waitForSync() {
	informers := m.Components.allInformers()
	if unused := m.Components.unused(); len(unused) > 0 {
		m.logger.Info("Sharded informers have no handlers. Add handlers to the informer that WrapInformer returned, and not to the one inside it: those see all objects, and objects that this member gains are not delivered to them", "informers", unused)
	}
	m.start(func() {
		ctx, synced := context.WithCancel(m.ctx)
		defer synced()
		m.start(func() { m.logUnsynced(ctx) })
		for _, i := range informers {
			if !waitForSyncOrStop(m.ctx, i) {
				return
			}
		}
		m.post(m.events, anyIncarnation, claim.Synced{})
	})
}

// waitForSyncOrStop waits until an informer has synced, or was stopped and so never will. It
// returns false if the context ends first.
func waitForSyncOrStop(ctx context.Context, i Informer) bool {
	const period = 100 * time.Millisecond // an informer has no channel for its stop
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for !i.IsStopped() {
		select {
		case <-i.HasSyncedChecker().Done():
			return true
		case <-ticker.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// logUnsynced logs, from time to time, which informers the member waits for.
func (m *Member) logUnsynced(ctx context.Context) {
	const period = 10 * time.Second
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			m.logger.Info("Waiting for informers to sync before joining the ring; were they started?", "informers", m.Components.Unsynced())
		}
	}
}

// taggedEvent is an event for one incarnation, so that a late result of a request
// is not treated as the result of a request of the next incarnation.
type taggedEvent struct {
	incarnation int
	event       any // a claim.Event, or refused
}

const anyIncarnation = 0

// refused is an event for the loop itself and not for the machine: this member may not use
// Leases, or not its own. It ends Run unless this process has joined before.
type refused struct{ err error }

// post sends an event to the loop, from any other goroutine.
func (m *Member) post(to chan<- taggedEvent, incarnation int, e any) {
	select {
	case to <- taggedEvent{incarnation, e}:
	case <-m.ctx.Done():
	}
}

// handleResults handles all waiting results, so that many events from the watch do not
// delay the result of a renewal until the fence.
func (m *Member) handleResults() {
	for {
		select {
		case e := <-m.results:
			m.handlePosted(e)
		default:
			return
		}
	}
}

// handlePosted handles an event that another goroutine has posted.
func (m *Member) handlePosted(e taggedEvent) {
	if e.incarnation != anyIncarnation && e.incarnation != m.incarnation {
		return
	}
	switch e := e.event.(type) {
	case claim.Event:
		m.step(e)
	case refused:
		// After this process has joined once, a refusal may be temporary, for instance a
		// mistake in a change of the RBAC rules. Until it is fixed, the fence protects what
		// this member owns.
		if !m.joined {
			m.fatal = e.err
		}
	}
}

// Inspect calls f on the loop's goroutine. It returns false if the loop does not accept
// the call before the context ends.
func (m *Member) Inspect(ctx context.Context, f func(Inspection)) bool {
	done := make(chan struct{})
	call := func() {
		defer close(done)
		inForce, _ := m.machine.ParametersInForce()
		f(Inspection{View: m.Published.View(), Stopping: m.stopping, InForce: inForce, Peers: m.machine.Peers(), Blockers: m.machine.Blockers()})
	}
	select {
	case m.ask <- call:
		<-done // the loop has accepted it and will run it
		return true
	case <-ctx.Done():
		return false
	}
}

// InspectFence calls f on the fence's goroutine, if Run is running.
func (m *Member) InspectFence(f func()) {
	select {
	case m.fence.ask <- f:
	case <-m.ctx.Done():
	}
}
