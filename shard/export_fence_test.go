// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"time"

	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// Pause stops the loop and the fence, as a pause of the process would, until the
// context ends. It returns when both have stopped, or when the context ends. They resume
// a moment later than the workers, because that is the worst order of scheduling.
func (s *Sharder) Pause(ctx context.Context) {
	const later = 10 * time.Millisecond
	held := make(chan struct{})
	go s.inspect(ctx, func(l *loop) {
		stopped := make(chan struct{})
		select {
		case l.fence.ask <- func() { close(stopped); <-ctx.Done(); time.Sleep(later) }:
			<-stopped
		case <-l.ctx.Done():
		}
		close(held)
		<-ctx.Done()
		time.Sleep(later)
	})
	select {
	case <-held:
	case <-ctx.Done():
	}
}

// JumpWall makes the published deadline earlier on the wall clock by the given duration, as
// if that clock had been set forward. The machine does not notice.
func (s *Sharder) JumpWall(by time.Duration) {
	deadline := *s.deadline.Load()
	deadline.Wall -= by
	s.deadline.Store(&deadline)
}

// OnFence registers a function that the fence calls before it stops the work of the queues
// that are registered later.
func (s *Sharder) OnFence(f func()) { s.add(nil, fenceHook(f)) }

type fenceHook func()

func (f fenceHook) FenceIf(func() bool)      { f() }
func (fenceHook) Readmit()                   {}
func (fenceHook) Drain(func(uint64) bool)    {}
func (fenceHook) InFlight() []workqueue.Work { return nil }
func (fenceHook) OnDone(func())              {}
func (fenceHook) Parked() int                { return 0 }
