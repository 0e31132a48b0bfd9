// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeebo/xxh3"
	"go.uber.org/goleak"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

func TestMain(m *testing.M) {
	if os.Getenv(withoutProvider) == "" {
		workqueue.SetProvider(globalProvider)
	}
	goleak.VerifyTestMain(m)
}

// withoutProvider is the environment variable for a process without a global provider of metrics.
const withoutProvider = "WORKQUEUE_TEST_WITHOUT_PROVIDER"

// globalProvider is client-go's global provider of metrics. It can be set only once, so tests
// replace what it calls.
var globalProvider = &struct{ workqueue.MetricsProvider }{provider{}}

// partitions is the number of partitions of the tests' owner.
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

// clockedOwner reads the clock for its fence, as a real Ownership does.
type clockedOwner struct {
	*owner
	deadline time.Time
}

func (o clockedOwner) Fenced() bool { return !time.Now().Before(o.deadline) }

func (o clockedOwner) FencedAt() (time.Time, bool) {
	now := time.Now()
	return now, !now.Before(o.deadline)
}

// Stopped implements TimedOwnership.
func (o clockedOwner) Stopped() bool { return o.fenced.Load() }

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

// pointOfInt returns a point in partition i for item i, modulo the number of partitions.
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

// countingRecorder is a Recorder.
type countingRecorder struct {
	passed, parked, readmitted, dropped, refused, malformed atomic.Int64
}

func (c *countingRecorder) Passed()              { c.passed.Add(1) }
func (c *countingRecorder) Parked()              { c.parked.Add(1) }
func (c *countingRecorder) Readmitted()          { c.readmitted.Add(1) }
func (c *countingRecorder) Dropped()             { c.dropped.Add(1) }
func (c *countingRecorder) Refused()             { c.refused.Add(1) }
func (c *countingRecorder) Malformed(any, error) { c.malformed.Add(1) }

// counts holds the values of a countingRecorder.
type counts struct{ Passed, Parked, Readmitted, Dropped, Refused, Malformed int64 }

func (c *countingRecorder) counts() counts {
	return counts{c.passed.Load(), c.parked.Load(), c.readmitted.Load(), c.dropped.Load(), c.refused.Load(), c.malformed.Load()}
}

// newQueue returns a queue of ints and its recorder. The queue is shut down when the test ends.
func newQueue(t *testing.T, o Ownership) (*Queue[int], *countingRecorder) {
	t.Helper()
	c := new(countingRecorder)
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

// rejectAll makes Get check all queued items, none of which may be handed out.
func rejectAll(t *testing.T, q *Queue[int], next int) {
	t.Helper()
	q.Add(next) // this item may be handed out; it is queued behind the others
	if item := get(t, q); item != next {
		t.Fatalf("Get returned %d, on which no work is allowed", item)
	}
	q.Done(next)
}

// endWork drains a partition, and cancels the work on it at once.
func endWork(q *Queue[int], partition int) {
	q.Drain(inPartition(partition))
	q.Cancel(inPartition(partition))
}
