// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claimsim

import "time"

// timeline is the queue of future events: a heap, ordered by time and then by the order of
// scheduling, so that every run is the same.
type timeline struct {
	heap    []happening
	planned uint64
}

type happening struct {
	at      time.Duration
	planned uint64
	do      func()
}

func (h happening) before(o happening) bool {
	return h.at < o.at || h.at == o.at && h.planned < o.planned
}

// due reports whether an event is due at or before the given time.
func (t *timeline) due(until time.Duration) bool { return len(t.heap) > 0 && t.heap[0].at <= until }

func (t *timeline) push(at time.Duration, do func()) {
	t.planned++
	t.heap = append(t.heap, happening{at, t.planned, do})
	for i := len(t.heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if !t.heap[i].before(t.heap[parent]) {
			return
		}
		t.heap[i], t.heap[parent] = t.heap[parent], t.heap[i]
		i = parent
	}
}

// pop removes and returns the first event. There must be one.
func (t *timeline) pop() happening {
	first := t.heap[0]
	last := len(t.heap) - 1
	t.heap[0] = t.heap[last]
	t.heap[last] = happening{} // so that the function can be garbage-collected
	t.heap = t.heap[:last]
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if t.heap[child].before(t.heap[least]) {
				least = child
			}
		}
		if least == i {
			return first
		}
		t.heap[i], t.heap[least] = t.heap[least], t.heap[i]
		i = least
	}
}
