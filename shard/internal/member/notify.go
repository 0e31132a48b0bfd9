// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// ChangeKind is the type of a [Change].
type ChangeKind string

// The kinds of changes; package shard documents them for users.
const (
	Joined    ChangeKind = "joined"
	Activated ChangeKind = "activated"
	Draining  ChangeKind = "draining"
	Released  ChangeKind = "released"
	Fenced    ChangeKind = "fenced"
	Unfenced  ChangeKind = "unfenced"
	Left      ChangeKind = "left"
)

// Change is a step of this member on the ring.
type Change struct {
	Kind       ChangeKind
	Member     string // its identity
	Partitions []int  // for Activated, Draining and Released; ascending
	Err        error  // why the member left
}

// ErrChangesDropped is the reason of a [Left] that replaces waiting changes. The changes
// that follow describe what the member has.
var ErrChangesDropped = errors.New("changes were dropped because OnChange is too slow")

// maxChanges is how many changes may wait for an OnChange that does not return.
const maxChanges = 1000

// changes delivers the steps of this member to Config.OnChange, in order, on a
// goroutine of its own: OnChange is the user's code and may block for any time.
// Only deliver calls OnChange, and only await waits for it.
type changes struct {
	call   func(Change)  // Config.OnChange; nil for none
	posted chan struct{} // capacity 1: wakes deliver
	done   chan struct{} // closed when deliver has returned

	mu     sync.Mutex
	queue  []numbered
	last   uint64 // number of the change that was posted last
	closed bool   // no change follows
	given  bool   // giveUp was called: no further change is delivered

	delivered uint64        // number of the last change from which OnChange has returned
	progress  chan struct{} // closed when that number rises
	since     time.Time     // when the call in progress began; zero if there is none

	// The state that OnChange knows after the whole queue has been delivered.
	member                 string
	joined, fencedNotified bool
	active                 map[int]bool
}

// numbered is a change in the queue. Numbers rise.
type numbered struct {
	Change
	number uint64
}

func newChanges(call func(Change)) *changes {
	return &changes{
		call: call, posted: make(chan struct{}, 1), done: make(chan struct{}),
		progress: make(chan struct{}), active: map[int]bool{},
	}
}

// post queues a change for OnChange, and never blocks. Fenced is posted only once until
// the fence is lifted; Joined and Left alternate in the same way.
func (c *changes) post(change Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch change.Kind {
	case Fenced, Unfenced:
		if is := change.Kind == Fenced; is == c.fencedNotified || !c.joined {
			return
		}
		change.Member = c.member
		c.fencedNotified = change.Kind == Fenced
	case Joined, Left:
		if is := change.Kind == Joined; is == c.joined {
			return
		}
		c.joined, c.fencedNotified, c.member = change.Kind == Joined, false, change.Member
		clear(c.active)
	case Activated:
		for _, p := range change.Partitions {
			c.active[p] = true
		}
	case Draining, Released:
		for _, p := range change.Partitions {
			delete(c.active, p)
		}
	}
	if c.call == nil {
		return
	}
	c.last++
	c.queue = append(c.queue, numbered{change, c.last})
	if len(c.queue) > maxChanges {
		c.coalesce()
	}
	signal(c.posted)
}

// coalesce replaces all waiting changes by changes that describe what this member has now.
func (c *changes) coalesce() {
	c.queue = nil
	add := func(change Change) {
		change.Member = c.member
		c.queue = append(c.queue, numbered{Change: change})
	}
	add(Change{Kind: Left, Err: ErrChangesDropped})
	if c.joined {
		add(Change{Kind: Joined})
		if len(c.active) > 0 {
			add(Change{Kind: Activated, Partitions: slices.Sorted(maps.Keys(c.active))})
		}
		if c.fencedNotified {
			add(Change{Kind: Fenced})
		}
	}
	c.queue[len(c.queue)-1].number = c.last
}

// deliver calls OnChange until close, and then with what is left.
func (c *changes) deliver() {
	defer close(c.done)
	for {
		next, ok := c.next()
		if !ok {
			return
		}
		c.call(next.Change)
		c.mu.Lock()
		c.since, c.delivered = time.Time{}, max(c.delivered, next.number)
		close(c.progress)
		c.progress = make(chan struct{})
		c.mu.Unlock()
	}
}

// next waits for a change. It returns false when there will be none.
func (c *changes) next() (next numbered, ok bool) {
	for {
		c.mu.Lock()
		switch {
		case c.given, c.closed && len(c.queue) == 0:
			c.mu.Unlock()
			return next, false
		case len(c.queue) > 0:
			next, c.queue = c.queue[0], c.queue[1:]
			c.since = time.Now()
			c.mu.Unlock()
			return next, true
		}
		c.mu.Unlock()
		<-c.posted
	}
}

// number returns the number of the change that was posted last.
func (c *changes) number() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// await returns when OnChange has returned from the change with this number and from all
// changes before it, when one of these calls has lasted for the given time, or when the
// context ends.
func (c *changes) await(ctx context.Context, number uint64, most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	for {
		c.mu.Lock()
		over := c.delivered >= number || !c.since.IsZero() && time.Since(c.since) >= most
		progress := c.progress
		c.mu.Unlock()
		if over {
			return
		}
		select {
		case <-progress:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// stuck returns how long the call of OnChange in progress has lasted, 0 if there is none.
func (c *changes) stuck() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since.IsZero() {
		return 0
	}
	return time.Since(c.since)
}

// close declares that no change follows.
func (c *changes) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	signal(c.posted)
}

// giveUp makes deliver return after the call in progress.
func (c *changes) giveUp() {
	c.mu.Lock()
	c.given = true
	c.mu.Unlock()
	signal(c.posted)
}
