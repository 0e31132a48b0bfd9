// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard/claim"
	"github.com/tom-ludwig/operator-scaling/shard/lease"
)

// Run joins the ring and takes part in it until the context is done. Then it
// drains what is in flight, releases what it owns, deletes its Lease and returns
// nil, after everything that it started has ended; for Config.OnChange and
// Config.OnOverrun it waits no longer than Config.StopGracePeriod. Workers must go on calling
// Done until Run has returned, or at least for what they have in hand.
//
// The member joins the ring when all informers made with [NewInformer] and
// [WrapInformer] before Run have synced; start them before or beside Run. If the
// member loses its Lease it stops all work and joins again.
//
// Run returns an error at once if the set-up can't work, or if access to Leases is
// forbidden; later ones are listed with [ErrDrainTimeout]. It may be called once.
func (s *Sharder) Run(ctx context.Context) error {
	if err := s.begin(); err != nil {
		return err
	}
	logger := klog.LoggerWithValues(klog.FromContext(ctx), "ring", s.cfg.Name, "pod", s.cfg.PodName)
	// The context of everything that Run starts: it must outlive ctx, because the
	// end of ctx is where draining and releasing begin.
	inner, cancel := context.WithCancel(klog.NewContext(context.WithoutCancel(ctx), logger))
	defer cancel()

	if err := s.checkAccess(ctx); err != nil {
		return err
	}
	owner, podUID := s.ownerReference(klog.NewContext(ctx, logger)), ""
	if owner != nil {
		podUID = string(owner.UID)
	}
	lock := newPodLock(s.cfg, podUID)
	defer lock.release()
	if !s.waitForPod(klog.NewContext(ctx, logger), lock) {
		return nil // asked to stop
	}
	l := &loop{
		s:        s,
		ctx:      inner,
		logger:   logger,
		cancel:   cancel,
		events:   make(chan taggedEvent, 64),
		answers:  make(chan taggedEvent, 64),
		idle:     make(chan struct{}, 1),
		takeOver: lock.held(),
		podUID:   podUID,
		owner:    owner,
		faults:   map[string]string{},
		wanted:   map[int]time.Time{},
		changes:  newChanges(s.cfg.OnChange),
	}
	l.fence = newFence(s, l.changes)
	l.watch = lease.NewWatch(l.leaseConfig(""), s.client)
	// In this order: no work is handed out any more, then all goroutines end, then
	// the functions of the user, then the identity is given up.
	defer l.awaitCalls()
	defer l.wait.Wait()
	defer cancel()
	defer l.stopWork()
	l.start(func() { l.fence.run(l.ctx) })
	if s.cfg.OnChange != nil {
		go l.changes.deliver()
	} else {
		close(l.changes.done)
	}
	return l.run(ctx)
}

// awaitCalls lets OnChange have the changes that are left, and waits for it and for a
// report of work that is still running. Both are the user's, and may wait for Run, or
// for ever: it waits no longer than StopGracePeriod.
func (l *loop) awaitCalls() {
	l.changes.close()
	timer := time.NewTimer(l.s.cfg.StopGracePeriod)
	defer timer.Stop()
	calls := map[string]<-chan struct{}{"OnChange": l.changes.done}
	if l.fence.reporting != nil {
		calls["OnOverrun"] = l.fence.reporting
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
			l.logger.Error(nil, "A function of the configuration has not returned; Run returns without it", "function", name, "waited", l.s.cfg.StopGracePeriod)
		}
	}
	l.changes.giveUp()
}

// waitForPod waits until no other live process of this Pod takes part in the ring. Only
// who holds the Pod's lock ever holds a Lease of this Pod's UID, so that whoever gets
// the lock may void the one that it finds: its process is dead. It returns false if the
// context ends first.
func (s *Sharder) waitForPod(ctx context.Context, lock *podLock) bool {
	const period = 100 * time.Millisecond
	if !lock.usable() || lock.try() {
		return true
	}
	logger := klog.FromContext(ctx)
	logger.Error(nil, "Another live process has this member's identity; this one waits until it has gone", "podUID", s.cfg.PodUID)
	s.status.Store(&status{duplicate: "with the same name and Pod UID"})
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for !lock.try() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return false
		}
	}
	logger.Info("The other process with this member's identity has gone")
	s.status.Store(&status{})
	return true
}

// leaseConfig is that of the own Lease for one incarnation.
func (l *loop) leaseConfig(holder string) lease.Config {
	c := l.s.cfg
	return lease.Config{
		Leases:   l.s.api.leases.Leases(c.Namespace),
		Ring:     c.Name,
		Name:     lease.Name(c.LeasePrefix, c.PodName),
		Holder:   holder,
		Labels:   c.LeaseLabels,
		Owner:    l.owner,
		Acquired: time.Now(),
		Faults:   l.leaseFault,
	}
}

// goes runs f until it returns; the only place that starts goroutines of the loop.
func (l *loop) start(f func()) { l.wait.Go(f) }

// run is the loop that owns all state.
func (l *loop) run(ctx context.Context) error {
	l.start(func() {
		err := l.watch.Run(l.ctx, func(e claim.Event) { l.post(anyIncarnation, e) }, l.watchFailed)
		if err != nil && l.ctx.Err() == nil {
			l.logger.Error(err, "The Lease watch could not be started")
		}
	})
	l.startNewComponents()
	l.waitForSync()
	l.startIncarnation("")

	timer := time.NewTimer(0)
	defer timer.Stop()
	stop := ctx.Done()
	for {
		select {
		case e := <-l.answers:
			l.handlePosted(e)
		case e := <-l.events:
			l.handleResults()
			l.handlePosted(e)
		case <-l.idle:
			l.reportIdle()
		case <-timer.C:
			l.step(claim.Tick{})
		case <-stop:
			stop = nil
			l.stopping = true
			l.logger.Info("Stopping: draining and releasing", "member", l.holder)
			l.step(claim.Stop{})
		case <-l.s.added:
			l.startNewComponents()
		case f := <-l.s.ask:
			f(l)
		}
		if l.fatal != nil {
			return l.fatal
		}
		if l.ended != nil {
			again, err := l.handleEnd()
			if !again {
				return err
			}
		}
		timer.Reset(l.pause())
	}
}

// pause is how long the loop may wait for the next event.
func (l *loop) pause() time.Duration {
	if l.ended != nil {
		return 50 * time.Millisecond
	}
	next := l.machine.Next() - l.s.now().Mono
	if l.catching {
		next = min(next, catchUpPeriod)
	}
	return max(next, time.Millisecond)
}

// attach starts the replays of informers that are new, and hears of the ends of
// work from queues that are new.
func (l *loop) startNewComponents() {
	informers, queues := l.s.components()
	for _, i := range informers[l.attachedInformers:] {
		l.start(func() {
			if err := i.Replay(l.ctx); err != nil && l.ctx.Err() == nil {
				l.logger.Error(err, "Replaying to handlers has ended")
			}
		})
	}
	for _, q := range queues[l.attachedQueues:] {
		q.OnDone(func() {
			select {
			case l.idle <- struct{}{}:
			default:
			}
		})
		q.Readmit()
	}
	l.attachedInformers, l.attachedQueues = len(informers), len(queues)
}

// waitForSync tells the machine when the informers that are registered now hold
// a complete copy.
func (l *loop) waitForSync() {
	informers, _ := l.s.components()
	l.start(func() {
		checkers := make([]cache.DoneChecker, len(informers))
		for n, i := range informers {
			checkers[n] = i.HasSyncedChecker()
		}
		if cache.WaitFor(l.ctx, "sharded informers of ring "+l.s.cfg.Name, checkers...) {
			l.post(anyIncarnation, claim.Synced{})
		}
	})
}

// ownerReference returns the reference to this member's Pod, from the configured
// UID or else from the Pod itself. Nil if neither can be had:
// the Lease then runs out, and peers clear it away.
func (s *Sharder) ownerReference(ctx context.Context) *metav1.OwnerReference {
	if s.cfg.PodUID == "" {
		ctx, cancel := context.WithTimeout(ctx, s.cfg.RenewPeriod)
		defer cancel()
		pod, err := s.api.pods.Pods(s.cfg.Namespace).Get(ctx, s.cfg.PodName, metav1.GetOptions{})
		if err != nil {
			klog.FromContext(ctx).V(2).Info("The Lease gets no owner reference: set "+EnvPodUID+" from the downward API (metadata.uid)", "err", err)
			return nil
		}
		return podReference(pod.Name, string(pod.UID))
	}
	return podReference(s.cfg.PodName, s.cfg.PodUID)
}

// watchFailed is called by the Lease watch on each of its errors.
func (l *loop) watchFailed(err error) {
	if forbidden := l.s.forbidden(err, "watch"); forbidden != nil {
		l.post(anyIncarnation, refused{forbidden})
		return
	}
	l.logger.V(2).Info("The Lease watch has failed and will be tried again", "err", err)
}

// afterlife decides what comes after a machine has ended: another one, or the end
// of Run. again is false for the latter.
func (l *loop) handleEnd() (again bool, err error) {
	reason := l.ended
	if errors.Is(reason, claim.ErrStopped) {
		l.logger.Info("Left the ring", "member", l.holder)
		return false, nil
	}
	if errors.Is(reason, claim.ErrDrainTimeout) || errors.Is(reason, claim.ErrStaleWatch) {
		return false, fmt.Errorf("shard: ring %s, member %s: %w%s", l.s.cfg.Name, l.holder, reason, l.stuckWork())
	}
	// The Lease was lost. Peers may own everything; join again when the last piece
	// of work has stopped, so that this process never works for two incarnations.
	if l.s.workInFlight() > 0 {
		if time.Since(l.endedAt) >= l.s.cfg.DrainTimeout {
			return false, fmt.Errorf("shard: ring %s, member %s: after %w: %w%s", l.s.cfg.Name, l.holder, reason, ErrDrainTimeout, l.stuckWork())
		}
		return true, nil
	}
	if l.stopping {
		l.logger.Info("Left the ring", "member", l.holder, "reason", reason)
		return false, nil
	}
	if errors.Is(reason, claim.ErrVanished) {
		l.dropSuspectOwnerRef()
	}
	l.startIncarnation(l.holder)
	return true, nil
}

// doubtOwner gives up the owner reference if the Lease is deleted again and again:
// with a UID that no Pod has, the garbage collector takes every Lease that this member
// makes, and each time what it claimed has to wait.
func (l *loop) dropSuspectOwnerRef() {
	if time.Since(l.lostAt) > 20*l.s.cfg.LeaseDuration {
		l.lost = 0
	}
	l.lost, l.lostAt = l.lost+1, time.Now()
	if l.lost >= 3 && l.owner != nil {
		l.logger.Error(nil, "The Lease was deleted several times in a short time; it is made without an owner reference from now on. Is "+EnvPodUID+" the UID of this Pod?", "podUID", l.owner.UID)
		l.owner = nil
	}
}

// incarnate makes a new machine: a new member under the same name.
func (l *loop) startIncarnation(predecessor string) {
	c := l.s.cfg
	var tombs []claim.Tombstone
	if predecessor != "" {
		tombs = l.machine.Tombstones()
		l.retiredStats = l.retiredStats.plus(l.machine.Stats())
		l.holder = l.s.newHolder()
	} else {
		l.holder = l.s.Identity()
	}
	l.incarnation++
	l.ended = nil
	l.client = lease.NewClient(l.leaseConfig(l.holder))
	l.machine = claim.New(claim.Config{
		Member: c.PodName, Lease: lease.Name(c.LeasePrefix, c.PodName), Holder: l.holder,
		PodUID: l.podUID, TakeOver: l.takeOver,
		Predecessor: predecessor, Tombstones: tombs,
		Parameters:    c.parameters(),
		LeaseDuration: c.LeaseDuration, RenewDeadline: c.RenewDeadline, RenewPeriod: c.RenewPeriod,
		WatchLagLimit: c.WatchLagLimit, DrainTimeout: c.DrainTimeout, Coalesce: coalesce,
		StartupSettle: c.StartupSettle, Quarantine: c.Quarantine, CacheSyncTimeout: c.CacheSyncTimeout,
	})
	l.logger.Info("Joining the ring", "member", l.holder)
	l.step(claim.Tick{})
	for _, known := range l.watch.Leases() {
		l.step(claim.LeaseObserved{Lease: known})
	}
	missed := l.vanished
	l.vanished = nil
	for _, e := range missed {
		l.step(e)
	}
	if l.synced {
		l.step(claim.Synced{})
	}
	if l.stopping {
		l.step(claim.Stop{})
	}
}
