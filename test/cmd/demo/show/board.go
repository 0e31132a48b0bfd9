// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"sync"
	"time"
)

// noOwner is the owner of an object that no member reports as active.
const noOwner = -1

// board is the current state: the owner of each object, and what each member has done.
// The members themselves report what they own; nothing here is concluded from what they
// should own. All methods may be called from any goroutine.
type board struct {
	mu      sync.Mutex
	objects []object // sorted by key; the set does not change
	index   map[string]int
	members []*member
	step    *step // the step that is being measured; nil between two steps
}

// object is one Foo.
type object struct {
	key   string // namespace/name
	point uint64
	owner int       // index of a member, or noOwner
	lost  time.Time // when its last owner was last seen to own it; zero if it never had one
	// worked is when its last reconcile, by any member, was seen.
	worked time.Time
}

// member is one replica process.
type member struct {
	name  string
	phase phase
	since []time.Time // by object: when the member was first seen to own it; zero if it does not
	seen  time.Time   // when the last request that it answered was sent

	reconciles int
	rate       meter
}

// phase is what a member is doing.
type phase string

const (
	starting phase = "starting"
	active   phase = "active"
	fenced   phase = "fenced" // its last confirmed renewal is too old: it must not work
	stopping phase = "stopping"
	stopped  phase = "stopped"
	killed   phase = "killed"
)

// gone reports whether the process has ended.
func (p phase) gone() bool { return p == stopped || p == killed }

// newBoard returns a board of objects without owners.
func newBoard(keys []string, point func(key string) uint64) *board {
	b := &board{index: make(map[string]int, len(keys))}
	for i, key := range slices.Sorted(slices.Values(keys)) {
		b.objects = append(b.objects, object{key: key, point: point(key), owner: noOwner})
		b.index[key] = i
	}
	return b
}

// add adds a member and returns its index.
func (b *board) add(name string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.members = append(b.members, &member{name: name, phase: starting, since: make([]time.Time, len(b.objects))})
	return len(b.members) - 1
}

// enter sets the phase of a member.
func (b *board) enter(m int, p phase) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.members[m].phase = p
}

// fence sets whether an otherwise active member is fenced.
func (b *board) fence(m int, is bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch it := b.members[m]; {
	case is && it.phase == active:
		it.phase = fenced
	case !is && it.phase == fenced:
		it.phase = active
	}
}

// observe processes a member's response to a request, given the times of both. An object
// counts as owned for the first time at the response, and for the last time at the
// request. A time without an owner is therefore never measured too short.
func (b *board) observe(m int, sent, answered time.Time, owns func(point uint64) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	it := b.members[m]
	if it.phase.gone() {
		return // a response that was in flight when the process ended
	}
	last := it.seen
	it.seen = sent
	owned := 0
	for i := range b.objects {
		switch is, was := owns(b.objects[i].point), !it.since[i].IsZero(); {
		case is && !was:
			it.since[i] = answered
			b.take(i, m)
		case was && !is:
			it.since[i] = time.Time{}
			b.leave(i, m, last)
		}
		if !it.since[i].IsZero() {
			owned++
		}
	}
	if it.phase == starting && owned > 0 {
		it.phase = active
	}
	b.settle(answered)
}

// end notes that a member's process has ended. It lost its objects at the given time, or,
// if that is zero, when it was last seen to own them.
func (b *board) end(m int, p phase, lost time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	it := b.members[m]
	it.phase = p
	if lost.IsZero() {
		lost = it.seen
	}
	for i := range b.objects {
		if !it.since[i].IsZero() {
			it.since[i] = time.Time{}
			b.leave(i, m, lost)
		}
	}
}

// take assigns an object without an owner to a member. An object that has an owner stays
// with it until that member reports that it no longer owns it, because the responses are
// from different times.
func (b *board) take(i, m int) {
	o := &b.objects[i]
	if o.owner != noOwner {
		return
	}
	o.owner = m
	if b.step != nil && !o.lost.IsZero() {
		b.step.unowned[i] += max(0, b.members[m].since[i].Sub(o.lost))
	}
}

// leave removes an object from its owner.
func (b *board) leave(i, m int, lost time.Time) {
	o := &b.objects[i]
	if o.owner != m {
		return
	}
	o.owner, o.lost = noOwner, lost
	for next, other := range b.members {
		if !other.since[i].IsZero() {
			b.take(i, next)
			return
		}
	}
}

// worked counts a reconcile. Objects that are not on the board count as well.
func (b *board) worked(m int, key string, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.members[m].reconciles++
	b.members[m].rate.add(at)
	if i, found := b.index[key]; found {
		b.objects[i].worked = at
	}
}

// untouched counts the objects that no member has worked on.
func (b *board) untouched() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, o := range b.objects {
		if o.worked.IsZero() {
			n++
		}
	}
	return n
}

// ownedBy counts the objects that each member owns; the last count is of those without
// an owner.
func (b *board) ownedBy() []int {
	counts := make([]int, len(b.members)+1)
	for _, o := range b.objects {
		if o.owner == noOwner {
			counts[len(b.members)]++
		} else {
			counts[o.owner]++
		}
	}
	return counts
}
