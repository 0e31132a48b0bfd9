// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

func TestI4_DeletionsAreReplayed(t *testing.T) {
	for name, test := range map[string]struct {
		window, after time.Duration
		want          []string
	}{
		"at once":              {0, 0, []string{"delete a@2", "delete unknown b@1"}},
		"within the window":    {0, time.Minute, []string{"delete a@2", "delete unknown b@1"}},
		"after the window":     {0, time.Minute + 1, nil},
		"after a short window": {time.Second, time.Second + 1, nil},
		"none remembered":      {-1, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, &owner{})
				h.f.deletions.window = test.window
				if test.window == 0 {
					h.f.deletions.window = DefaultDeletionWindow
				}
				h.created(object("a", 1, 0))
				h.created(object("b", 1, 0))
				h.created(object("other", 1, 1))
				h.deleted(object("a", 2, 0))
				h.drop(object("b", 1, 0))
				h.f.OnDelete(cache.DeletedFinalStateUnknown{Key: "ns/b", Obj: object("b", 1, 0)})
				h.deleted(object("other", 2, 1))
				h.wants()
				time.Sleep(test.after)
				h.i.Activated(h.set(ring.Active, 0))
				time.Sleep(time.Hour) // the activation ends the window, however late the replay runs
				h.f.deletions.remember(&deletion{name: cache.ObjectName{Name: "triggers a sweep"}, point: math.MaxUint64, at: time.Now()}, h.f.changes.oldest(time.Now()))
				h.replay()
				h.wants(test.want...)
				if got, want := h.count[ReplayedDeletion].Load(), int64(len(test.want)); got != want {
					t.Errorf("counted %d replayed deletions, want %d", got, want)
				}
				h.i.Activated(h.set(ring.Active, 0))
				h.replay()
				h.wants() // delivered only once
			})
		})
	}
}

// The member that first saw the deletion may have lost the partition before it acted on it.
func TestI4_DeletionIsDeliveredAgainAfterALoss(t *testing.T) {
	h := newHarness(t, everything())
	h.created(object("a", 1, 0))
	h.deleted(object("a", 2, 0))
	h.wants("add a@1", "delete a@2")
	h.i.Activated(h.set(ring.Active, 0))
	h.replay()
	h.wants()
	h.i.Released(h.set(ring.NotOwned, 0))
	h.i.Activated(h.set(ring.Active, 0))
	h.replay()
	h.wants("delete a@2")
}

func TestI4_DeletionDuringADrain(t *testing.T) {
	h := newHarness(t, everything())
	h.created(object("a", 1, 0))
	set := h.set(ring.Pending, 0)
	h.deleted(object("a", 2, 0))
	h.wants("add a@1", "delete a@2")
	h.set(ring.NotOwned, 0)
	h.i.Released(set)
	h.i.Activated(h.set(ring.Active, 0))
	h.replay()
	h.wants("delete a@2")
}

func TestI4_Recreation(t *testing.T) {
	gone := object("a", 2, 0, "old")
	fresh := object("a", 3, 0, "new")
	t.Run("replay", func(t *testing.T) {
		h := newHarness(t, &owner{})
		h.f.OnDelete(gone)
		h.created(fresh)
		h.i.Activated(h.set(ring.Active, 0))
		h.replay()
		h.wants("delete a(old)@2", "add a(new)@3")
	})
	t.Run("stream first", func(t *testing.T) {
		h := newHarness(t, &owner{})
		h.f.OnDelete(gone)
		set := h.set(ring.Active, 0)
		h.created(fresh)
		h.wants("delete a(old)@2", "add a(new)@3")
		h.i.Activated(set)
		h.replay()
		h.wants()
	})
	t.Run("with another key", func(t *testing.T) { // as on a ring by UID
		h := newHarness(t, &owner{})
		h.f.OnDelete(gone)
		set := h.set(ring.Active, 1)
		h.created(object("a", 3, 1, "new"))
		h.wants("add a(new)@3")
		h.i.Activated(set)
		h.i.Activated(h.set(ring.Active, 0))
		h.replay()
		h.wants("delete a(old)@2", "add a(new)@3")
	})
	t.Run("twice", func(t *testing.T) {
		h := newHarness(t, &owner{})
		h.f.OnDelete(gone)
		h.f.OnDelete(object("a", 4, 0, "new"))
		h.put(object("a", 5, 0, "newer"))
		h.i.Activated(h.set(ring.Active, 0))
		h.replay()
		h.wants("delete a(old)@2", "delete a(new)@4", "add a(newer)@5")
	})
}

// A watch with a selector reports an object that no longer matches as deleted.
func TestI4_ReturnIsNotARecreation(t *testing.T) {
	for _, uid := range []string{"a", ""} { // without UIDs, objects of one name cannot be distinguished
		t.Run("replay"+uid, func(t *testing.T) {
			h := newHarness(t, &owner{})
			h.f.OnDelete(object("a", 2, 0, uid))
			h.created(object("a", 3, 0, uid))
			h.i.Activated(h.set(ring.Active, 0))
			h.replay()
			h.wants("add a@3")
		})
		t.Run("stream"+uid, func(t *testing.T) {
			h := newHarness(t, &owner{})
			h.f.OnDelete(object("a", 2, 0, uid))
			set := h.set(ring.Active, 0)
			h.created(object("a", 3, 0, uid))
			h.i.Activated(set)
			h.replay()
			h.wants("add a@3")
		})
	}
	t.Run("deleted again", func(t *testing.T) {
		h := newHarness(t, &owner{})
		h.f.OnDelete(object("a", 2, 0))
		set := h.set(ring.Active, 0)
		h.i.Activated(set)
		h.f.shown[cache.ObjectName{Namespace: "ns", Name: "a"}] = &shown{object("a", 3, 0), 0}
		h.replay()
		h.wants()
		h.f.OnDelete(object("a", 4, 0))
		h.wants("delete a@4")
	})
}

func TestI4_MemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, &owner{})
		for n := range 1000 {
			h.f.OnDelete(object(fmt.Sprint(n), 1, 0))
			time.Sleep(time.Second)
			if kept := len(h.f.deletions.byName); kept > 130 {
				t.Fatalf("%d deletions are kept after %d s, at one per second", kept, n)
			}
		}
		time.Sleep(2 * time.Minute)
		h.f.tidy(t.Context())
		if kept := len(h.f.deletions.byName); kept > 0 {
			t.Errorf("%d deletions are kept after tidy", kept)
		}
	})
}
