// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeebo/xxh3"
	"go.uber.org/goleak"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// partitions of the ring that the tests' owner knows.
const partitions = 16

// owner is an Ownership that tests can change.
type owner struct {
	states [partitions]atomic.Uint32
	fenced atomic.Bool
}

// newOwner returns an owner for which all partitions are in the state.
func newOwner(s ring.State) *owner {
	o := new(owner)
	o.setAll(s)
	return o
}

func (o *owner) set(partition int, s ring.State) { o.states[partition].Store(uint32(s)) }

func (o *owner) setAll(s ring.State) {
	for p := range o.states {
		o.set(p, s)
	}
}

func (o *owner) State(point uint64) ring.State {
	return ring.State(o.states[ring.PartitionOf(point, partitions)].Load())
}

func (o *owner) Fenced() bool { return o.fenced.Load() }

// clockedOwner reads the clock for its fence, as a real one does.
type clockedOwner struct {
	*owner
	deadline time.Time
}

func (o clockedOwner) Fenced() bool { return !time.Now().Before(o.deadline) }

func (o clockedOwner) FencedAt() (time.Time, bool) {
	now := time.Now()
	return now, !now.Before(o.deadline)
}

// funcOwner is an Ownership made of functions.
type funcOwner struct {
	state  func(point uint64) ring.State
	fenced func() bool
}

func (o funcOwner) State(point uint64) ring.State { return o.state(point) }
func (o funcOwner) Fenced() bool                  { return o.fenced() }

func pointOfString(item string) (uint64, error) { return xxh3.HashString(item), nil }

func pointOfName(item cache.ObjectName) (uint64, error) {
	return ring.PointOfName(item.Namespace, item.Name), nil
}

// pointOfInt places item i in partition i, modulo their number.
func pointOfInt(item int) (uint64, error) {
	if item < 0 {
		return 0, errMalformed
	}
	first, _ := ring.RangeOf(item%partitions, partitions)
	return first + uint64(item), nil
}

func inPartition(partition int) func(point uint64) bool {
	return func(point uint64) bool { return ring.PartitionOf(point, partitions) == partition }
}

var errMalformed = errors.New("no key")

// counts is a Recorder.
type counts struct {
	passed, parked, readmitted, dropped, refused, malformed atomic.Int64
}

func (c *counts) Passed()              { c.passed.Add(1) }
func (c *counts) Parked()              { c.parked.Add(1) }
func (c *counts) Readmitted()          { c.readmitted.Add(1) }
func (c *counts) Dropped()             { c.dropped.Add(1) }
func (c *counts) Refused()             { c.refused.Add(1) }
func (c *counts) Malformed(any, error) { c.malformed.Add(1) }

// tally is the values of counts.
type tally struct{ Passed, Parked, Readmitted, Dropped, Refused, Malformed int64 }

func (c *counts) tally() tally {
	return tally{c.passed.Load(), c.parked.Load(), c.readmitted.Load(), c.dropped.Load(), c.refused.Load(), c.malformed.Load()}
}

// newQueue returns a queue of ints, which the test shuts down, and what it counts.
func newQueue(t *testing.T, o Ownership) (*Queue[int], *counts) {
	t.Helper()
	c := new(counts)
	q := New(workqueue.NewTypedItemExponentialFailureRateLimiter[int](time.Millisecond, time.Second), Options[int]{
		Ownership: o, Point: pointOfInt, Recorder: c,
	})
	t.Cleanup(q.ShutDown)
	return q, c
}

// get returns the next item of a queue that must have one.
func get(t *testing.T, q *Queue[int]) int {
	t.Helper()
	if q.Len() == 0 {
		t.Fatal("nothing is queued")
	}
	item, shutdown := q.Get()
	if shutdown {
		t.Fatal("the queue was shut down")
	}
	return item
}

// sift makes a worker meet all queued items, of which none may be handed out.
func sift(t *testing.T, q *Queue[int], next int) {
	t.Helper()
	q.Add(next) // an item that may, behind those that may not
	if item := get(t, q); item != next {
		t.Fatalf("Get returned %d, on which no work is allowed", item)
	}
	q.Done(next)
}
