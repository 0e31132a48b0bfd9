// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import "time"

// place is where an item is. Each item that the queue knows is in exactly one place, and in
// the list of that place.
type place uint8

const (
	queued     place = iota // Get may hand it out
	gained                  // Get may hand it out; it was added by AddGained, and makes way for others
	parked                  // waits until its partition is active
	inFlight                // Get has handed it out, and Done was not called yet
	remembered              // only the rate limiter knows it: it failed, and waits for its timer
	places
)

// entry is all that the queue knows of one item.
type entry[T comparable] struct {
	item       T
	point      uint64 // of the hash space; 0 if unkeyed
	prev, next *entry[T]
	task       *task         // in flight: nil until Context, Drain or Fence needs it
	since      time.Duration // in flight: when it was handed out, since the queue's epoch
	added      time.Time     // for metrics: when it was added
	started    time.Time     // for metrics, in flight: when it was handed out
	id         uint64        // for the shadow: no other entry had it; 0 until the first add
	place      place
	unkeyed    bool // Point returned an error: the item belongs to no partition
	again      bool // in flight: the item was added meanwhile
	failed     bool // the rate limiter remembers failures of the item
	byGain     bool // it waits, and was added by AddGained only
}

func (e *entry[T]) ensureTask() *task {
	if e.task == nil {
		e.task = new(task)
	}
	return e.task
}

// list holds the entries of one place, in the order in which they came there.
type list[T comparable] struct {
	first, last *entry[T]
	n           int
}

func (l *list[T]) push(e *entry[T]) {
	e.prev, e.next = l.last, nil
	if l.last == nil {
		l.first = e
	} else {
		l.last.next = e
	}
	l.last = e
	l.n++
}

func (l *list[T]) unlink(e *entry[T]) {
	if e.prev == nil {
		l.first = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		l.last = e.prev
	} else {
		e.next.prev = e.prev
	}
	l.n--
}

// table holds all entries: each is in the map and in the list of its place. The zero table
// is empty.
type table[T comparable] struct {
	entries map[T]*entry[T]
	lists   [places]list[T]
	peak    int       // the largest size since the map was made
	free    *entry[T] // entries to use again, linked by next, so that a small queue does not allocate
	nFree   int
}

const (
	mostFree = 64   // entries to keep for later
	fewItems = 1024 // a smaller map is never replaced
)

// put adds an item that is not in the table.
func (t *table[T]) put(item T, point uint64, unkeyed bool, to place) *entry[T] {
	e := t.free
	if e == nil {
		e = new(entry[T])
	} else {
		t.free = e.next
		t.nFree--
	}
	e.item, e.point, e.unkeyed, e.place = item, point, unkeyed, to
	if t.entries == nil {
		t.entries = make(map[T]*entry[T])
	}
	t.entries[item] = e
	t.peak = max(t.peak, len(t.entries))
	t.lists[to].push(e)
	return e
}

// move moves an entry to the end of a list.
func (t *table[T]) move(e *entry[T], to place) {
	t.lists[e.place].unlink(e)
	e.place = to
	t.lists[to].push(e)
}

// remove removes an entry, after which it must not be used any more.
func (t *table[T]) remove(e *entry[T]) {
	t.lists[e.place].unlink(e)
	delete(t.entries, e.item)
	*e = entry[T]{} // lets the garbage collector free the item
	if t.nFree < mostFree {
		e.next = t.free
		t.free = e
		t.nFree++
	}
	if t.peak > fewItems && len(t.entries) < t.peak/8 {
		// A map does not shrink, so copy what remains after a burst.
		entries := make(map[T]*entry[T], len(t.entries))
		for item, e := range t.entries {
			entries[item] = e
		}
		t.entries, t.peak = entries, len(entries)
	}
}

// each calls f for the entries of a place, in their order. The function may move the entry
// or remove it.
func (t *table[T]) each(in place, f func(*entry[T])) {
	for e := t.lists[in].first; e != nil; {
		next := e.next
		f(e)
		e = next
	}
}
