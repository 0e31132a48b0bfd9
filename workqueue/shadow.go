// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"sync/atomic"
	"time"

	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/client-go/util/workqueue"
)

// shadow is the meter for client-go's global provider of metrics, which only client-go's own
// code can use. It has a client-go queue, on which no worker waits, and makes the calls on it
// that a queue without parking and dropping would receive for this member's items. It is also
// the storage of that queue, so that it chooses what Get returns. It is slower than metrics,
// and an item that is dropped counts as work that took no time.
type shadow[T comparable] struct {
	of    *Queue[T]
	queue *workqueue.Typed[uint64] // of entry.id, because maps of numbers are faster than those of pointers
	clock shadowClock
	timed bool   // the queue has the clock
	ids   uint64 // how many were given out
	n     int    // in the storage
	next  uint64 // what the next Pop returns
}

func newShadow[T comparable](q *Queue[T], config workqueue.TypedRateLimitingQueueConfig[T]) *shadow[T] {
	m := &shadow[T]{of: q, clock: shadowClock{epoch: q.epoch}}
	c := config.Clock
	if c == nil {
		if timers, ok := realClock(c); ok {
			c, m.timed = withTimers(&m.clock, timers), true
		}
	}
	m.queue = workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[uint64]{Name: config.Name, Clock: c, Queue: m})
	return m
}

func (m *shadow[T]) add(e *entry[T]) {
	if e.id == 0 {
		m.ids++
		e.id = m.ids
	}
	m.queue.Add(e.id)
}

func (m *shadow[T]) get(e *entry[T]) {
	m.clock.during.Store(int64(e.since))
	m.take(e)
	m.clock.during.Store(0)
}

// done also finds out whether there are metrics at all. If not, client-go's queue does not look at its clock, and
// the Queue does not need it any more.
func (m *shadow[T]) done(e *entry[T]) {
	if m.queue.Done(e.id); m.timed && !m.clock.used.Load() {
		m.of.meter = noMeter[T]{}
		m.queue.ShutDown()
	}
}

func (m *shadow[T]) drop(e *entry[T]) {
	m.take(e)
	m.queue.Done(e.id)
}

// take makes the queue hand out the entry.
func (m *shadow[T]) take(e *entry[T]) {
	if m.n > 0 { // it is 0 at most after shutDown; Get would then wait
		m.next = e.id
		m.queue.Get()
	}
}

func (m *shadow[T]) shutDown() { m.queue.ShutDown() }

// The methods of workqueue.Queue, which client-go calls with its own lock held.

func (m *shadow[T]) Touch(uint64) {}
func (m *shadow[T]) Push(uint64)  { m.n++ }
func (m *shadow[T]) Len() int     { return m.n }

func (m *shadow[T]) Pop() uint64 {
	m.n--
	return m.next
}

// shadowClock is the real clock, except during a call of get. Then it shows the time that the
// queue has just read for the fence: to read the clock again would take a good part of the time
// that an item costs. client-go's goroutine that measures the work in flight may see that time
// too; it is as old as the call of get.
type shadowClock struct {
	epoch  time.Time
	during atomic.Int64 // what to show, as a time.Duration since epoch; 0 for the real time
	used   atomic.Bool
}

func (c *shadowClock) Now() time.Time                  { return c.epoch.Add(c.sinceEpoch()) }
func (c *shadowClock) Since(t time.Time) time.Duration { return c.sinceEpoch() - t.Sub(c.epoch) }

func (c *shadowClock) sinceEpoch() time.Duration {
	if !c.used.Load() {
		c.used.Store(true)
	}
	if d := c.during.Load(); d != 0 {
		return time.Duration(d)
	}
	return time.Since(c.epoch)
}

// timers are the methods of a clock of client-go that do not read it. Timer and Ticker stand
// for types of k8s.io/utils/clock, which the library does not import.
type timers[Timer, Ticker any] interface {
	After(d time.Duration) <-chan time.Time
	NewTimer(d time.Duration) Timer
	Sleep(d time.Duration)
	Tick(d time.Duration) <-chan time.Time
	NewTicker(d time.Duration) Ticker
}

type clockWithTimers[Timer, Ticker any] struct {
	*shadowClock
	timers[Timer, Ticker]
}

func withTimers[Timer, Ticker any](c *shadowClock, t timers[Timer, Ticker]) clockWithTimers[Timer, Ticker] {
	return clockWithTimers[Timer, Ticker]{c, t}
}

// realClock returns the real clock of client-go as a C. If it is no C in a later version, the queue uses the one that
// it has, and is only slower.
func realClock[C any](C) (c C, ok bool) {
	c, ok = any(flowcontrol.NewBackOff(0, 0).Clock).(C)
	return c, ok
}
