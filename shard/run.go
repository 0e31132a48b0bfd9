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

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/lease"
	"github.com/tom-ludwig/operator-scaling/shard/internal/podlock"
)

// Run joins the ring and takes part in it until the context is done. Then it
// drains the work in flight, releases what the member owns, deletes its Lease and returns
// nil, after everything that Run started has ended. It waits for Config.OnChange and
// Config.OnOverrun no longer than Config.StopGracePeriod. Workers must continue to call
// Done until Run has returned, or at least for the items that they hold.
//
// The member joins the ring when all informers made with [NewInformer] and
// [WrapInformer] before Run have synced. Start them before Run or at the same time. If the
// member loses its Lease it stops all work and joins again.
//
// Run returns an error at once if the setup is invalid, or if access to Leases is
// forbidden. The errors that it may return later are listed with [ErrDrainTimeout]. It may
// be called once.
func (s *Sharder) Run(ctx context.Context) error {
	if err := s.begin(); err != nil {
		return err
	}
	logger := klog.LoggerWithValues(klog.FromContext(ctx), "ring", s.cfg.Name, "pod", s.cfg.PodName)
	// The context of everything that Run starts: it must outlive ctx, because draining and
	// releasing begin when ctx ends.
	inner, cancel := context.WithCancel(klog.NewContext(context.WithoutCancel(ctx), logger))
	defer cancel()

	if err := s.checkAccess(ctx); err != nil {
		return err
	}
	owner, podUID := s.ownerReference(klog.NewContext(ctx, logger)), ""
	if owner != nil {
		podUID = string(owner.UID)
	}
	lock := podlock.New(podlock.Member{Namespace: s.cfg.Namespace, LeasePrefix: s.cfg.LeasePrefix, PodName: s.cfg.PodName, PodUID: podUID})
	defer lock.Release()
	if !s.waitForPod(klog.NewContext(ctx, logger), lock) {
		return nil // ctx has ended
	}
	l := &loop{
		s:        s,
		ctx:      inner,
		logger:   logger,
		cancel:   cancel,
		events:   make(chan taggedEvent, 64),
		results:  make(chan taggedEvent, 64),
		idle:     make(chan struct{}, 1),
		takeOver: lock.Held(),
		podUID:   podUID,
		owner:    owner,
		faults:   map[string]string{},
		wanted:   map[int]time.Time{},
		changes:  newChanges(s.cfg.OnChange),
	}
	l.fence = newFence(s, l.changes)
	l.watch = lease.NewWatch(l.leaseConfig(""), s.client)
	// In this order: no more work is handed out; all goroutines end; the functions of the
	// user return; the lock on the identity is released.
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

// awaitCalls waits until OnChange has received the remaining changes and OnOverrun has
// returned. Both are functions of the user, and may wait for Run or block forever.
// Therefore awaitCalls waits no longer than StopGracePeriod.
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
			l.logger.Error(nil, "A function of the configuration has not returned; Run does not wait for it any longer", "function", name, "waited", l.s.cfg.StopGracePeriod)
		}
	}
	l.changes.giveUp()
}

// waitForPod waits until no other live process of this Pod takes part in the ring. Only
// the process with the Pod's lock ever holds a Lease with this Pod's UID. A process that
// gets the lock may therefore void the Lease that it finds, because the process that held
// it is dead. waitForPod returns false if the context ends first.
func (s *Sharder) waitForPod(ctx context.Context, lock *podlock.Lock) bool {
	const period = 100 * time.Millisecond
	if !lock.Usable() || lock.TryAcquire() {
		return true
	}
	logger := klog.FromContext(ctx)
	logger.Error(nil, "Another live process has this member's identity; waiting until it exits", "podUID", s.cfg.PodUID)
	s.status.Store(&status{duplicate: "with the same name and Pod UID"})
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for !lock.TryAcquire() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return false
		}
	}
	logger.Info("The other process with this member's identity has exited")
	s.status.Store(&status{})
	return true
}

// leaseConfig returns the configuration of this member's Lease for one incarnation.
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

// start runs f on a new goroutine, which Run waits for. Goroutines of the loop are
// started only here.
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
		case e := <-l.results:
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

// pause returns how long the loop may wait for the next event.
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

// startNewComponents starts the replays of new informers, and subscribes to the end of
// work in new queues.
func (l *loop) startNewComponents() {
	informers, queues := l.s.components()
	for _, i := range informers[l.attachedInformers:] {
		l.start(func() {
			if err := i.Replay(l.ctx); err != nil && l.ctx.Err() == nil {
				l.logger.Error(err, "The replay to handlers has ended")
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

// waitForSync notifies the machine when the informers that are registered now have synced.
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
// UID or else from the Pod itself. It returns nil if neither is available:
// the Lease then expires, and peers delete it.
func (s *Sharder) ownerReference(ctx context.Context) *metav1.OwnerReference {
	if s.cfg.PodUID == "" {
		ctx, cancel := context.WithTimeout(ctx, s.cfg.RenewPeriod)
		defer cancel()
		pod, err := s.api.pods.Pods(s.cfg.Namespace).Get(ctx, s.cfg.PodName, metav1.GetOptions{})
		if err != nil {
			klog.FromContext(ctx).V(2).Info("The Lease has no owner reference: set "+EnvPodUID+" from the downward API (metadata.uid)", "err", err)
			return nil
		}
		return podReference(pod.Name, string(pod.UID))
	}
	return podReference(s.cfg.PodName, s.cfg.PodUID)
}

// watchFailed handles an error of the Lease watch. The watch calls it for each error.
func (l *loop) watchFailed(err error) {
	if forbidden := l.s.forbidden(err, "watch"); forbidden != nil {
		l.post(anyIncarnation, refused{forbidden})
		return
	}
	l.logger.V(2).Info("The Lease watch failed and will be retried", "err", err)
}

// handleEnd decides what happens after a machine has ended: a new one starts (again is
// true), or Run returns err (again is false).
func (l *loop) handleEnd() (again bool, err error) {
	reason := l.ended
	if errors.Is(reason, claim.ErrStopped) {
		l.logger.Info("Left the ring", "member", l.holder)
		return false, nil
	}
	if errors.Is(reason, claim.ErrDrainTimeout) || errors.Is(reason, claim.ErrStaleWatch) {
		return false, fmt.Errorf("shard: ring %s, member %s: %w%s", l.s.cfg.Name, l.holder, reason, l.stuckWork())
	}
	// The Lease was lost, and peers may own everything. Join again only when all work
	// has stopped, so that this process never works for two incarnations.
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

// dropSuspectOwnerRef removes the owner reference if the Lease is deleted repeatedly: if
// no Pod has the UID, the garbage collector deletes every Lease that this member creates,
// and each time the partitions that it claimed have to wait.
func (l *loop) dropSuspectOwnerRef() {
	if time.Since(l.lostAt) > 20*l.s.cfg.LeaseDuration {
		l.lost = 0
	}
	l.lost, l.lostAt = l.lost+1, time.Now()
	if l.lost >= 3 && l.owner != nil {
		l.logger.Error(nil, "The Lease was deleted several times in a short time; creating it without an owner reference from now on. Check that "+EnvPodUID+" is the UID of this Pod", "podUID", l.owner.UID)
		l.owner = nil
	}
}

// startIncarnation creates a new machine: a new member with the same name.
func (l *loop) startIncarnation(predecessor string) {
	c := l.s.cfg
	var tombstones []claim.Tombstone
	if predecessor != "" {
		tombstones = l.machine.Tombstones()
		l.retiredStats = l.retiredStats.Plus(l.machine.Stats())
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
		Predecessor: predecessor, Tombstones: tombstones,
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
	missed := l.deleted
	l.deleted = nil
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
