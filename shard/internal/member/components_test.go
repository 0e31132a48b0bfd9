// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"testing"

	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
	sharded "github.com/tom-ludwig/operator-scaling/workqueue"
)

type everything struct{}

func (everything) State(uint64) ring.State { return ring.Active }
func (everything) Fenced() bool            { return false }

// Controllers come and go: queues that were shut down are forgotten when their work has ended,
// and not before.
func TestQueuesThatWereShutDownAreForgotten(t *testing.T) {
	c := newComponents()
	add := func() *sharded.Queue[int] {
		q := sharded.New(workqueue.DefaultTypedControllerRateLimiter[int](), sharded.Options[int]{
			Ownership: everything{}, Point: func(int) (uint64, error) { return 0, nil },
		})
		c.AddQueue(q)
		return q
	}
	stays := add()
	if n := len(c.takeNewQueues()); n != 1 {
		t.Errorf("%d new queues, want 1", n)
	}
	busy := add()
	busy.Add(1)
	busy.Get()
	busy.ShutDown()
	for range 200 {
		add().ShutDown()
	}
	if n := len(c.allQueues()); n != 3 {
		t.Errorf("%d queues are kept, want the open one, the busy one, and the last", n)
	}
	before := c.allQueues()
	busy.Done(1)
	c.readmit()
	if queues := c.allQueues(); len(queues) != 1 || queues[0] != Queue(stays) {
		t.Errorf("%d queues are kept at the end, want the open one", len(queues))
	}
	if before[0] != Queue(stays) || before[1] != Queue(busy) {
		t.Error("a list of queues that was returned before has changed")
	}
	if n := len(c.takeNewQueues()); n != 0 {
		t.Errorf("%d new queues are kept", n)
	}
	stays.ShutDown()
}
