// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"testing"

	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

func TestI1_AddBeforeUpdate(t *testing.T) {
	r := newRig(t, &owner{})
	v1, v2, v3 := object("a", 1, 0), object("a", 2, 0), object("a", 3, 0)
	r.created(v1)
	r.wants()
	r.set(ring.Active, 0)
	r.updated(v1, v2) // before the replay
	r.wants("add a@2")
	r.updated(v2, v3)
	r.wants("update a@2 a@3")
	r.i.Activated(r.set(ring.Active, 0))
	r.replay()
	r.wants() // it knows
}

func TestI1_VersionsDoNotGoBack(t *testing.T) {
	r := newRig(t, &owner{})
	v1, v2, v3, v4 := object("a", 8, 0), object("a", 9, 0), object("a", 10, 0), object("a", 11, 0)
	r.put(v3) // the stream has not brought any of it
	r.i.Activated(r.set(ring.Active, 0))
	r.replay()
	r.wants("add a@10")
	r.f.OnAdd(v1, true)
	r.f.OnUpdate(v1, v1) // a resync
	r.f.OnUpdate(v1, v2)
	r.f.OnUpdate(v2, v3)
	r.wants()
	r.updated(v3, v4)
	r.wants("update a@10 a@11")
	r.f.OnUpdate(v4, v4)
	r.wants("update a@11 a@11")
}

func TestI1_VersionsThatCanNotBeCompared(t *testing.T) {
	r := newRig(t, everything())
	v1, v2 := object("a", 1, 0), object("a", 2, 0)
	v1.ResourceVersion, v2.ResourceVersion = "", ""
	r.created(v1)
	r.updated(v1, v2)
	r.deleted(v2)
	r.created(v1)
	r.wants("add a@", "update a@ a@", "delete a@", "add a@")

	// Something may be shown twice, nothing may be missed.
	w1, w2 := object("b", 1, 0), object("b", 2, 0)
	w1.ResourceVersion, w2.ResourceVersion = "x", "y"
	r.put(w2)
	r.i.Activated(r.set(ring.Active, 0))
	r.j.take()
	r.replay()
	r.wants("add b@y")
	r.f.OnAdd(w1, false)
	r.f.OnUpdate(w1, w2)
	r.wants("update b@y b@x", "update b@x b@y")
}

func TestI1_DeleteOfAnOlderObjectOfThatName(t *testing.T) {
	old, fresh := object("a", 5, 0, "old"), object("a", 8, 0, "new")
	gone := object("a", 7, 0, "old") // the version in which it was deleted

	t.Run("comes first", func(t *testing.T) {
		r := newRig(t, everything())
		r.created(old)
		r.deleted(gone)
		r.created(fresh)
		r.wants("add a(old)@5", "delete a(old)@7", "add a(new)@8")
	})
	t.Run("was overtaken by a replay", func(t *testing.T) {
		r := newRig(t, &owner{})
		r.f.OnAdd(old, false)
		r.put(fresh)
		r.i.Activated(r.set(ring.Active, 0))
		r.replay()
		r.wants("add a(new)@8")
		r.f.OnDelete(gone)
		r.wants("delete a(old)@7", "add a(new)@8")
		r.f.OnAdd(fresh, false)
		r.wants()
	})
	t.Run("that is another owner's, overtaken by a replay", func(t *testing.T) {
		r := newRig(t, &owner{})
		foreign := object("a", 7, 1, "old")
		r.put(fresh)
		r.i.Activated(r.set(ring.Active, 0))
		r.replay()
		r.wants("add a(new)@8")
		r.f.OnDelete(foreign)
		r.wants()
		r.i.Activated(r.set(ring.Active, 1)) // now it is this member's
		r.replay()
		r.wants("delete a(old)@7", "add a(new)@8")
	})
	t.Run("that is the same object", func(t *testing.T) { // it left a selection and came back
		r := newRig(t, &owner{})
		r.f.OnAdd(object("a", 5, 0), false)
		r.put(object("a", 8, 0))
		r.i.Activated(r.set(ring.Active, 0))
		r.replay()
		r.f.OnDelete(object("a", 7, 0))
		r.f.OnAdd(object("a", 8, 0), false)
		r.wants("add a@8")
	})
	t.Run("that went together with the new one", func(t *testing.T) {
		r := newRig(t, &owner{})
		r.put(fresh)
		r.i.Activated(r.set(ring.Active, 0))
		r.replay()
		r.drop(fresh)
		r.f.OnDelete(gone)
		r.f.OnAdd(fresh, false)
		r.f.OnDelete(object("a", 9, 0, "new"))
		r.wants("add a(new)@8", "delete a(old)@7", "add a(new)@8", "delete a(new)@9")
	})
	t.Run("in one update", func(t *testing.T) { // a relist found the new one in its place
		r := newRig(t, everything())
		r.created(old)
		r.updated(old, fresh)
		r.wants("add a(old)@5", "update a(old)@5 a(new)@8")
	})
	t.Run("in one update, overtaken by a replay", func(t *testing.T) {
		r := newRig(t, &owner{})
		r.f.OnAdd(old, false)
		r.put(fresh)
		r.i.Activated(r.set(ring.Active, 0))
		r.replay()
		r.f.OnUpdate(old, fresh)
		r.wants("add a(new)@8", "update a(old)@5 a(new)@8")
	})
	t.Run("in one update, unseen", func(t *testing.T) {
		r := newRig(t, &owner{})
		r.created(old)
		r.updated(old, fresh)
		r.i.Activated(r.set(ring.Active, 0))
		r.replay()
		r.wants("delete unknown a(old)@5", "add a(new)@8")
	})
}

func TestI2_OnlyWhatIsActive(t *testing.T) {
	for _, state := range []ring.State{ring.NotOwned, ring.Pending} {
		t.Run(state.String(), func(t *testing.T) {
			r := newRig(t, everything())
			r.set(state, 1)
			mine, other := object("mine", 1, 0), object("other", 2, 1)
			r.created(mine)
			r.created(other)
			mine2, other2 := object("mine", 3, 0), object("other", 4, 1)
			r.updated(mine, mine2)
			r.updated(other, other2)
			r.f.OnUpdate(other2, other2) // a resync
			r.deleted(mine2)
			r.deleted(other2)
			r.wants("add mine@1", "update mine@1 mine@3", "delete mine@3")
			if got, want := r.count.String(), "passed=3 filtered=4 "; got != want {
				t.Errorf("counted %s, want %s", got, want)
			}
		})
	}
}

func TestI2_InitialListIsMarked(t *testing.T) {
	r := newRig(t, everything())
	r.f.OnAdd(object("a", 1, 0), true)
	r.wants("add a@1 initial")
}

func TestI5_LossIsNoDeletion(t *testing.T) {
	r := newRig(t, everything())
	a1, a2, b := object("a", 1, 0), object("a", 2, 0), object("b", 3, 1)
	r.created(a1)
	r.created(b)
	r.wants("add a@1", "add b@3")
	r.i.Released(r.set(ring.NotOwned, 0))
	r.replay()
	r.wants("released a@1")
	r.updated(a1, a2)
	r.wants()
	r.i.Activated(r.set(ring.Active, 0))
	r.replay()
	r.wants("add a@2")
	if got, want := r.count.String(), "passed=2 filtered=1 replayed=1 released=1 "; got != want {
		t.Errorf("counted %s, want %s", got, want)
	}
}

// What was lost and is back before the replay looked is shown again all the same:
// the queue has dropped what was to be done.
func TestI5_LostAndBack(t *testing.T) {
	r := newRig(t, everything())
	r.created(object("a", 1, 0))
	r.i.Released(r.set(ring.NotOwned, 0))
	r.i.Activated(r.set(ring.Active, 0))
	r.replay()
	r.wants("add a@1", "released a@1", "add a@1")
}

// An event that is dropped between the loss and Released must not be missing when
// the partition is back without Released.
func TestI5_MissedWhilePending(t *testing.T) {
	r := newRig(t, everything())
	a1, a2 := object("a", 1, 0), object("a", 2, 0)
	r.created(a1)
	r.created(object("b", 1, 0))
	r.set(ring.Pending, 0)
	r.updated(a1, a2)
	r.wants("add a@1", "add b@1", "released a@1")
	r.i.Activated(r.set(ring.Active, 0))
	r.replay()
	r.wants("add a@2")
}

func TestI5_DeletionOfAKnownObjectIsShown(t *testing.T) {
	r := newRig(t, everything())
	a := object("a", 1, 0)
	r.created(a)
	set := r.set(ring.NotOwned, 0)
	r.deleted(a) // Released has not been called
	r.i.Released(set)
	r.replay()
	r.wants("add a@1", "delete a@1")
}

func TestI6_Move(t *testing.T) {
	const mine, mine2, foreign, foreign2 = 0, 1, 2, 3
	from := func(p int) any { return object("a", 1, p) }
	to := func(p int) any { return object("a", 2, p) }
	for name, test := range map[string]struct {
		from, to int
		unknown  bool // to the handler
		want     []string
	}{
		"away":          {mine, foreign, false, []string{"update a@1 a@2", "released a@2"}},
		"away, unknown": {mine, foreign, true, []string{"add a@1", "update a@1 a@2", "released a@2"}},
		"here":          {foreign, mine, true, []string{"add a@2"}},
		"within":        {mine, mine2, false, []string{"update a@1 a@2"}},
		"elsewhere":     {foreign, foreign2, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, everything())
			r.set(ring.NotOwned, foreign, foreign2)
			if !test.unknown {
				r.created(from(test.from))
				r.j.take()
			}
			r.updated(from(test.from), to(test.to))
			r.wants(test.want...)
			r.f.OnUpdate(to(test.to), object("a", 3, foreign))
			if test.to == foreign || test.to == foreign2 {
				r.wants() // forgotten
			} else {
				r.wants("update a@2 a@3", "released a@3")
			}
		})
	}
}

// The key that was left must hear of it even if a replay has overtaken the move.
func TestI6_MoveOvertaken(t *testing.T) {
	r := newRig(t, everything())
	r.set(ring.NotOwned, 1)
	v5, v6, v7 := object("a", 5, 0), object("a", 6, 1), object("a", 7, 2)
	r.put(v7)
	r.i.Activated(r.set(ring.Active, 0, 2))
	r.replay()
	r.f.OnAdd(v5, true)
	r.f.OnUpdate(v5, v6)
	r.f.OnUpdate(v6, v7)
	r.wants("add a@7", "update a@5 a@7")
}

func TestI10_Malformed(t *testing.T) {
	r := newRig(t, everything())
	bad := object("bad", 1, -1)
	r.created(bad)
	r.updated(bad, object("bad", 2, -1))
	r.deleted(object("bad", 3, -1))
	r.i.Activated(r.set(ring.Active, 0))
	r.put(bad)
	r.replay()
	r.f.OnAdd("no object", false)
	r.f.OnUpdate("no object", bad)
	r.f.OnUpdate(bad, "no object")
	r.f.OnDelete("no object")
	r.f.OnDelete(cache.DeletedFinalStateUnknown{Key: "ns/never-seen"})
	r.f.OnDelete(cache.DeletedFinalStateUnknown{Key: "never-seen"})
	r.wants()
	if got, want := r.count.String(), "malformed=9 "; got != want {
		t.Errorf("counted %s, want %s", got, want)
	}

	t.Run("known before", func(t *testing.T) {
		r := newRig(t, everything())
		good, bad := object("a", 1, 0), object("a", 2, -1)
		r.created(good)
		r.updated(good, bad)
		r.wants("add a@1", "update a@1 a@2", "released a@2")
		again := object("a", 3, 0)
		r.updated(bad, again)
		r.wants("add a@3")
		r.deleted(cache.DeletedFinalStateUnknown{Key: "ns/a"})
		r.wants("delete unknown ns/a")
	})
}
