// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"errors"
	"time"

	authorizationv1 "k8s.io/client-go/kubernetes/typed/authorization/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/tom-ludwig/operator-scaling/shard/internal/member"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// Hold stops the loop, as a pause of the process would, until the context ends.
// It returns when the loop has stopped, or when the context ends.
func (s *Sharder) Hold(ctx context.Context) {
	held := make(chan struct{})
	go s.member.Inspect(ctx, func(member.Inspection) {
		close(held)
		<-ctx.Done()
	})
	select {
	case <-held:
	case <-ctx.Done():
	}
}

// Read asks the loop for what only it knows, as the status page does. The loop needs the
// given time for that.
func (s *Sharder) Read(ctx context.Context, takes time.Duration) {
	s.member.Inspect(ctx, func(member.Inspection) { time.Sleep(takes) })
}

// Pause stops the loop and the fence, as a pause of the process would, until the
// context ends. It returns when both have stopped, or when the context ends. They resume
// a moment later than the workers, because that is the worst order of scheduling.
func (s *Sharder) Pause(ctx context.Context) {
	const later = 10 * time.Millisecond
	held := make(chan struct{})
	go s.member.Inspect(ctx, func(member.Inspection) {
		s.member.InspectFence(func() {
			close(held)
			<-ctx.Done()
			time.Sleep(later)
		})
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
	s.member.Published.Change(func(v *member.View) {
		deadline := *v.Fence
		deadline.Wall -= by
		v.Fence = &deadline
	})
}

// OnFence registers a function that the fence calls before it stops the work of the queues
// that are registered later.
func (s *Sharder) OnFence(f func()) { s.member.Components.AddQueue(fenceHook(f)) }

type fenceHook func()

func (f fenceHook) FenceIf(func() bool)      { f() }
func (fenceHook) Readmit()                   {}
func (fenceHook) Drain(func(uint64) bool)    {}
func (fenceHook) Cancel(func(uint64) bool)   {}
func (fenceHook) Closed() bool               { return false }
func (fenceHook) InFlight() []workqueue.Work { return nil }
func (fenceHook) OnDone(func())              {}
func (fenceHook) Parked() int                { return 0 }

// Leases returns the client for this member's requests for Leases. Pods and Reviews return
// the clients for its other requests.
func (s *Sharder) Leases() coordinationv1.LeasesGetter                     { return s.api.leases }
func (s *Sharder) Pods() corev1.PodsGetter                                 { return s.api.pods }
func (s *Sharder) Reviews() authorizationv1.SelfSubjectAccessReviewsGetter { return s.api.reviews }

// LastFailure returns the error of the requests that fail now.
func (s *Sharder) LastFailure() error { return s.member.LastFailure() }

// Fenced and State return what queues learn of this member.
func (s *Sharder) Fenced() bool                  { return s.member.Published.Fenced() }
func (s *Sharder) State(point uint64) ring.State { return s.member.Published.State(point) }

// Parked counts the items that the queues have parked.
func (s *Sharder) Parked() int { return s.member.Components.Parked() }

// Unsynced returns the names of the informers that this member waits for.
func (s *Sharder) Unsynced() []string { return s.member.Components.Unsynced() }

// SetupError returns the errors in the setup, which Run returns.
func (s *Sharder) SetupError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.faults...)
}

// OwnedCount returns how many partitions are active.
func (s *Sharder) OwnedCount() (n int) {
	for _, state := range s.member.Published.View().States {
		if state == ring.Active {
			n++
		}
	}
	return n
}

// RenewalAge returns the time since a renewal was last confirmed.
func (s *Sharder) RenewalAge() time.Duration {
	return time.Since(s.member.Published.View().Status.Renewed)
}

// Registered counts the informers and queues that this member knows.
func (s *Sharder) Registered() (informers, queues int) { return s.member.Components.Registered() }

// WithDefaults returns a copy with the defaults, as New uses it.
func (c Config) WithDefaults() Config { return c.withDefaults() }
