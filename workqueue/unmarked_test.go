// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"testing"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// A worker calls Owns, which returns the new state before Drain has marked the work, and stops.
// Then the drain is cancelled.
func TestQ11_WorkThatStopsBeforeDrainMarksIt(t *testing.T) {
	for name, test := range map[string]struct{ publish, mark, takeBack func(*Queue[int], *owner) }{
		"drain": {
			func(_ *Queue[int], o *owner) { o.set(1, ring.Pending) },
			func(q *Queue[int], _ *owner) { q.Drain(inPartition(1)) },
			func(_ *Queue[int], o *owner) { o.set(1, ring.Active) },
		},
		"fence": {
			func(_ *Queue[int], o *owner) { o.fenced.Store(true) },
			func(q *Queue[int], o *owner) { q.FenceIf(o.Fenced) },
			func(_ *Queue[int], o *owner) { o.fenced.Store(false) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOwner(ring.Active)
			q, _ := newQueue(t, o)
			q.Add(1)
			get(t, q)
			test.publish(q, o)
			q.Forget(1) // the worker has seen that this member does not own the item, and stops
			q.Done(1)
			test.mark(q, o)
			test.takeBack(q, o)
			q.Readmit()
			if q.Len() != 1 {
				t.Errorf("%d queued: the item is lost", q.Len())
			}
		})
	}
}
