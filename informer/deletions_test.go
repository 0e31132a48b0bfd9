// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

func TestI4_DeletionsAreReplayed(t *testing.T) {
	for name, test := range map[string]struct {
		window, after time.Duration
		want          []string
	}{
		"at once":              {0, 0, []string{"delete unknown a@2", "delete unknown b@1"}},
		"within the window":    {0, DefaultDeletionWindow, []string{"delete unknown a@2", "delete unknown b@1"}},
		"after the window":     {0, DefaultDeletionWindow * 3 / 2, nil},
		"after a short window": {time.Minute, time.Minute * 3 / 2, nil},
		"none remembered":      {-1, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, &owner{})
				h.i.deletions.window = test.window
				if test.window == 0 {
					h.i.deletions.window = DefaultDeletionWindow
				}
				h.created(object("a", 1, 0))
				h.created(object("b", 1, 0))
				h.created(object("other", 1, 1))
				h.deleted(object("a", 2, 0))
				h.drop(object("b", 1, 0))
				h.f.OnDelete(cache.DeletedFinalStateUnknown{Key: "ns/b", Obj: object("b", 1, 0)})
				h.deleted(object("other", 2, 1))
				h.wants()
				h.pass(test.after)
				h.i.Activated(h.set(ring.Active, 0))
				h.pass(time.Hour) // the activation ends the window, however late the replay runs
				h.replay()
				h.wants(test.want...)
				if got, want := h.i.Events()[ReplayedDeletion], uint64(len(test.want)); got != want {
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
	h.wants("delete unknown a@2")
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
	h.wants("delete unknown a@2")
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
		h.wants("delete unknown a(old)@2", "add a(new)@3")
	})
	t.Run("stream first", func(t *testing.T) {
		h := newHarness(t, &owner{})
		h.f.OnDelete(gone)
		set := h.set(ring.Active, 0)
		h.created(fresh)
		h.wants("delete unknown a(old)@2", "add a(new)@3")
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
		h.wants("delete unknown a(old)@2", "add a(new)@3")
	})
	t.Run("twice", func(t *testing.T) {
		h := newHarness(t, &owner{})
		h.f.OnDelete(gone)
		h.f.OnDelete(object("a", 4, 0, "new"))
		h.put(object("a", 5, 0, "newer"))
		h.i.Activated(h.set(ring.Active, 0))
		h.replay()
		h.wants("delete unknown a(old)@2", "delete unknown a(new)@4", "add a(newer)@5")
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
		h.put(object("a", 3, 0))
		h.replay()
		h.wants("add a@3")
		h.drop(object("a", 4, 0))
		h.i.Activated(set)
		h.replay()
		h.wants()
		h.f.OnDelete(object("a", 4, 0))
		h.wants("delete a@4")
	})
}

func TestI4_MemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, everything())
		ds := &h.i.deletions
		for n := range 5000 { // at once; only the memory of the last ones may be kept to be used again
			h.f.OnDelete(object(fmt.Sprint("burst", n), 1, 0))
		}
		for n := range 2000 {
			h.f.OnDelete(object(fmt.Sprint(n), 1, 0))
			time.Sleep(time.Second)
			h.i.tidy(klog.Background(), time.Now())
			h.f.tidy(t.Context())
			burst := 0
			if n < 900 {
				burst = 5000
			}
			if kept := ds.count(); kept > 600*3/2+burst || n > 600 && kept < 600 {
				t.Fatalf("%d deletions are kept after %d s, at one per second", kept, n)
			}
			if noted := len(h.f.delivered); noted != ds.count() {
				t.Fatalf("%d deletions are noted as delivered, %d are kept", noted, ds.count())
			}
			if blocks := len(ds.blocks) + len(ds.free); n > 1200 && blocks > 600*2/int(blockSize) {
				t.Fatalf("%d blocks are kept after %d s, at one deletion per second", blocks, n)
			}
		}
		time.Sleep(2 * DefaultDeletionWindow)
		h.i.tidy(klog.Background(), time.Now())
		time.Sleep(2 * DefaultDeletionWindow)
		h.i.tidy(klog.Background(), time.Now())
		h.f.tidy(t.Context())
		if kept := ds.count(); kept > 0 || len(ds.latest) > 0 || len(ds.blocks)+len(ds.free)+len(h.f.delivered) > 0 {
			t.Errorf("%d deletions are kept after tidy, of %d objects, in %d blocks, with %d more blocks, and %d noted as delivered", kept, len(ds.latest), len(ds.blocks), len(ds.free), len(h.f.delivered))
		}
	})
}

// pass lets time pass, with the housekeeping that Replay does.
func (h *harness) pass(d time.Duration) {
	for range 100 {
		time.Sleep(d / 100)
		h.i.tidy(klog.Background(), time.Now())
		h.f.tidy(h.t.Context())
	}
}
