// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Closed promises that the queue hands out nothing any more. A gained item that waits when the queue
// is shut down is still handed out, so the queue is not closed.
func TestClosed_NotWhileGainedItemsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newGainedTestQueue(newOwner(ring.Active))
		q.AddGained(1)
		q.ShutDown()
		closed := q.Closed()
		item, shutdown := q.Get()
		if closed && !shutdown {
			t.Errorf("a closed queue has handed out item %d, which no drain and no fence will see", item)
		}
	})
}

// What holds for abandoned queued items must hold for abandoned gained ones: they are dropped.
func TestClosed_DropsAbandonedGainedItems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newGainedTestQueue(newOwner(ring.Active))
		q.AddGained(1)
		q.ShutDown()
		q.Closed()
		time.Sleep(abandonedAfter + time.Millisecond)
		if !q.Closed() || q.Len() != 0 {
			t.Errorf("closed %t with %d items", q.Closed(), q.Len())
		}
	})
}

// Gained items do not delay the others, also when they were parked once, because their partition was
// to be handed over and then stayed after all.
func TestQ12_GainedItemsThatWereParkedMakeWay(t *testing.T) {
	o := newOwner(ring.Active)
	q := newGainedTestQueue(o)
	defer q.ShutDown()
	for i := range 20 {
		q.AddGained(i)
	}
	o.setAll(ring.Pending)
	q.Drain(func(uint64) bool { return true })
	o.setAll(ring.Active)
	q.Readmit()
	q.Add(100)
	if item, _ := q.Get(); item != 100 {
		t.Errorf("a live item waits behind gained item %d, and %d others", item, q.Len()-1)
	}
}

// The same for items that come before the partition is active.
func TestQ12_GainedItemsThatComeEarlyMakeWay(t *testing.T) {
	o := newOwner(ring.Pending)
	q := newGainedTestQueue(o)
	defer q.ShutDown()
	for i := range 20 {
		q.AddGained(i)
	}
	o.setAll(ring.Active)
	q.Readmit()
	q.Add(100)
	if item, _ := q.Get(); item != 100 {
		t.Errorf("a live item waits behind gained item %d, and %d others", item, q.Len()-1)
	}
}
