// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"context"
	"time"
)

// work is what the queue knows about an item in flight.
type work struct {
	location
	since time.Duration // since the queue's epoch
	task  *task         // nil until Context, Drain or Fence needs it
}

// task is the part of work that few items need. The queue's mutex guards it, except for
// cancels, which only Done uses once the work is no longer in the table.
type task struct {
	cause   error // why the work must end; nil while it may continue
	cancels []context.CancelCauseFunc
	refused bool // Check found the member fenced, so an effect of the work was refused
	done    bool // Done was called
	effects int  // begun with Assignment.Begin and not ended; 0 <= effects
}

// interrupted reports whether the work may have stopped before its end, because of a
// drain or a fence.
func (t *task) interrupted() bool { return t.cause != nil || t.refused }

func (w *work) ensureTask() *task {
	if w.task == nil {
		w.task = new(task)
	}
	return w.task
}

func (t *task) cancelAll(cause error) {
	for _, cancel := range t.cancels {
		cancel(cause)
	}
}

// fewItems is the number of items up to which a linear search is faster than a map. More are
// rare: a queue has no more items in flight than it has workers.
const fewItems = 8

// table holds the work in flight. The zero table is empty. It keeps the first few items in a
// plain array: for each hand-out, a map would cost as much as the rest of the filter.
type table[T comparable] struct {
	few  [fewItems]slot[T]
	n    int         // few[:n] is in use, in no particular order
	many map[T]*work // the items that were added while few was full
}

type slot[T comparable] struct {
	item T
	work work
}

// put adds an item that is not in the table.
func (t *table[T]) put(item T, at location, since time.Duration) {
	if t.n < fewItems {
		s := &t.few[t.n]
		s.item, s.work.location, s.work.since = item, at, since
		t.n++
		return
	}
	if t.many == nil {
		t.many = make(map[T]*work)
	}
	t.many[item] = &work{location: at, since: since}
}

// take removes an item and returns its work. ok is false if the item is not in the table.
func (t *table[T]) take(item T) (w work, ok bool) {
	for i := range t.few[:t.n] {
		if s := &t.few[i]; s.item == item {
			w = s.work
			t.n--
			last := &t.few[t.n]
			if s != last {
				*s = *last
			}
			*last = slot[T]{} // lets the garbage collector free the item
			return w, true
		}
	}
	if w := t.many[item]; w != nil {
		delete(t.many, item)
		return *w, true
	}
	return w, false
}

// find returns the item's work, or nil if the item is not in the table. The pointer is valid
// until the next put or take.
func (t *table[T]) find(item T) *work {
	for i := range t.few[:t.n] {
		if s := &t.few[i]; s.item == item {
			return &s.work
		}
	}
	return t.many[item]
}

// each calls f for all items, in no particular order.
func (t *table[T]) each(f func(item T, w *work)) {
	for i := range t.few[:t.n] {
		f(t.few[i].item, &t.few[i].work)
	}
	for item, w := range t.many {
		f(item, w)
	}
}
