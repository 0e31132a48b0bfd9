// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"context"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

// clockPeriod is the time between two checks of the clocks before a deadline. No timer
// fires when the wall clock is set, or when the computer resumes after it was suspended
// while the monotonic clock stood still.
const clockPeriod = 100 * time.Millisecond

// fence stops all work when the deadline has passed. It has a goroutine of its own, so
// that it does not depend on the loop: a loop that is blocked by a log sink, by the
// computation of a ring or by anything else publishes no fence, but peers still evict
// this member.
//
// Before the goroutine has ended the contexts of all work, it calls nothing that can
// block: no logger and no function of the user. It takes five locks, each for a few
// instructions: mu, those of Published, Components and changes, and that of the queue. No other code
// is called while one of them is held, except client-go's metrics of the queue, which must
// not block, as in client-go.
//
// The machine notices the same deadline at its next event. The first of the two stops the
// work. Only the loop lifts the fence, when a renewal was confirmed.
type fence struct {
	published  *Published
	components *Components
	changes    *changes
	grace      time.Duration  // Config.StopGracePeriod
	onOverrun  func([]string) // Config.OnOverrun; nil for none
	moved      chan struct{}  // capacity 1: there is a new deadline, or a new overrun
	ask        chan func()    // functions to run on the goroutine

	mu        sync.Mutex
	down      bool      // work was stopped, and the fence has not been lifted since
	overrunAt time.Time // when the stopped work should have ended; zero if not down or already reported
	fences    uint64    // how often work was stopped

	reporting chan struct{} // closed when the last report has ended; nil before the first; owned by the goroutine
}

func newFence(p *Published, components *Components, c *changes, cfg Config) *fence {
	return &fence{
		published: p, components: components, changes: c, grace: cfg.StopGracePeriod, onOverrun: cfg.OnOverrun,
		moved: make(chan struct{}, 1), ask: make(chan func()),
	}
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
		deadline := f.published.View().Fence
		if deadline != nil && f.published.Now().Reached(*deadline) {
			f.stop(deadline)
			deadline = nil
		}
		f.checkOverrun(ctx)
		timer.Reset(f.pause(deadline))
	}
}

// pause returns how long the goroutine may sleep.
func (f *fence) pause(deadline *claim.Time) time.Duration {
	next := time.Hour // unless moved wakes the goroutine
	if deadline != nil {
		now := f.published.Now()
		next = min(clockPeriod, deadline.Mono-now.Mono, deadline.Wall-now.Wall)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.overrunAt.IsZero() {
		next = min(next, time.Until(f.overrunAt))
	}
	return max(next, time.Millisecond)
}

// stop ends the contexts of all work, because the given deadline has passed or, with nil,
// because the machine requires it. It does nothing if a later deadline has replaced the
// given one: the renewal behind the later deadline was confirmed, so no peer has evicted
// this member, and the work may continue.
func (f *fence) stop(passed *claim.Time) {
	f.mu.Lock()
	inForce := true
	f.published.Change(func(v *View) {
		if inForce = passed == nil || v.Fence == passed; inForce {
			v.Fence = nil
		}
	})
	if !inForce {
		f.mu.Unlock()
		return
	}
	if !f.down {
		f.down, f.overrunAt = true, time.Now().Add(f.grace)
		f.fences++
	}
	epoch := f.fences
	f.mu.Unlock()
	signal(f.moved)

	for _, q := range f.components.allQueues() {
		// This does not end work that is handed out under a new deadline, if the fence is
		// lifted at the same moment.
		q.FenceIf(f.published.Fenced)
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

// publish stores the loop's new view. A deadline in it lifts the fence. With keep, the
// deadline that is in force stays, unless the fence has removed it. publish reports whether
// work was stopped before.
func (f *fence) publish(next View, keep bool) (wasDown bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	wasDown = f.down
	if !keep && next.Fence != nil {
		f.down, f.overrunAt = false, time.Time{}
		f.changes.post(Change{Kind: Unfenced})
	}
	f.published.Change(func(v *View) {
		if keep {
			next.Fence = v.Fence
		}
		*v = next
	})
	if !keep {
		signal(f.moved)
	}
	return wasDown
}

// checkOverrun reports work that still runs although it should have stopped after the
// fence: from now on peers may work on the same objects. It starts no report while another
// one is in progress.
func (f *fence) checkOverrun(ctx context.Context) {
	f.mu.Lock()
	due := !f.overrunAt.IsZero() && !time.Now().Before(f.overrunAt)
	if due {
		f.overrunAt = time.Time{}
	}
	f.mu.Unlock()
	if !due || f.components.InFlight() == 0 {
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
// report writes the log first; but a log sink that blocks does not delay the hook for long.
func (f *fence) report(ctx context.Context) {
	const logWithin = 100 * time.Millisecond
	items := f.components.Items(nil)
	if len(items) == 0 {
		return
	}
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		klog.FromContext(ctx).Error(nil, "Work is still running although this member is fenced: another member may be working on the same objects",
			"member", f.published.View().Holder, "items", few(items))
	}()
	if f.onOverrun == nil {
		<-logged
		return
	}
	within := time.NewTimer(logWithin)
	defer within.Stop()
	select {
	case <-logged:
	case <-within.C:
	}
	f.onOverrun(items)
	<-logged
}

// signal wakes the goroutine that receives from a channel with room for one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
