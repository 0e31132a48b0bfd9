// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"sync"
	"time"
)

// nobody is the owner of an object that no member reports as active.
const nobody = -1

// board is what is known at a moment: who owns each object, and what each member
// has done. The members themselves are asked for what they own; nothing here is
// concluded from what they should own. All methods may be called from any goroutine.
type board struct {
	mu      sync.Mutex
	objects []object // sorted by key, never more or less
	index   map[string]int
	members []*member
	step    *step // what is being measured; nil between two steps
}

// object is one Foo.
type object struct {
	key   string // namespace/name
	point uint64
	owner int       // index of a member, or nobody
	lost  time.Time // when its last owner was last seen to own it; zero if it never had one
	// worked is when the last reconcile of it was seen, by whomever.
	worked time.Time
}

// member is one replica process.
type member struct {
	name  string
	phase phase
	since []time.Time // by object: when it was first seen to own it; zero if it doesn't
	seen  time.Time   // when the last question that it answered was sent

	reconciles int
	rate       meter
}

// phase is what a member is doing.
type phase string

const (
	starting phase = "starting"
	active   phase = "active"
	fenced   phase = "fenced" // not sure of its place: it doesn't work for now
	stopping phase = "stopping"
	stopped  phase = "stopped"
	killed   phase = "killed"
)

// gone says that the process has ended.
func (p phase) gone() bool { return p == stopped || p == killed }

// newBoard returns a board of objects without owners.
func newBoard(keys []string, point func(key string) uint64) *board {
	b := &board{index: make(map[string]int, len(keys))}
	for i, key := range slices.Sorted(slices.Values(keys)) {
		b.objects = append(b.objects, object{key: key, point: point(key), owner: nobody})
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

// enter says what a member is doing from now on.
func (b *board) enter(m int, p phase) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.members[m].phase = p
}

// fence says whether a member that is otherwise active must not work.
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

// observe takes a member's answer to a question sent at one time and answered at
// the other. What it owns was first seen at the answer, and last seen at the
// question, so that a time without an owner is never measured too short.
func (b *board) observe(m int, sent, answered time.Time, owns func(point uint64) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	it := b.members[m]
	if it.phase.gone() {
		return // an answer that was on its way when the process ended
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

// end says that a member's process has ended. What it owned was lost at the given
// time; if that is zero, when it was last seen to own it.
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

// take gives an object that has no owner to a member. One that has an owner stays
// with it until that one is seen without it: the answers are of different times.
func (b *board) take(i, m int) {
	o := &b.objects[i]
	if o.owner != nobody {
		return
	}
	o.owner = m
	if b.step != nil && !o.lost.IsZero() {
		b.step.unowned[i] += max(0, b.members[m].since[i].Sub(o.lost))
	}
}

// leave takes an object from the member that owned it until then.
func (b *board) leave(i, m int, lost time.Time) {
	o := &b.objects[i]
	if o.owner != m {
		return
	}
	o.owner, o.lost = nobody, lost
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

// untouched counts the objects that nobody has worked on.
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

// ownedBy counts the objects that each member owns; the last one is nobody.
func (b *board) ownedBy() []int {
	counts := make([]int, len(b.members)+1)
	for _, o := range b.objects {
		if o.owner == nobody {
			counts[len(b.members)]++
		} else {
			counts[o.owner]++
		}
	}
	return counts
}
