// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// change is one call of Activated or Released, or an object that one handler must be shown again.
type change struct {
	again     string // the key of the object; then only active is set, too
	number    uint64 // counts the changes of an informer, from 1
	set       ring.Set
	active    bool
	deletions history // that were remembered at an activation
}

// changeQueue holds the changes that a filter has not processed yet, in their order.
type changeQueue struct {
	posted chan struct{} // capacity 1: notifies serve of new changes

	mu   sync.Mutex
	list []change
	n    atomic.Int64 // the length of list; set with mu held
}

// empty reports whether all changes that were posted have been processed.
func (q *changeQueue) empty() bool { return q.n.Load() == 0 }

// post appends a change. It never blocks.
func (q *changeQueue) post(c change) {
	q.mu.Lock()
	q.list = append(q.list, c)
	q.n.Store(int64(len(q.list)))
	q.mu.Unlock()
	select {
	case q.posted <- struct{}{}:
	default: // a notification is already pending
	}
}

func (q *changeQueue) first() (change, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 {
		return change{}, false
	}
	return q.list[0], true
}

// activate reports whether a change waits that activates partitions of the set.
func (q *changeQueue) activate(set ring.Set) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.ContainsFunc(q.list, func(c change) bool { return c.active && c.set.Overlaps(set) })
}

// activations adds the partitions of the activations to sets, of which each has another
// partition count.
func (q *changeQueue) activations(sets []ring.Set) []ring.Set {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range q.list {
		if !c.active || c.set.Empty() {
			continue
		}
		at := slices.IndexFunc(sets, func(s ring.Set) bool { return s.Partitions() == c.set.Partitions() })
		if at < 0 {
			sets = append(sets, c.set.Clone())
		} else {
			sets[at].AddAll(c.set)
		}
	}
	return sets
}

func (q *changeQueue) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) > 0 {
		q.list[0] = change{} // so that the slice does not keep it in memory
		q.list = q.list[1:]
		q.n.Store(int64(len(q.list)))
	}
}

func (q *changeQueue) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = nil
	q.n.Store(0)
}
