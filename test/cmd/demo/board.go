// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

const (
	// askEvery is the time between two requests to a replica.
	askEvery = 100 * time.Millisecond
	// rateTime is the period over which the reconciles per second are counted.
	rateTime = 2 * time.Second
)

// board is the current state. The members themselves report what they own; nothing here is concluded from what they should
// own. All methods may be called from any goroutine.
type board struct {
	mu      sync.Mutex
	objects []object // the set does not change
	members []*member
}

// object is one Foo.
type object struct {
	key       string // namespace/name
	partition int
}

// member is one replica process.
type member struct {
	*replica.Process
	row
	owns     []bool      // by partition: the member reports that it may work on it
	recent   []int       // its reconciles at each request within rateTime
	expected atomic.Bool // its end is not a failure
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

// newBoard returns a board of objects of one namespace, without members.
func newBoard(namespace string, names []string) *board {
	b := &board{}
	hash, partitions := ring.HashOf(ring.ByName), ring.DefaultParameters().Partitions
	for _, name := range names {
		key := namespace + "/" + name
		b.objects = append(b.objects, object{key, ring.PartitionOf(hash(key), partitions)})
	}
	return b
}

func (b *board) add(name string, p *replica.Process) *member {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := &member{Process: p, row: row{name: name, phase: starting}}
	b.members = append(b.members, m)
	return m
}

// enter sets the phase of a member. A member that has ended owns nothing.
func (b *board) enter(m *member, p phase) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.phase = p; p.gone() {
		m.owns, m.rate = nil, 0
	}
}

// observe processes what a member reports, and how many reconciles it has recorded.
func (b *board) observe(m *member, report inspect.Report, reconciles int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.owns = make([]bool, len(report.Partitions))
	for i, p := range report.Partitions {
		m.owns[i] = !report.Fenced && p.State == ring.Active.String()
	}
	switch {
	case m.phase == stopping:
	case slices.Contains(m.owns, true):
		m.phase = active
	case report.Fenced && m.phase == active:
		m.phase = fenced
	}
	m.reconciles = reconciles
	m.recent = append(m.recent, reconciles)
	m.recent = m.recent[max(0, len(m.recent)-1-int(rateTime/askEvery)):]
	m.rate = float64(reconciles-m.recent[0]) / rateTime.Seconds()
}

// owner returns the member that owns an object, nil if there is none. While a partition moves, two members may report it,
// because their responses are from different times.
func (b *board) owner(o object) *member {
	for _, m := range b.members {
		if o.partition < len(m.owns) && m.owns[o.partition] {
			return m
		}
	}
	return nil
}

// settled reports whether each object is with its owner on a ring.
func (b *board) settled(r *ring.Ring) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !slices.ContainsFunc(b.objects, func(o object) bool {
		want, _ := r.Owner(o.partition)
		m := b.owner(o)
		return m == nil || m.name != want
	})
}

// rows returns the state of each member, and the number of objects without an owner.
func (b *board) rows() (rows []row, unowned int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	owned := map[*member]int{}
	for _, o := range b.objects {
		owned[b.owner(o)]++
	}
	for _, m := range b.members {
		m.owned = owned[m]
		rows = append(rows, m.row)
	}
	return rows, owned[nil]
}
