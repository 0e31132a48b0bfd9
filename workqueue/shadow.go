// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"time"

	"k8s.io/client-go/util/workqueue"
)

// shadow is the meter for client-go's global provider of metrics, which only client-go's own
// code can use. It has a client-go queue, on which no worker waits, and makes the calls on it
// that a queue without parking and dropping would receive for this member's items. It is also
// the storage of that queue, so that it chooses what Get returns. It is slower than metrics,
// and an item that is dropped counts as work that took no time.
type shadow[T comparable] struct {
	queue *workqueue.Typed[*entry[T]]
	n     int       // entries in the storage
	next  *entry[T] // what the next Pop returns
}

func newShadow[T comparable](config workqueue.TypedRateLimitingQueueConfig[T]) *shadow[T] {
	m := new(shadow[T])
	m.queue = workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[*entry[T]]{
		Name: config.Name, Clock: config.Clock, Queue: m,
	})
	return m
}

func (m *shadow[T]) add(e *entry[T])  { m.queue.Add(e) }
func (m *shadow[T]) done(e *entry[T]) { m.queue.Done(e) }

func (m *shadow[T]) get(e *entry[T], _ time.Time) {
	if m.n > 0 { // it is 0 at most after shutDown; Get would then wait
		m.next = e
		m.queue.Get()
	}
}

func (m *shadow[T]) drop(e *entry[T]) {
	m.get(e, time.Time{})
	m.done(e)
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
