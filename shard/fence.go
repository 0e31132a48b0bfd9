// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard/claim"
)

// clockPeriod is the time between two looks at the clocks before a deadline. No timer
// wakes up when the wall clock is set, or when the machine runs again after it was
// frozen and the monotonic clock has stood still.
const clockPeriod = 100 * time.Millisecond

// fence stops all work when the deadline has passed. It has a goroutine of its own, so
// that it does not depend on the loop: a loop that is blocked by a log sink, by the
// computation of a ring or by anything else publishes no fence, and peers evict this
// member all the same.
//
// The goroutine calls nothing that can block before it has ended the contexts of all
// work: no logger and no function of the user. It takes three locks, each for a few
// instructions, and nothing is called out to while one of them is held: mu,
// Sharder.mu and that of the queue.
//
// The machine notices the same deadline at its next event. Whoever is first stops the
// work; only the loop lifts the fence, when a renewal was confirmed.
type fence struct {
	s       *Sharder
	changes *changes
	moved   chan struct{} // capacity 1: there is a new deadline, or a new overrun
	ask     chan func()   // runs on the goroutine; for tests that pause the whole process

	mu        sync.Mutex
	down      bool      // work was stopped, and the fence was not lifted since
	overrunAt time.Time // when the stopped work should have ended; zero if not down or reported
	fences    uint64    // how often work was stopped

	reporting chan struct{} // closed when the last report has ended; nil before the first; the goroutine's
}

func newFence(s *Sharder, c *changes) *fence {
	return &fence{s: s, changes: c, moved: make(chan struct{}, 1), ask: make(chan func())}
}

// run watches the clocks until the context ends.
func (f *fence) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-f.moved:
		case do := <-f.ask:
			do()
		}
		deadline := f.s.deadline.Load()
		if deadline != nil && f.s.now().Reached(*deadline) {
			f.stop(deadline)
			deadline = nil
		}
		f.checkOverrun(ctx)
		timer.Reset(f.pause(deadline))
	}
}

// pause is how long the goroutine may sleep.
func (f *fence) pause(deadline *claim.Time) time.Duration {
	next := time.Hour // until moved says otherwise
	if deadline != nil {
		now := f.s.now()
		next = min(clockPeriod, deadline.Mono-now.Mono, deadline.Wall-now.Wall)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.overrunAt.IsZero() {
		next = min(next, time.Until(f.overrunAt))
	}
	return max(next, time.Millisecond)
}

// stop ends the contexts of all work: the given deadline has passed, or with nil, the
// machine says so. Nothing happens if the deadline was replaced by a later one
// meanwhile: the renewal that it comes from was confirmed, so no peer has evicted
// this member, and the work may go on.
func (f *fence) stop(passed *claim.Time) {
	f.mu.Lock()
	if passed == nil {
		f.s.deadline.Store(nil)
	} else if !f.s.deadline.CompareAndSwap(passed, nil) {
		f.mu.Unlock()
		return
	}
	if !f.down {
		f.down, f.overrunAt = true, time.Now().Add(f.s.cfg.StopGracePeriod)
		f.fences++
	}
	epoch := f.fences
	f.mu.Unlock()
	signal(f.moved)

	_, queues := f.s.components()
	for _, q := range queues {
		// Not what is handed out under a new deadline, if the fence is lifted just now.
		q.FenceIf(f.s.Fenced)
	}
	if passed == nil {
		return // the loop knows whether Fenced or Left comes next
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down && f.fences == epoch {
		f.changes.post(Change{Kind: Fenced})
	}
}

// lift publishes a new deadline. It reports whether work was stopped before.
func (f *fence) lift(deadline *claim.Time) (wasDown bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	wasDown = f.down
	f.down, f.overrunAt = false, time.Time{}
	f.changes.post(Change{Kind: Unfenced})
	f.s.deadline.Store(deadline)
	signal(f.moved)
	return wasDown
}

// checkOverrun reports work that still runs although it should have stopped after the
// fence: from now on peers may work on the same objects. While a report is under way
// there is no other.
func (f *fence) checkOverrun(ctx context.Context) {
	f.mu.Lock()
	due := !f.overrunAt.IsZero() && !time.Now().Before(f.overrunAt)
	if due {
		f.overrunAt = time.Time{}
	}
	f.mu.Unlock()
	if !due || f.s.workInFlight() == 0 {
		return
	}
	select {
	case <-f.reporting:
	default:
		if f.reporting != nil {
			return
		}
	}
	done := make(chan struct{})
	f.reporting = done
	go func() {
		defer close(done)
		f.report(ctx)
	}()
}

// report reports work that still runs after the fence. The hook may end the process, so
// the log comes first; but a log sink that blocks does not delay the hook for long.
func (f *fence) report(ctx context.Context) {
	const logWithin = 100 * time.Millisecond
	items := f.s.items(everything)
	if len(items) == 0 {
		return
	}
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		klog.FromContext(ctx).Error(nil, "Work is still running although this member is fenced: another member may be working on the same objects",
			"member", f.s.Identity(), "items", items)
	}()
	hook := f.s.cfg.OnOverrun
	if hook == nil {
		<-logged
		return
	}
	within := time.NewTimer(logWithin)
	defer within.Stop()
	select {
	case <-logged:
	case <-within.C:
	}
	hook(items)
	<-logged
}

// signal wakes the goroutine that receives from a channel with room for one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
