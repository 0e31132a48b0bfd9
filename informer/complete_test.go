// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// newComplete returns a harness of which the first two partitions are complete. The versions up to 10 are used.
func newComplete(t *testing.T) *harness {
	h := newHarness(t, &owner{})
	h.i.Activated(h.set(ring.Active, 0, 1))
	h.inner.recorded = "9"
	h.replay()
	h.created(object("another", 10, 0))
	h.wants("add another@10")
	return h
}

// skipsTheLook reports whether an update of an object needs no look at what the handler knows. It
// makes the handler forget the object.
func (h *harness) skipsTheLook(o *corev1.ConfigMap) bool {
	h.t.Helper()
	delete(h.f.shown, h.i.identifyKey("ns/"+o.Name))
	h.f.OnUpdate(o, o)
	seen := fmt.Sprint(h.j.take())
	if add, update := fmt.Sprintf("[add %s]", label(o)), fmt.Sprintf("[update %[1]s %[1]s]", label(o)); seen != add && seen != update {
		h.t.Errorf("saw %s, want %s or %s", seen, add, update)
	} else {
		return seen == update
	}
	return false
}

// An update in a complete partition needs no look at what the handler knows. Otherwise the other tests
// of this file could not fail.
func TestUpdateInACompletePartition(t *testing.T) {
	a := object("a", 1, 0)
	replayed := func(recorded string) *harness {
		h := newHarness(t, &owner{})
		h.put(a)
		h.i.Activated(h.set(ring.Active, 0))
		h.inner.recorded = recorded
		h.replay()
		h.wants("add a@1")
		return h
	}
	h := replayed("1")
	if h.skipsTheLook(a) {
		t.Error("before the stream has delivered an event from after the replay")
	}
	h.created(object("b", 2, 0))
	h.wants("add b@2")
	if !h.skipsTheLook(a) {
		t.Error("does not skip the look")
	}
	h.i.Activated(h.set(ring.Active, 1))
	if h.skipsTheLook(a) {
		t.Error("before another replay")
	}
	h.replay()
	h.created(object("c", 3, 1))
	if h.wants("add c@3"); !h.skipsTheLook(a) {
		t.Error("does not skip the look after another replay")
	}
	h = replayed("opaque")
	h.created(object("b", 2, 0))
	h.wants("add b@2")
	if h.skipsTheLook(a) {
		t.Error("without versions that are numbers")
	}
	h.i.Activated(h.set(ring.Active, 1, 2))
	late := &harness{t: t, owner: h.owner, i: h.i, j: &releaseJournal{}}
	if _, err := h.i.AddEventHandler(late.j); err != nil {
		t.Fatal(err)
	}
	late.f = h.i.filters[1]
	late.f.OnAdd(a, true)
	late.wants("add a@1 initial")
	if !late.skipsTheLook(a) {
		t.Error("does not skip the look for a handler that was added later")
	}
}

// The first event after each of these is an Add if the handler does not know the object.
func TestI1_NotKnownInACompletePartition(t *testing.T) {
	a, b1, b2, b3 := object("a", 11, 0), object("b", 12, 0), object("b", 13, 0), object("b", 14, 0)
	moved := object("b", 12, 2) // from a key that this member does not own
	t.Run("deleted from the store before the replay", func(t *testing.T) {
		h := newHarness(t, &owner{})
		h.f.OnAdd(b1, false)
		h.i.Activated(h.set(ring.Active, 0))
		h.inner.recorded = "13" // the deletion is not recorded yet
		h.replay()
		h.f.OnUpdate(b1, b2)
		h.f.OnDelete(b3)
		h.wants("add b@13", "delete b@14")
	})
	t.Run("moved away in the store", func(t *testing.T) {
		h := newHarness(t, &owner{})
		b5, b8, b20, b30 := object("b", 5, 0), object("b", 8, 1), object("b", 20, 1), object("b", 30, 2)
		h.f.OnAdd(b5, false)
		h.put(b20) // in a list that is not recorded yet
		h.i.Activated(h.set(ring.Active, 0, 1))
		h.inner.recorded = "9"
		h.replay()
		h.put(b30)
		h.f.OnUpdate(b5, b8)
		h.created(object("c", 15, 0)) // the list begins
		h.f.OnUpdate(b8, b20)
		h.f.OnUpdate(b20, b30)
		h.wants("add b@20", "update b@5 b@30", "released b@30", "add c@15", "add b@20", "update b@20 b@30", "released b@30")
	})
	t.Run("lost before the handler was added", func(t *testing.T) {
		h := newComplete(t)
		h.i.Released(h.set(ring.NotOwned, 0))
		late := h.another()
		late.f.OnAdd(b1, true)
		h.set(ring.Active, 0)
		late.f.OnUpdate(b1, b2)
		late.wants("add b@13")
	})
	t.Run("added during a drain", func(t *testing.T) {
		h := newComplete(t)
		h.set(ring.Pending, 0)
		h.created(b1)
		h.set(ring.Active, 0)
		h.updated(b1, b2)
		h.wants("add b@13")
	})
	t.Run("moved from another member's key", func(t *testing.T) {
		h := newComplete(t)
		h.created(moved)
		h.updated(moved, b2)
		h.wants("add b@13")
	})
	t.Run("moved during a drain", func(t *testing.T) {
		h := newComplete(t)
		h.set(ring.Pending, 0)
		h.created(moved)
		h.updated(moved, b2)
		h.set(ring.Active, 0)
		h.updated(b2, b3)
		h.wants("add b@14")
	})
	t.Run("moved to a key that is drained", func(t *testing.T) {
		h := newComplete(t)
		other := object("b", 12, 1)
		h.created(other)
		h.set(ring.Pending, 0)
		h.updated(other, b2)
		h.set(ring.Active, 0)
		h.updated(b2, b3)
		h.wants("add b@12", "update b@12 b@13", "released b@13", "add b@14")
	})
	t.Run("moved from a key that was lost", func(t *testing.T) {
		h := newComplete(t)
		other := object("b", 12, 1)
		h.created(other)
		h.set(ring.Pending, 0)
		lost := h.set(ring.NotOwned, 1)
		h.updated(other, b2)
		h.set(ring.Active, 0)
		h.i.Released(lost)
		h.replay()
		h.updated(b2, b3)
		h.wants("add b@12", "released b@13", "add b@14")
	})
	t.Run("dropped while it was another member's", func(t *testing.T) {
		h := newComplete(t)
		lost := h.set(ring.NotOwned, 0)
		h.created(b1)
		h.i.Released(lost)
		h.set(ring.Active, 0)
		h.updated(b1, b2)
		h.wants("add b@13")
		h.replay()
		if diff := cmp.Diff([]string{"released another@10", "released b@13"}, sorted(h.j.take())); diff != "" { // in any order
			t.Errorf("the handler saw (-want +got):\n%s", diff)
		}
		h.updated(b2, b3)
		h.wants("add b@14")
	})
	t.Run("not active when the replay came to it", func(t *testing.T) {
		h := newComplete(t)
		h.put(object("b", 8, 2))
		h.f.OnAdd(object("b", 8, 2), false)
		h.i.Activated(h.set(ring.Active, 2))
		c, _ := h.f.changes.first()
		n := 0
		h.f.apply(whenAsked{t.Context(), func() {
			if n++; n == 2 { // before the object
				h.set(ring.Pending, 2)
			}
		}}, c)
		h.f.done(c)
		h.created(a)
		h.set(ring.Active, 2)
		h.updated(object("b", 8, 2), object("b", 12, 2))
		h.wants("add a@11", "add b@12")
	})
	t.Run("not in a scan from before a drain", func(t *testing.T) {
		h := newComplete(t)
		other := h.another()
		other.inner = h.inner
		h.i.Activated(h.set(ring.Active, 2))
		other.replay() // looks at the store
		h.set(ring.Pending, 2)
		h.created(moved)
		h.set(ring.Active, 2)
		h.replay()
		h.created(a)
		h.wants("add b@12", "add a@11")
	})
	t.Run("a deletion of its name during a drain", func(t *testing.T) {
		h := newComplete(t)
		gone := object("b", 11, 2, "gone")
		h.created(gone)
		h.deleted(gone)
		h.created(b1)
		h.set(ring.Pending, 0)
		h.i.Activated(h.set(ring.Active, 2))
		h.replay()
		h.created(object("c", 20, 2))
		h.set(ring.Active, 0)
		h.updated(b1, b2)
		h.wants("add b@12", "delete unknown b(gone)@11", "add c@20", "add b@13")
	})
	t.Run("the handler has panicked", func(t *testing.T) {
		h := newComplete(t)
		gone := object("b", 11, 2, "gone")
		h.created(gone)
		h.deleted(gone)
		h.set(ring.Active, 2)
		h.j.hook = func(line string) { panic(line) }
		func() {
			defer func() { _ = recover() }() // as client-go, if the program asks for it
			h.created(b1)
		}()
		h.j.hook = nil
		h.updated(b1, b2)
		h.wants("add b@13")
	})
}

// The API server was restored: the recorded version is lower than those of events that the stream has not delivered yet.
func TestI1_VersionsGoBack(t *testing.T) {
	h := newHarness(t, &owner{})
	b998, b999 := object("b", 998, 0), object("b", 999, 0)
	h.f.OnAdd(b998, false) // another member's
	h.i.Activated(h.set(ring.Active, 0))
	h.inner.recorded = "500" // of the list after the restore, which does not have b
	h.replay()
	h.f.OnAdd(object("c", 990, 0), false)
	h.f.OnUpdate(b998, b999)
	h.i.Released(h.set(ring.NotOwned, 0))
	h.replay()
	h.f.OnDelete(cache.DeletedFinalStateUnknown{Key: "ns/b", Obj: b999}) // dropped: not this member's
	got := fmt.Sprint(h.j.take())
	if !strings.Contains(got, "add b@999") || !strings.Contains(got, "released unknown ns/b") {
		t.Errorf("saw %s: no Add of b, or no release", got)
	}
}

// A replay has delivered the version already.
func TestI1_DeliveredInACompletePartition(t *testing.T) {
	h := newHarness(t, &owner{})
	b1, b2 := object("b", 8, 0), object("b", 12, 0)
	h.f.OnAdd(b1, false)
	h.put(b2) // in a list that is not recorded yet
	h.i.Activated(h.set(ring.Active, 0))
	h.inner.recorded = "9"
	h.replay()
	h.f.OnUpdate(b1, b2)
	h.wants("add b@12")
}

// A handler's own filter is called for each version, because OnReleased is called only if it has passed the last one.
func TestI5_FilterInACompletePartition(t *testing.T) {
	h := newComplete(t)
	h.f.passes = func(obj any) bool { return label(obj) != "a@12" }
	a, a2 := object("a", 11, 0), object("a", 12, 0)
	h.created(a)
	h.updated(a, a2)
	h.i.Released(h.set(ring.NotOwned, 0))
	h.replay()
	h.wants("add a@11", "update a@11 a@12", "released another@10")
}

// State is called again in the critical section in which the handler is called.
func TestI2_LostBeforeTheLock(t *testing.T) {
	h := newComplete(t)
	a, a2 := object("a", 11, 0), object("a", 12, 0)
	h.created(a)
	h.wants("add a@11")
	h.i.ownership = losing{h.owner, new(int)}
	h.f.OnUpdate(a, a2)
	h.wants()
}

// losing loses everything after its first call.
type losing struct {
	*owner
	calls *int
}

func (l losing) State(point uint64) ring.State {
	if *l.calls++; *l.calls > 1 {
		return ring.NotOwned
	}
	return l.owner.State(point)
}

// whenAsked is a context that calls a function when it is asked whether it has ended: before each step of a replay.
type whenAsked struct {
	context.Context
	do func()
}

func (w whenAsked) Err() error { w.do(); return w.Context.Err() }
