// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/metrics"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// View is the state of a member that all other goroutines see. It is immutable.
type View struct {
	Holder string       // the member's identity
	Ring   *ring.Ring   // of the live members, with the parameters in force
	States []ring.State // by partition
	Moved  time.Time    // when States changed last; Status.At of that step
	Tokens []string     // by partition; "" where not claimed
	Fence  *claim.Time  // when the member must stop; nil while it is fenced
	Status Status
}

// Status is the part of a View for probes, metrics and the status page.
type Status struct {
	At           time.Time // of the loop's last step; zero before Run
	Renewed      time.Time // when a renewal was last confirmed; zero if never
	Serving      bool      // on the ring, unless CrowdedOut
	WaitsFor     string    // what this member waits for before it works for the first time; "" for nothing
	Incompatible bool      // waits until all members with another key have left
	OffRing      int       // active members for which the ring has no room
	CrowdedOut   bool      // this member is one of them
	InForceLease string    // whose parameters are in force; "" if they are this member's own
	Duplicate    string    // another process that has this member's identity; "" for none
	Counts       metrics.Counts
	Blockers     map[string]int // partitions that other members still claim, by their Pods
	Draining     int            // partitions
	Tombstones   int            // of deleted Leases whose claims still count
	Warnings     Warnings
}

// Published is the one View of a member that is current. It is what informers, queues
// and users learn of the member. Any goroutine may call its methods. Reading costs one
// atomic load.
type Published struct {
	started time.Time  // start of the monotonic clock
	mu      sync.Mutex // held by writers
	view    atomic.Pointer[View]
}

func newPublished(holder string, p ring.Parameters) *Published {
	published := &Published{started: time.Now()}
	view := View{Holder: holder}
	view.ownNothing(p)
	published.view.Store(&view)
	return published
}

// ownNothing clears everything that depends on the ring.
func (v *View) ownNothing(p ring.Parameters) {
	v.Ring, _ = ring.New(p, nil) // the parameters were validated
	v.States, v.Tokens = make([]ring.State, p.Partitions), make([]string, p.Partitions)
}

// View returns the current view.
func (p *Published) View() *View { return p.view.Load() }

// Change replaces the view by a copy that f has changed. f must not block.
func (p *Published) Change(f func(*View)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := *p.view.Load()
	f(&next)
	p.view.Store(&next)
}

// State returns the state of the partition that contains a point of the hash space. It
// does not consider the fence.
func (p *Published) State(point uint64) ring.State { return p.View().State(point) }

// State returns the state of the partition that contains a point of the hash space.
func (v *View) State(point uint64) ring.State {
	return v.States[ring.PartitionOf(point, len(v.States))]
}

// Token returns the resourceVersion of the write with which this member claimed the
// partition of a point, "" if it does not claim it.
func (p *Published) Token(point uint64) string {
	now := p.View()
	return now.Tokens[ring.PartitionOf(point, len(now.Tokens))]
}

// Fenced reports whether this member must not act at this moment, whatever it owns. It
// reads both clocks, so that a process that was paused learns this before it acts (R35).
func (p *Published) Fenced() bool {
	_, fenced := p.FencedAt()
	return fenced
}

// FencedAt is Fenced, and also returns the time that it used.
func (p *Published) FencedAt() (now time.Time, fenced bool) {
	now = time.Now()
	deadline := p.View().Fence
	return now, deadline == nil || p.reading(now).Reached(*deadline)
}

// Stopped reports whether this member is fenced, as far as that was published: the fence
// publishes it before it ends the work. It reads no clock.
func (p *Published) Stopped() bool { return p.View().Fence == nil }

// FencedIn is Fenced for a view that the caller has read, so that what it reports belongs
// together.
func (p *Published) FencedIn(v *View) bool { return v.Fence == nil || p.Now().Reached(*v.Fence) }

// Now reads both clocks.
func (p *Published) Now() claim.Time { return p.reading(time.Now()) }

// reading splits a time into the readings of the monotonic and of the wall clock.
func (p *Published) reading(t time.Time) claim.Time {
	return claim.Time{Mono: t.Sub(p.started), Wall: time.Duration(t.UnixNano())}
}
