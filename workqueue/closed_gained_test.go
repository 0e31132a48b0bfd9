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
