// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"testing"

	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

func TestI1_AddBeforeUpdate(t *testing.T) {
	h := newHarness(t, &owner{})
	v1, v2, v3 := object("a", 1, 0), object("a", 2, 0), object("a", 3, 0)
	h.created(v1)
	h.wants()
	h.set(ring.Active, 0)
	h.updated(v1, v2) // before the replay
	h.wants("add a@2")
	h.updated(v2, v3)
	h.wants("update a@2 a@3")
	h.i.Activated(h.set(ring.Active, 0))
	h.replay()
	h.wants() // the handler knows it already
}

func TestI1_VersionsDoNotGoBack(t *testing.T) {
	h := newHarness(t, &owner{})
	v1, v2, v3, v4 := object("a", 8, 0), object("a", 9, 0), object("a", 10, 0), object("a", 11, 0)
	h.put(v3) // the stream has delivered none of the versions
	h.i.Activated(h.set(ring.Active, 0))
	h.replay()
	h.wants("add a@10")
	h.f.OnAdd(v1, true)
	h.f.OnUpdate(v1, v1) // a resync
	h.f.OnUpdate(v1, v2)
	h.f.OnUpdate(v2, v3)
	h.wants()
	h.updated(v3, v4)
	h.wants("update a@10 a@11")
	h.f.OnUpdate(v4, v4)
	h.wants("update a@11 a@11")
}

func TestI1_VersionsThatCannotBeCompared(t *testing.T) {
	h := newHarness(t, everything())
	v1, v2 := object("a", 1, 0), object("a", 2, 0)
	v1.ResourceVersion, v2.ResourceVersion = "", ""
	h.created(v1)
	h.updated(v1, v2)
	h.deleted(v2)
	h.created(v1)
	h.wants("add a@", "update a@ a@", "delete a@", "add a@")

	// An object may be delivered twice, but nothing may be missed.
	w1, w2 := object("b", 1, 0), object("b", 2, 0)
	w1.ResourceVersion, w2.ResourceVersion = "x", "y"
	h.put(w2)
	h.i.Activated(h.set(ring.Active, 0))
	h.j.take()
	h.replay()
	h.wants("add b@y")
	h.f.OnAdd(w1, false)
	h.f.OnUpdate(w1, w2)
	h.wants() // the stream has now reached what the replay delivered
	h.f.OnUpdate(w2, w1)
	h.wants("update b@y b@x")
}

func TestI1_DeleteOfAnOlderObjectOfThatName(t *testing.T) {
	old, fresh := object("a", 5, 0, "old"), object("a", 8, 0, "new")
	gone := object("a", 7, 0, "old") // the version in which it was deleted

	t.Run("comes first", func(t *testing.T) {
		h := newHarness(t, everything())
		h.created(old)
		h.deleted(gone)
		h.created(fresh)
		h.wants("add a(old)@5", "delete a(old)@7", "add a(new)@8")
	})
	t.Run("was overtaken by a replay", func(t *testing.T) {
		h := newHarness(t, &owner{})
		h.f.OnAdd(old, false)
		h.put(fresh)
		h.i.Activated(h.set(ring.Active, 0))
		h.replay()
		h.wants("add a(new)@8")
		h.f.OnDelete(gone)
		h.wants("delete a(old)@7", "add a(new)@8")
		h.f.OnAdd(fresh, false)
		h.wants()
	})
	t.Run("owned by another member, overtaken by a replay", func(t *testing.T) {
		h := newHarness(t, &owner{})
		other := object("a", 7, 1, "old")
		h.put(fresh)
		h.i.Activated(h.set(ring.Active, 0))
		h.replay()
		h.wants("add a(new)@8")
		h.f.OnDelete(other)
		h.wants()
		h.i.Activated(h.set(ring.Active, 1)) // now this member owns it
		h.replay()
		h.wants("delete unknown a(old)@7", "add a(new)@8")
	})
	t.Run("the same object", func(t *testing.T) { // it did not match the selector for a time
		h := newHarness(t, &owner{})
		h.f.OnAdd(object("a", 5, 0), false)
		h.put(object("a", 8, 0))
		h.i.Activated(h.set(ring.Active, 0))
		h.replay()
		h.f.OnDelete(object("a", 7, 0))
		h.f.OnAdd(object("a", 8, 0), false)
		h.wants("add a@8")
	})
	t.Run("both are gone", func(t *testing.T) {
		h := newHarness(t, &owner{})
		h.put(fresh)
		h.i.Activated(h.set(ring.Active, 0))
		h.replay()
		h.drop(fresh)
		h.f.OnDelete(gone)
		h.f.OnAdd(fresh, false)
		h.f.OnDelete(object("a", 9, 0, "new"))
		h.wants("add a(new)@8", "delete a(old)@7", "add a(new)@8", "delete a(new)@9")
	})
	t.Run("in one update", func(t *testing.T) { // a relist found the new object instead of the old one
		h := newHarness(t, everything())
		h.created(old)
		h.updated(old, fresh)
		h.wants("add a(old)@5", "update a(old)@5 a(new)@8")
	})
	t.Run("in one update, overtaken by a replay", func(t *testing.T) {
		h := newHarness(t, &owner{})
		h.f.OnAdd(old, false)
		h.put(fresh)
		h.i.Activated(h.set(ring.Active, 0))
		h.replay()
		h.f.OnUpdate(old, fresh)
		h.wants("add a(new)@8", "update a(old)@5 a(new)@8")
	})
	t.Run("in one update, not delivered", func(t *testing.T) {
		h := newHarness(t, &owner{})
		h.created(old)
		h.updated(old, fresh)
		h.i.Activated(h.set(ring.Active, 0))
		h.replay()
		h.wants("delete unknown a(old)@5", "add a(new)@8")
	})
}

func TestI2_OnlyActiveObjectsAreDelivered(t *testing.T) {
	for _, state := range []ring.State{ring.NotOwned, ring.Pending} {
		t.Run(state.String(), func(t *testing.T) {
			h := newHarness(t, everything())
			h.set(state, 1)
			mine, other := object("mine", 1, 0), object("other", 2, 1)
			h.created(mine)
			h.created(other)
			mine2, other2 := object("mine", 3, 0), object("other", 4, 1)
			h.updated(mine, mine2)
			h.updated(other, other2)
			h.f.OnUpdate(other2, other2) // a resync
			h.deleted(mine2)
			h.deleted(other2)
			h.wants("add mine@1", "update mine@1 mine@3", "delete mine@3")
			if got, want := h.count.String(), "passed=3 filtered=4 "; got != want {
				t.Errorf("counted %s, want %s", got, want)
			}
		})
	}
}

func TestI2_InitialListIsMarked(t *testing.T) {
	h := newHarness(t, everything())
	h.f.OnAdd(object("a", 1, 0), true)
	h.wants("add a@1 initial")
}

func TestI5_LossIsNotADeletion(t *testing.T) {
	h := newHarness(t, everything())
	a1, a2, b := object("a", 1, 0), object("a", 2, 0), object("b", 3, 1)
	h.created(a1)
	h.created(b)
	h.wants("add a@1", "add b@3")
	h.i.Released(h.set(ring.NotOwned, 0))
	h.replay()
	h.wants("released a@1")
	h.updated(a1, a2)
	h.wants()
	h.i.Activated(h.set(ring.Active, 0))
	h.replay()
	h.wants("add a@2")
	if got, want := h.count.String(), "passed=2 filtered=1 replayed=1 released=1 "; got != want {
		t.Errorf("counted %s, want %s", got, want)
	}
}

// An object that was lost and is owned again before the replay runs is delivered again
// nevertheless, because the queue has dropped its item.
func TestI5_LostAndBack(t *testing.T) {
	h := newHarness(t, everything())
	h.created(object("a", 1, 0))
	h.i.Released(h.set(ring.NotOwned, 0))
	h.i.Activated(h.set(ring.Active, 0))
	h.replay()
	h.wants("add a@1", "released a@1", "add a@1")
}

// An event that is dropped while the partition is pending must not be missed if the partition
// becomes active again without Released.
func TestI5_MissedWhilePending(t *testing.T) {
	h := newHarness(t, everything())
	a1, a2 := object("a", 1, 0), object("a", 2, 0)
	h.created(a1)
	h.created(object("b", 1, 0))
	h.set(ring.Pending, 0)
	h.updated(a1, a2)
	h.wants("add a@1", "add b@1", "update a@1 a@2") // the drain may be called off
	h.updated(object("other", 1, 0), object("other", 2, 0))
	h.wants()
	h.i.Activated(h.set(ring.Active, 0))
	h.replay()
	h.wants("add other@2")
}

func TestI5_DeletionOfAKnownObjectIsDelivered(t *testing.T) {
	h := newHarness(t, everything())
	a := object("a", 1, 0)
	h.created(a)
	set := h.set(ring.NotOwned, 0)
	h.deleted(a) // Released has not been called
	h.i.Released(set)
	h.replay()
	h.wants("add a@1", "delete a@1")
}

func TestI6_Move(t *testing.T) {
	const mine, mine2, other, other2 = 0, 1, 2, 3
	from := func(p int) any { return object("a", 1, p) }
	to := func(p int) any { return object("a", 2, p) }
	for name, test := range map[string]struct {
		from, to int
		unknown  bool // to the handler
		want     []string
	}{
		"away":          {mine, other, false, []string{"update a@1 a@2", "released a@2"}},
		"away, unknown": {mine, other, true, []string{"add a@1", "update a@1 a@2", "released a@2"}},
		"here":          {other, mine, true, []string{"add a@2"}},
		"within":        {mine, mine2, false, []string{"update a@1 a@2"}},
		"elsewhere":     {other, other2, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, everything())
			h.set(ring.NotOwned, other, other2)
			if !test.unknown {
				h.created(from(test.from))
				h.j.take()
			}
			h.updated(from(test.from), to(test.to))
			h.wants(test.want...)
			h.f.OnUpdate(to(test.to), object("a", 3, other))
			if test.to == other || test.to == other2 {
				h.wants() // the handler has forgotten it
			} else {
				h.wants("update a@2 a@3", "released a@3")
			}
		})
	}
}

// The update that moves an object away from an owned key must be delivered even if a replay has
// overtaken it.
func TestI6_MoveOvertaken(t *testing.T) {
	h := newHarness(t, everything())
	h.set(ring.NotOwned, 1)
	v5, v6, v7 := object("a", 5, 0), object("a", 6, 1), object("a", 7, 2)
	h.put(v7)
	h.i.Activated(h.set(ring.Active, 0, 2))
	h.replay()
	h.f.OnAdd(v5, true)
	h.f.OnUpdate(v5, v6)
	h.f.OnUpdate(v6, v7)
	h.wants("add a@7", "update a@5 a@7")
}

func TestI10_Malformed(t *testing.T) {
	h := newHarness(t, everything())
	bad := object("bad", 1, -1)
	h.created(bad)
	h.updated(bad, object("bad", 2, -1))
	h.deleted(object("bad", 3, -1))
	h.i.Activated(h.set(ring.Active, 0))
	h.put(bad)
	h.replay()
	h.f.OnAdd("no object", false)
	h.f.OnUpdate("no object", bad)
	h.f.OnUpdate(bad, "no object")
	h.f.OnDelete("no object")
	h.f.OnDelete(cache.DeletedFinalStateUnknown{Key: "ns/never-seen"})
	h.f.OnDelete(cache.DeletedFinalStateUnknown{Key: "never-seen"})
	h.wants()
	if got, want := h.count.String(), "malformed=9 "; got != want {
		t.Errorf("counted %s, want %s", got, want)
	}

	t.Run("known before", func(t *testing.T) {
		h := newHarness(t, everything())
		good, bad := object("a", 1, 0), object("a", 2, -1)
		h.created(good)
		h.updated(good, bad)
		h.wants("add a@1", "update a@1 a@2", "released a@2")
		again := object("a", 3, 0)
		h.updated(bad, again)
		h.wants("add a@3")
		h.deleted(cache.DeletedFinalStateUnknown{Key: "ns/a"})
		h.wants("delete unknown ns/a")
	})
}
