// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zeebo/xxh3"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/informer"
	"github.com/tom-ludwig/operator-scaling/shard/internal/lease"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// Informer is what a member needs of an *informer.Informer.
type Informer interface {
	HasSyncedChecker() cache.DoneChecker
	Replay(ctx context.Context) error
	Activated(ring.Set)
	Released(ring.Set)
	Objects() [ring.Active + 1]int
	Events() informer.Counts
	Handlers() int
	IsStopped() bool
}

// Queue is what a member needs of a *workqueue.Queue, of any item type.
type Queue interface {
	Readmit()
	Drain(draining func(point uint64) bool)
	Cancel(draining func(point uint64) bool)
	FenceIf(fenced func() bool)
	InFlight() []workqueue.Work
	OnDone(func())
	Parked() int
	Closed() bool
}

// Components are the informers and queues of a member. They may be added at any time.
// Any goroutine may call the methods. No lock is held while other code is called.
type Components struct {
	added chan struct{} // capacity 1: there are new ones

	mu           sync.Mutex
	kinds        map[Informer]string // of the objects of sharded informers, if known; guarded by mu
	informers    []Informer          // guarded by mu; replaced, and not changed in place, when one is removed
	newInformers []Informer          // of informers, those that takeNewInformers has not returned; guarded by mu
	joined       ring.Set            // empty, and with partitions once some were activated; guarded by mu
	retired      informer.Counts     // of informers that were removed; guarded by mu
	queues       []Queue             // guarded by mu; replaced, and not changed in place, when queues are removed
	newQueues    []Queue             // of queues, those that takeNewQueues has not returned; guarded by mu
}

func newComponents() *Components {
	return &Components{added: make(chan struct{}, 1), kinds: map[Informer]string{}}
}

// AddInformer adds an informer. kind is that of its objects, if it is known and if a member
// works only on a part of them.
func (c *Components) AddInformer(i Informer, kind string) {
	c.mu.Lock()
	if kind != "" {
		c.kinds[i] = kind
	}
	c.informers = append(c.informers, i)
	c.newInformers = append(c.newInformers, i)
	joined := c.joined
	c.mu.Unlock()
	signal(c.added)
	if joined.Partitions() > 0 { // its handlers see what is active in their initial list
		i.Activated(joined)
	}
}

// AddQueue adds a queue.
func (c *Components) AddQueue(q Queue) {
	c.mu.Lock()
	c.queues = append(c.queues, q)
	c.newQueues = append(c.newQueues, q)
	c.mu.Unlock()
	signal(c.added)
	c.removeClosedQueues()
}

// removeClosedQueues forgets the queues that were shut down and hold nothing any more.
func (c *Components) removeClosedQueues() {
	var closed []Queue
	for _, q := range c.allQueues() {
		if q.Closed() {
			closed = append(closed, q)
		}
	}
	if len(closed) == 0 {
		return
	}
	isClosed := func(q Queue) bool { return slices.Contains(closed, q) }
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queues = slices.DeleteFunc(slices.Clone(c.queues), isClosed)
	c.newQueues = slices.DeleteFunc(c.newQueues, isClosed)
}

// takeNewQueues returns the queues that were added since the last call.
func (c *Components) takeNewQueues() []Queue {
	c.mu.Lock()
	defer c.mu.Unlock()
	queues := c.newQueues
	c.newQueues = nil
	return queues
}

// removeInformer removes an informer that has stopped.
func (c *Components) removeInformer(i Informer) {
	events := i.Events()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.informers = slices.DeleteFunc(slices.Clone(c.informers), func(other Informer) bool { return other == i })
	delete(c.kinds, i)
	c.retired.Add(events)
}

// Kinds returns the kinds of the objects of the informers, sorted, and a hash of them if they
// are too many for a Lease.
func (c *Components) Kinds() string {
	c.mu.Lock()
	kinds := slices.Sorted(maps.Values(c.kinds))
	c.mu.Unlock()
	text := strings.Join(slices.Compact(kinds), ",")
	if len(text) > lease.MaxKinds {
		return fmt.Sprintf("%016x", xxh3.HashString(text))
	}
	return text
}

// takeNewInformers returns the informers that were added since the last call.
func (c *Components) takeNewInformers() []Informer {
	c.mu.Lock()
	defer c.mu.Unlock()
	informers := c.newInformers
	c.newInformers = nil
	return informers
}

func (c *Components) allInformers() []Informer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.informers[:len(c.informers):len(c.informers)]
}

// Unsynced returns the names of the informers that have not synced, for instance because
// they were never started.
func (c *Components) Unsynced() (names []string) {
	for _, i := range c.allInformers() {
		if checker := i.HasSyncedChecker(); !cache.IsDone(checker) {
			names = append(names, checker.Name())
		}
	}
	return names
}

// unused returns the names of the informers that have no handlers.
func (c *Components) unused() (names []string) {
	for _, i := range c.allInformers() {
		if i.Handlers() == 0 {
			names = append(names, i.HasSyncedChecker().Name())
		}
	}
	return names
}

// Events counts the events of the informers by outcome.
func (c *Components) Events() informer.Counts {
	c.mu.Lock()
	counts, informers := c.retired, c.informers
	c.mu.Unlock()
	for _, i := range informers {
		counts.Add(i.Events())
	}
	return counts
}

func (c *Components) allQueues() []Queue {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queues[:len(c.queues):len(c.queues)]
}

// Registered counts the informers and queues that were not removed.
func (c *Components) Registered() (informers, queues int) {
	return len(c.allInformers()), len(c.allQueues())
}

func (c *Components) activated(set ring.Set) {
	c.mu.Lock()
	c.joined = ring.NewSet(set.Partitions())
	informers := c.informers
	c.mu.Unlock()
	for _, i := range informers {
		i.Activated(set)
	}
	c.readmit()
}

func (c *Components) released(set ring.Set) {
	for _, i := range c.allInformers() {
		i.Released(set)
	}
	c.readmit() // drops the parked items of these partitions
}

// drain begins to drain the partitions: their work in flight may end by itself until cancel.
func (c *Components) drain(set ring.Set) {
	for _, q := range c.allQueues() {
		q.Drain(set.HasPoint)
	}
}

// cancel cancels the contexts of the work in flight on partitions that are being drained.
func (c *Components) cancel(set ring.Set) {
	for _, q := range c.allQueues() {
		q.Cancel(set.HasPoint)
	}
}

// readmit makes the queues look again at what they hold.
func (c *Components) readmit() {
	c.removeClosedQueues()
	for _, q := range c.allQueues() {
		q.Readmit()
	}
}

// idle returns those of the partitions that have no work in flight.
func (c *Components) idle(draining ring.Set) ring.Set {
	idle := draining.Clone()
	for _, q := range c.allQueues() {
		for _, work := range q.InFlight() {
			idle.Remove(ring.PartitionOf(work.Point, idle.Partitions()))
		}
	}
	return idle
}

// Items lists the work in flight that has one of the given points, in readable form: each
// item and how long work on it has been running. A nil function means all points.
func (c *Components) Items(at func(point uint64) bool) []string {
	var items []string
	for _, q := range c.allQueues() {
		for _, work := range q.InFlight() {
			if at == nil || at(work.Point) {
				items = append(items, fmt.Sprintf("%v (%v)", work.Item, time.Since(work.Since).Round(time.Millisecond)))
			}
		}
	}
	slices.Sort(items)
	return items
}

// InFlight counts the items that are being worked on.
func (c *Components) InFlight() (n int) {
	for _, q := range c.allQueues() {
		n += len(q.InFlight())
	}
	return n
}

// Parked counts the items that the queues have parked.
func (c *Components) Parked() (n int) {
	for _, q := range c.allQueues() {
		n += q.Parked()
	}
	return n
}

// Objects counts the objects in the stores of the informers, by state. It hashes each
// object once.
func (c *Components) Objects() (count [ring.Active + 1]int) {
	for _, i := range c.allInformers() {
		for state, n := range i.Objects() {
			count[state] += n
		}
	}
	return count
}
