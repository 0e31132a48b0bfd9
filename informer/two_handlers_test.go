// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// another adds a handler whose stream the test drives, too.
func (h *harness) another() *harness {
	h.t.Helper()
	other := &harness{t: h.t, owner: h.owner, i: h.i, j: &releaseJournal{}}
	if _, err := h.i.AddEventHandler(other.j); err != nil {
		h.t.Fatal(err)
	}
	other.f = h.i.filters[len(h.i.filters)-1]
	return other
}

// A handler whose stream lags must not make the others forget a deletion: the event that it is
// shown is older than the deletion.
func TestI4_ALaggingHandlerHidesNoDeletion(t *testing.T) {
	h := newHarness(t, &owner{})
	slow := h.another()
	gone := object("a", 1, 0)
	h.created(gone)
	h.deleted(gone) // another member's
	h.i.Activated(h.set(ring.Active, 0))
	slow.f.OnAdd(gone, false)
	h.replay()
	h.wants("delete unknown a@1")
	slow.replay()
	slow.f.OnDelete(gone)
	slow.wants("add a@1", "delete a@1")
}

// The same with an update that replaces an object by another one.
func TestI4_ALaggingReplacementHidesNoDeletion(t *testing.T) {
	h := newHarness(t, everything())
	slow := h.another()
	old, gone := object("a", 1, 0, "old"), object("a", 2, 0, "new")
	slow.created(old)
	slow.wants("add a(old)@1")
	h.set(ring.NotOwned, 0)
	h.f.OnAdd(old, false)
	h.f.OnUpdate(old, gone) // a relist
	h.deleted(gone)
	h.i.Activated(h.set(ring.Active, 0))
	slow.f.OnUpdate(old, gone)
	h.replay()
	h.wants("delete unknown a(old)@1", "delete unknown a(new)@2")
}

// What a fast handler has already seen deleted must not be shown to a slow one before the
// object that it is about: with everything owned, both see the plain stream.
func TestI7_TwoHandlersOfDifferentSpeeds(t *testing.T) {
	h := newHarness(t, everything())
	slow := h.another()
	first, second := object("a", 1, 0, "first"), object("a", 3, 0, "second")
	want := []string{"add a(first)@1", "delete a(first)@1", "add a(second)@3", "delete a(second)@3"}
	for _, h := range []*harness{h, slow} {
		h.f.OnAdd(first, false)
		h.f.OnDelete(first)
		h.f.OnAdd(second, false)
		h.f.OnDelete(second)
		h.wants(want...)
	}
}

// A deletion that is observed while a handler is being added is not in its stream.
func TestI4_DeletionWhileAHandlerIsAdded(t *testing.T) {
	h := newHarness(t, &owner{})
	gone := object("a", 1, 0)
	h.created(gone)
	late := &harness{t: t, owner: h.owner, i: h.i, j: &releaseJournal{}}
	if _, err := h.i.register(late.j, nil, func(f cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
		h.deleted(gone)
		return h.i.SharedIndexInformer.AddEventHandler(f)
	}); err != nil {
		t.Fatal(err)
	}
	late.f = h.i.filters[1]
	h.i.Activated(h.set(ring.Active, 0))
	late.replay()
	late.wants("delete unknown a@1")
}

// A deletion whose last state has a key that this member does not own was delivered, because
// the handler knew the object, but its work was not this member's. It must be delivered again
// when the key is.
func TestI4_DeletionWithTheKeyOfAnotherMember(t *testing.T) {
	h := newHarness(t, everything())
	h.set(ring.NotOwned, 1)
	h.created(object("a", 1, 0))
	h.deleted(object("a", 2, 1)) // the change of the key and the deletion were one event
	h.wants("add a@1", "delete a@2")
	h.i.Activated(h.set(ring.Active, 1))
	h.replay()
	h.wants("delete unknown a@2")
}

// The object did not match the watch's selector for a time: the handler has seen it match
// again, so the deletion is outdated. The deletion of another object is not.
func TestI1_DeletionBeforeAReplayedVersion(t *testing.T) {
	for name, test := range map[string]struct {
		uid  string
		want []string
	}{
		"same object":    {"new", []string{"add a(new)@5"}},
		"another object": {"old", []string{"add a(new)@5", "delete a(old)@3", "add a(new)@5"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, &owner{})
			now := object("a", 5, 0, "new")
			h.put(now)
			h.i.Activated(h.set(ring.Active, 0))
			h.replay()
			h.f.OnDelete(object("a", 3, 0, test.uid))
			h.f.OnAdd(now, false)
			h.wants(test.want...)
			h.deleted(now)
			h.wants("delete a(new)@5")
		})
	}
}

// What the handler inside a filter was shown is released, even if the object that is stored
// now would not pass the filter, or none is stored. Nothing else is.
func TestI5_ReleaseBehindAFilter(t *testing.T) {
	for name, now := range map[string]any{"changed": object("a", 2, 1), "gone": nil} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, everything())
			j := &releaseJournal{}
			if _, err := h.i.AddEventHandler(cache.FilteringResourceEventHandler{Handler: j, FilterFunc: func(obj any) bool {
				o, ok := obj.(interface{ GetLabels() map[string]string })
				return ok && o.GetLabels()["p"] == "0"
			}}); err != nil {
				t.Fatal(err)
			}
			h.f = h.i.filters[1]
			h.created(object("a", 1, 0))
			h.created(object("b", 1, 1)) // does not pass
			h.created(object("c", 1, 0))
			h.updated(object("c", 1, 0), object("c", 2, 1)) // does not pass any more
			want := []string{"add a@1", "add c@1", "delete c@1", "released unknown ns/a"}
			h.drop(object("a", 1, 0))
			if now != nil {
				h.put(now)
				want[3] = "released a@2"
			}
			h.i.Released(h.set(ring.NotOwned, 0, 1))
			h.replay()
			if diff := cmp.Diff(want, j.take()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
