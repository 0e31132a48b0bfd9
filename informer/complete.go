// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"math"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// complete are the partitions of which a handler knows every object that belongs to them in the state that the
// stream has delivered or dropped last. An update of such an object needs no look at filter.shown, which takes most
// of the time of an event that is delivered. It is guarded by the filter's lock.
//
// A partition becomes complete when it is replayed, because the replay shows what is stored. It remains
// complete while this member owns it, because the stream shows each change then. But:
//
//   - A replay does not show an object that was deleted from the store, or has left the partition there, while the
//     stream may still deliver earlier states of it. So nothing counts as complete until the stream has
//     delivered an event that was stored after the replay.
//   - Between Released and the end of the replay that follows the next Activated, events are dropped. So nothing
//     counts as complete while a change waits. Released is called before State returns ring.Active again: if
//     State has returned ring.Active, and no change waits after that, no event was dropped.
//   - What is dropped for another reason, such as a drain that may be called off, is missed.
type complete struct {
	set ring.Set
	// until is the lowest version of an event that was certainly stored after the last replay; 0 if
	// the stream has delivered one.
	until uint64
}

// add makes the partitions complete. Their replay follows, and then replayed.
func (c *complete) add(set ring.Set) {
	if c.set.Partitions() != set.Partitions() {
		c.set = ring.NewSet(set.Partitions())
	}
	c.set.AddAll(set)
}

func (c *complete) removeAll(set ring.Set) {
	if c.set.Partitions() != set.Partitions() {
		c.set = ring.Set{}
	}
	c.set.RemoveAll(set)
}

// replayed notes that a replay has ended, and which version the inner informer has recorded. It records the version of
// each event and each list after it has passed it on to be stored. So an event with a higher version was stored
// after the replay, except for those of the last event or list, which may not be recorded yet. These do no harm:
//
//   - When the stream delivers that last event, it has delivered everything that was stored before it.
//   - When it delivers a part of that list, it has delivered everything that was stored before the list. The list
//     has one event for each object. For an object that the replay has not found in the partition, this is its
//     deletion or its move to another partition, and no update within the partition.
func (c *complete) replayed(recorded string) {
	c.until = math.MaxUint64 // without versions that are numbers, until the next replay
	if n, ok := number(recorded); ok {
		c.until = n + 1
	}
}

// streamed notes that the stream has delivered a state of an object. The object must still be stored in that state: after
// the API server was restored, the recorded version is lower than those of events that are still to be delivered.
func (c *complete) streamed(m metav1.Object, i *Informer) {
	if c.until == 0 {
		return
	}
	n, ok := number(m.GetResourceVersion())
	if !ok || n < c.until {
		return
	}
	if now, err := meta.Accessor(i.stored(i.keyOf(m))); err == nil && versionOf(now).is(versionOf(m)) {
		c.until = 0
	}
}

// missed notes that the stream has delivered or dropped a state of an object that the handler may not know.
func (f *filter) missed(s *located) {
	if f.state(s) == ring.NotOwned {
		return // Released follows, and a replay before the partition is active again
	}
	if set := f.complete.set; set.HasPoint(s.point) {
		set.Remove(ring.PartitionOf(s.point, set.Partitions()))
	}
	f.outdated = f.informer.scans.Load() // a replay that makes the partition complete again must find the object
}

// knows reports, without a look at shown, that the handler knows the object of an update. It returns
// false if that is not certain. The look at State must come before the one at the changes.
func (f *filter) knows(s *located, old metav1.Object) bool {
	if s.err != nil || f.complete.until > 0 || len(f.ahead) > 0 || f.state(s) != ring.Active || !f.complete.set.HasPoint(s.point) || !f.changes.empty() {
		return false
	}
	if f.informer.fixed {
		return true
	}
	point, err := f.informer.pointOf(old)
	return err == nil && point == s.point
}
