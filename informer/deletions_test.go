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
				r := newRig(t, &owner{})
				r.f.deletions.window = test.window
				if test.window == 0 {
					r.f.deletions.window = DefaultDeletionWindow
				}
				r.created(object("a", 1, 0))
				r.created(object("b", 1, 0))
				r.created(object("other", 1, 1))
				r.deleted(object("a", 2, 0))
				r.drop(object("b", 1, 0))
				r.f.OnDelete(cache.DeletedFinalStateUnknown{Key: "ns/b", Obj: object("b", 1, 0)})
				r.deleted(object("other", 2, 1))
				r.wants()
				time.Sleep(test.after)
				r.i.Activated(r.set(ring.Active, 0))
				time.Sleep(time.Hour) // the window ends with the activation, however late the replay
				r.f.deletions.remember(&deletion{name: cache.ObjectName{Name: "makes it sweep"}, point: math.MaxUint64, at: time.Now()}, r.f.mail.oldest(time.Now()))
				r.replay()
				r.wants(test.want...)
				if got, want := r.count[ReplayedDeletion].Load(), int64(len(test.want)); got != want {
					t.Errorf("counted %d replayed deletions, want %d", got, want)
				}
				r.i.Activated(r.set(ring.Active, 0))
				r.replay()
				r.wants() // once is enough
			})
		})
	}
}

// The member that the deletion was first shown to may not have got to it.
func TestI4_DeletionIsShownAgainAfterALoss(t *testing.T) {
	r := newRig(t, everything())
	r.created(object("a", 1, 0))
	r.deleted(object("a", 2, 0))
	r.wants("add a@1", "delete a@2")
	r.i.Activated(r.set(ring.Active, 0))
	r.replay()
	r.wants()
	r.i.Released(r.set(ring.NotOwned, 0))
	r.i.Activated(r.set(ring.Active, 0))
	r.replay()
	r.wants("delete a@2")
}

func TestI4_DeletionWhileBeingDrained(t *testing.T) {
	r := newRig(t, everything())
	r.created(object("a", 1, 0))
	set := r.set(ring.Pending, 0)
	r.deleted(object("a", 2, 0))
	r.wants("add a@1", "delete a@2")
	r.set(ring.NotOwned, 0)
	r.i.Released(set)
	r.i.Activated(r.set(ring.Active, 0))
	r.replay()
	r.wants("delete a@2")
}

func TestI4_Recreation(t *testing.T) {
	gone := object("a", 2, 0, "old")
	fresh := object("a", 3, 0, "new")
	t.Run("replay", func(t *testing.T) {
		r := newRig(t, &owner{})
		r.f.OnDelete(gone)
		r.created(fresh)
		r.i.Activated(r.set(ring.Active, 0))
		r.replay()
		r.wants("delete a(old)@2", "add a(new)@3")
	})
	t.Run("the stream is first", func(t *testing.T) {
		r := newRig(t, &owner{})
		r.f.OnDelete(gone)
		set := r.set(ring.Active, 0)
		r.created(fresh)
		r.wants("delete a(old)@2", "add a(new)@3")
		r.i.Activated(set)
		r.replay()
		r.wants()
	})
	t.Run("with another key", func(t *testing.T) { // as on a ring by UID
		r := newRig(t, &owner{})
		r.f.OnDelete(gone)
		set := r.set(ring.Active, 1)
		r.created(object("a", 3, 1, "new"))
		r.wants("add a(new)@3")
		r.i.Activated(set)
		r.i.Activated(r.set(ring.Active, 0))
		r.replay()
		r.wants("delete a(old)@2", "add a(new)@3")
	})
	t.Run("twice", func(t *testing.T) {
		r := newRig(t, &owner{})
		r.f.OnDelete(gone)
		r.f.OnDelete(object("a", 4, 0, "new"))
		r.put(object("a", 5, 0, "newer"))
		r.i.Activated(r.set(ring.Active, 0))
		r.replay()
		r.wants("delete a(old)@2", "delete a(new)@4", "add a(newer)@5")
	})
}

// A watch by selector reports an object that leaves the selection as deleted.
func TestI4_ReturnIsNoRecreation(t *testing.T) {
	for _, uid := range []string{"a", ""} { // without UIDs, objects can't be told apart
		t.Run("replay"+uid, func(t *testing.T) {
			r := newRig(t, &owner{})
			r.f.OnDelete(object("a", 2, 0, uid))
			r.created(object("a", 3, 0, uid))
			r.i.Activated(r.set(ring.Active, 0))
			r.replay()
			r.wants("add a@3")
		})
		t.Run("stream"+uid, func(t *testing.T) {
			r := newRig(t, &owner{})
			r.f.OnDelete(object("a", 2, 0, uid))
			set := r.set(ring.Active, 0)
			r.created(object("a", 3, 0, uid))
			r.i.Activated(set)
			r.replay()
			r.wants("add a@3")
		})
	}
	t.Run("and it leaves again", func(t *testing.T) {
		r := newRig(t, &owner{})
		r.f.OnDelete(object("a", 2, 0))
		set := r.set(ring.Active, 0)
		r.i.Activated(set)
		r.f.shown[cache.ObjectName{Namespace: "ns", Name: "a"}] = &shown{object("a", 3, 0), 0}
		r.replay()
		r.wants()
		r.f.OnDelete(object("a", 4, 0))
		r.wants("delete a@4")
	})
}

func TestI4_MemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &owner{})
		for n := range 1000 {
			r.f.OnDelete(object(fmt.Sprint(n), 1, 0))
			time.Sleep(time.Second)
			if kept := len(r.f.deletions.byName); kept > 130 {
				t.Fatalf("%d deletions are kept after %d s, one a second", kept, n)
			}
		}
		time.Sleep(2 * time.Minute)
		r.f.tidy(t.Context())
		if kept := len(r.f.deletions.byName); kept > 0 {
			t.Errorf("%d deletions are kept after tidying up", kept)
		}
	})
}
