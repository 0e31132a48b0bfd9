// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import "k8s.io/client-go/util/workqueue"

// meter makes client-go's own code count for its metrics: client-go's global provider of
// metrics cannot be used in another way. It has a client-go queue, on which no worker waits,
// and makes the calls on it that a queue without parking and dropping would receive for this
// member's items. It is also the storage of that queue, so that it chooses what Get returns.
//
// The queue's mutex guards it. A nil meter counts nothing.
type meter[T comparable] struct {
	shadow *workqueue.Typed[*entry[T]]
	n      int       // entries in the storage
	next   *entry[T] // what the next Pop returns
}

// newMeter returns nil for a queue without a name, which has no metrics.
func newMeter[T comparable](config workqueue.TypedRateLimitingQueueConfig[T]) *meter[T] {
	if config.Name == "" {
		return nil
	}
	m := new(meter[T])
	m.shadow = workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[*entry[T]]{
		Name: config.Name, MetricsProvider: config.MetricsProvider, Clock: config.Clock, Queue: m,
	})
	return m
}

// add counts an item that begins to wait, whether queued, parked, or added while in flight.
func (m *meter[T]) add(e *entry[T]) {
	if m != nil {
		m.shadow.Add(e)
	}
}

// get counts the hand-out of an item that was added.
func (m *meter[T]) get(e *entry[T]) {
	if m != nil && m.n > 0 { // it is 0 at most after shutDown; Get would then wait
		m.next = e
		m.shadow.Get()
	}
}

// done counts the end of the work on an item.
func (m *meter[T]) done(e *entry[T]) {
	if m != nil {
		m.shadow.Done(e)
	}
}

// drop counts an item that was added and will not be handed out. client-go has no such
// thing: its metrics show work that took no time.
func (m *meter[T]) drop(e *entry[T]) {
	m.get(e)
	m.done(e)
}

// shutDown stops client-go's goroutine. Call it without the queue's mutex.
func (m *meter[T]) shutDown() {
	if m != nil {
		m.shadow.ShutDown()
	}
}

// The methods of workqueue.Queue, which client-go calls with its own lock held.

func (m *meter[T]) Touch(*entry[T]) {}
func (m *meter[T]) Push(*entry[T])  { m.n++ }
func (m *meter[T]) Len() int        { return m.n }

func (m *meter[T]) Pop() *entry[T] {
	m.n--
	e := m.next
	m.next = nil
	return e
}
