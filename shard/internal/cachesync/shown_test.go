// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package cachesync

import (
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

// member is a member with an informer for Pods, whose watch a test plays.
type member struct {
	t *testing.T
	*WriteTracker
	pods cache.SharedIndexInformer
}

func newMember(t *testing.T) member {
	c := &Caches{}
	pods := inform(&corev1.Pod{})
	c.Add(pods, nil)
	return member{t, NewWriteTracker(c), pods}
}

func pod(name string, uid types.UID, version int) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name, UID: uid, ResourceVersion: fmt.Sprint(version)}}
}

// show makes the watch show an object.
func (m member) show(p *corev1.Pod) {
	m.t.Helper()
	if err := m.pods.GetStore().Add(p); err != nil {
		m.t.Fatal(err)
	}
}

// showDeleted makes the watch show a deletion. The object has the version of the deletion.
func (m member) showDeleted(p *corev1.Pod) {
	m.t.Helper()
	if err := m.pods.GetStore().Delete(p); err != nil {
		m.t.Fatal(err)
	}
}

// want checks the watermark of Pods. 0 is none.
func (m member) want(version int, why string) {
	m.t.Helper()
	wanted := claim.Watermarks{}
	if version > 0 {
		wanted["v1.Pod"] = fmt.Sprint(version)
	}
	if diff := cmp.Diff(wanted, m.Watermarks()); diff != "" {
		m.t.Errorf("%s: watermarks (-want +got):\n%s", why, diff)
	}
}

// A controller removes the last finalizer of an object, or deletes a Pod, and the watch shows the
// deletion before the response has arrived. The informer selects such objects, and the one that
// the controller creates next must count (G9).
func TestWriteTracker_AWriteThatEndsAnObjectHidesNoLaterCreation(t *testing.T) {
	for name, again := range map[string]bool{"deleted": false, "deleted and created again": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMember(t)
				m.show(pod("old", "1", 5))
				m.Note(pod("old", "1", 5))
				// The watch is faster than the response to the write that ends the object.
				m.showDeleted(pod("old", "1", 10))
				if again {
					m.show(pod("old", "2", 11))
				}
				m.Note(pod("old", "1", 10))
				m.want(10, "the next owner's informer must show the deletion")
				time.Sleep(shownWithin)
				// Then the controller creates another object, and hands over a moment later.
				m.Note(pod("created", "3", 20))
				m.want(20, "the next owner must wait for the Pod that was created")
			})
		})
	}
}

// An object that another client has deleted by the time at which the tracker looks again, was
// selected all the same.
func TestWriteTracker_AShortLivedObjectHidesNoLaterCreation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMember(t)
		m.Note(pod("first", "1", 5))
		m.show(pod("first", "1", 5))
		time.Sleep(2 * shownWithin)
		m.showDeleted(pod("first", "1", 6))
		m.Note(pod("second", "2", 20))
		m.want(20, "the next owner must wait for the second Pod")
	})
}

// An informer that was cut off for a moment has shown nothing in time. When it shows what it
// missed, it selects such objects.
func TestWriteTracker_AnInformerThatWasLateIsTrustedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMember(t)
		m.Note(pod("first", "1", 5))
		time.Sleep(shownWithin)
		m.Note(pod("other", "2", 6))
		m.want(0, "peers would wait in vain for what no informer shows")
		time.Sleep(shownWithin)
		m.want(0, "neither is shown")
		m.show(pod("first", "1", 5))
		m.want(5, "the other one is late, too")
		m.Note(pod("second", "3", 7))
		m.want(7, "the next owner must wait for the second Pod")
	})
}

// What counts is whether the informer has shown the last object that it was to show.
func TestWriteTracker_AnObjectThatIsShownEndsTheMemoryOfOneThatIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, next := range []types.UID{"created", "other"} { // a label may make an informer select the other one now
			m := newMember(t)
			m.show(pod("selected", "0", 5))
			m.Note(pod("other", "other", 6))
			time.Sleep(shownWithin)
			m.Note(pod("selected", "0", 7))
			m.want(7, "the next owner must wait for an object that is shown")
			m.Note(pod(string(next), next, 8))
			m.want(8, "the next owner must wait for "+string(next))
		}
		m := newMember(t)
		m.show(pod("selected", "0", 5))
		m.Note(pod("other", "1", 6))
		time.Sleep(shownWithin)
		m.Note(pod("selected", "0", 7))
		m.Note(pod("created", "2", 8))
		m.want(8, "the next owner must wait although nothing was looked at in between")
	})
}

// Informers of one name, for instance one for each namespace, are one: if one of them has shown a write,
// the others need not.
func TestWriteTracker_TwoInformersOfAName(t *testing.T) {
	for name, write := range map[string]*corev1.Pod{"shown": pod("shown", "1", 5), "ended": pod("ended", "2", 4)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMember(t)
				m.caches.Add(inform(&corev1.Pod{}), nil)
				m.show(pod("shown", "1", 5))
				m.Note(write)
				time.Sleep(shownWithin)
				m.Note(pod("created", "3", 20))
				m.want(20, "the next owner must wait for the Pod that was created")
				version, _ := strconv.Atoi(write.ResourceVersion)
				time.Sleep(shownWithin)
				m.want(version, "the created Pod was not shown")
				m.Note(pod("other", "4", 30))
				m.want(version, "the created Pod was not shown, so another one does not count")
			})
		})
	}
}

// A controller that creates many objects which the informers do not select delays no handover.
func TestWriteTracker_ManyUnselectedObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMember(t)
		m.show(pod("selected", "0", 5))
		m.Note(pod("selected", "0", 5))
		for n := range 100 {
			m.Note(pod(fmt.Sprint("other-", n), types.UID(fmt.Sprint(n)), 100+n))
			time.Sleep(shownWithin / 25)
		}
		m.want(5, "peers would wait in vain")
	})
}

// If informers of two names hold a kind, an object counts for both, also when one of them has shown
// it and the other one has not.
func TestWriteTracker_TwoInformersOfAKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Caches{}
		typed, untyped := inform(&corev1.Pod{}), inform(untypedObject("v1", "Pod"))
		c.Add(typed, nil)
		c.Add(untyped, untypedObject("v1", "Pod"))
		w := NewWriteTracker(c)
		want := func(wanted claim.Watermarks) {
			t.Helper()
			if diff := cmp.Diff(wanted, w.Watermarks()); diff != "" {
				t.Errorf("watermarks (-want +got):\n%s", diff)
			}
		}
		if err := typed.GetStore().Add(pod("created", "1", 5)); err != nil {
			t.Fatal(err)
		}
		w.Note(pod("created", "1", 5))
		want(claim.Watermarks{"v1.Pod": "5", "Pod": "5"})
		time.Sleep(shownWithin) // the other informer does not select the object
		want(claim.Watermarks{"v1.Pod": "5"})
		w.Note(pod("created", "1", 6))
		want(claim.Watermarks{"v1.Pod": "6"})
	})
}

// A quiet informer passes a write by a bookmark. Peers get theirs later and would wait for it.
func TestWriteTracker_ALateBookmarkProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMember(t)
		m.Note(pod("other", "1", 5))
		time.Sleep(shownWithin)
		m.pods.GetStore().Bookmark("10")
		m.want(0, "peers would wait for their bookmarks")
		m.Note(pod("created", "2", 20))
		m.want(20, "the first one may have been selected, and have ended")
	})
}

// Scales of two kinds are of one kind themselves. A write of one counts for the informer that shows
// its object, and not for the other one, which never will.
func TestWriteTracker_AKindWhoseObjectsTwoInformersShow(t *testing.T) {
	m := newMember(t)
	odd := inform(&oddName{})
	m.caches.Add(odd, nil)
	m.show(pod("pod", "1", 1))
	if err := odd.GetStore().Add(&oddName{ConfigMap: corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "odd", UID: "2"}}}); err != nil {
		t.Fatal(err)
	}
	scale := schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}
	m.note(write{kind: scale, namespace: "x", object: "odd", uid: "2", version: "5"})
	m.note(write{kind: scale, namespace: "x", object: "pod", uid: "1", version: "6"})
	if diff := cmp.Diff(claim.Watermarks{"cachesync.oddName": "5", "v1.Pod": "6"}, m.Watermarks()); diff != "" {
		t.Errorf("watermarks (-want +got):\n%s", diff)
	}
}
