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
	queue *workqueue.Typed[*entry[T]]
	clock shadowClock
	n     int       // entries in the storage
	next  *entry[T] // what the next Pop returns
}

func newShadow[T comparable](q *Queue[T], config workqueue.TypedRateLimitingQueueConfig[T]) *shadow[T] {
	m := &shadow[T]{clock: shadowClock{epoch: q.epoch}}
	c := config.Clock
	if c == nil {
		c = withTimers(c, &m.clock)
	}
	m.queue = workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[*entry[T]]{Name: config.Name, Clock: c, Queue: m})
	return m
}

func (m *shadow[T]) add(e *entry[T])  { m.queue.Add(e) }
func (m *shadow[T]) done(e *entry[T]) { m.queue.Done(e) }

func (m *shadow[T]) get(e *entry[T]) {
	m.clock.during.Store(int64(e.since))
	m.take(e)
	m.clock.during.Store(0)
}

func (m *shadow[T]) drop(e *entry[T]) {
	m.take(e)
	m.done(e)
}

// take makes the queue hand out the entry.
func (m *shadow[T]) take(e *entry[T]) {
	if m.n > 0 { // it is 0 at most after shutDown; Get would then wait
		m.next = e
		m.queue.Get()
	}
}

func (m *shadow[T]) shutDown() { m.queue.ShutDown() }

// The methods of workqueue.Queue, which client-go calls with its own lock held.

func (m *shadow[T]) Touch(*entry[T]) {}
func (m *shadow[T]) Push(*entry[T])  { m.n++ }
func (m *shadow[T]) Len() int        { return m.n }

func (m *shadow[T]) Pop() *entry[T] {
	m.n--
	e := m.next
	m.next = nil
	return e
}

// shadowClock is the real clock. During a call of get it returns the time that the queue has
// read for the fence, because a reading of the clock takes a good part of the time for an item.
// client-go's goroutine that measures the work in flight may see that time as well: it is late
// by the duration of get at most.
type shadowClock struct {
	epoch  time.Time
	during atomic.Int64 // nanoseconds since epoch; 0 for the real clock
}

// Now keeps the monotonic reading of epoch.
func (c *shadowClock) Now() time.Time {
	since := time.Duration(c.during.Load())
	if since == 0 {
		since = time.Since(c.epoch) // faster than time.Now, which reads the wall clock too
	}
	return c.epoch.Add(since)
}

func (c *shadowClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

// timers are the other methods of a clock in client-go's configuration. Timer and Ticker stand
// for types of k8s.io/utils/clock, which the library does not import.
type timers[Timer, Ticker any] interface {
	After(d time.Duration) <-chan time.Time
	NewTimer(d time.Duration) Timer
	Sleep(d time.Duration)
	Tick(d time.Duration) <-chan time.Time
	NewTicker(d time.Duration) Ticker
}

type clockWithTimers[Timer, Ticker any] struct {
	timers[Timer, Ticker] // of the real clock
	*shadowClock
}

// withTimers makes c a clock for client-go. Only the type of its first argument matters.
func withTimers[Timer, Ticker any](_ timers[Timer, Ticker], c *shadowClock) clockWithTimers[Timer, Ticker] {
	realClock := any(flowcontrol.NewBackOff(0, 0).Clock).(timers[Timer, Ticker])
	return clockWithTimers[Timer, Ticker]{realClock, c}
}
