// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Ownership determines what this member may work on. All methods are called from many
// goroutines, with a lock of the queue held: they must not block and must not call the
// queue.
type Ownership interface {
	// State returns what this member may do with a point of the hash space, apart from the
	// fence. It is called once for each Add, Get and Done, and by Readmit for each item.
	State(point uint64) ring.State
	// Fenced reports whether this member must not act at this moment. It reads the clock,
	// so that a process that was paused wakes up fenced. It is called for each Get and Done.
	Fenced() bool
}

// TimedOwnership is an optional interface of an [Ownership] that saves reading the clock.
type TimedOwnership interface {
	// FencedAt returns what Fenced returns, and the time for which it holds, as from
	// time.Now. Get calls it instead of Fenced: Fenced has to read the clock, and the queue
	// has to know when an item was handed out.
	FencedAt() (now time.Time, fenced bool)
	// Stopped reports whether workers may have learned that the member is fenced, other than
	// from [Check]. It does not read the clock. Done calls it instead of Fenced.
	Stopped() bool
}

// Recorder counts items by their outcome. Its methods are called from many goroutines, with
// no lock of the queue held. They must not block.
type Recorder interface {
	// Passed: Get handed the item out.
	Passed()
	// Parked: the item waits until its partition is active. It is not counted again while
	// it is parked.
	Parked()
	// Readmitted: the item was parked and is now queued.
	Readmitted()
	// Dropped: this member does not own the item's partition; or the item was parked, was to
	// be parked, or was queued on a fenced member, when the queue was shut down. The rate
	// limiter has forgotten it.
	Dropped()
	// Refused: Get found the member fenced although an item was queued, and waits.
	Refused()
	// Malformed: Get handed out an item for which Options.Point returned the error, or the
	// rate limiter panicked for the item. The error of a panic is an [ErrPanic].
	Malformed(item any, err error)
}

// Options of a [Queue]. Ownership and Point are required.
type Options[T comparable] struct {
	// Ownership determines what this member may work on.
	Ownership Ownership
	// Point returns the point of the hash space of the object that the item stands for. It
	// must always return the same point for the same item, and must not block. It is called
	// once for each Add, so it should not allocate either. A panic counts as an error. For
	// items for which it returns an error, see the package comment, Q8.
	Point func(item T) (uint64, error)
	// Config is client-go's. If it has a DelayingQueue, that serves AddAfter instead of
	// client-go's delaying layer; its items are moved here as soon as its Get returns them.
	Config workqueue.TypedRateLimitingQueueConfig[T]
	// Recorder counts the outcomes. Nil means none.
	Recorder Recorder
	// OnForeignAdd is called with each item that a call of Add has dropped because this
	// member does not own its partition, on the goroutine that has called Add, with no lock
	// held. It is not called for timers, and not for items that Get or Readmit drops. Nil
	// means none.
	OnForeignAdd func(item T)
}
