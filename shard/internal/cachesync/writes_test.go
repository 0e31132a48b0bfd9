// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package cachesync

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

// Objects that the informers do not select must not count: no peer's informer shows them.
func TestWriteTracker_UnselectedObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Caches{}
		i := inform(&corev1.Pod{})
		c.Add(i, nil)
		w := NewWriteTracker(c)
		pod := func(name string, version int) *corev1.Pod {
			return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name, UID: types.UID(name), ResourceVersion: fmt.Sprint(version)}}
		}
		want := func(version string) {
			t.Helper()
			wanted := claim.Watermarks{}
			if version != "" {
				wanted["v1.Pod"] = version
			}
			if diff := cmp.Diff(wanted, w.Watermarks()); diff != "" {
				t.Errorf("watermarks (-want +got):\n%s", diff)
			}
		}
		show := func(p *corev1.Pod) {
			if err := i.GetStore().Add(p); err != nil {
				t.Fatal(err)
			}
		}
		selected, other := pod("selected", 5), pod("other", 6)
		w.Note(selected)
		w.Note(other)
		want("6") // both may be shown in a moment
		show(selected)
		time.Sleep(shownWithin)
		want("5")                // the other one was not shown, and does not hide the first
		w.Note(pod("third", 7))  // like the other one
		want("5")                // so it does not count,
		show(pod("third", 7))    // until an object is shown again
		w.Note(pod("fourth", 8)) //
		want("8")
		w.Note(pod("fourth", 9))
		want("9")
		w.Note(pod("fourth", 4)) // a late response
		want("9")
		w.Note(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "selected", UID: "s", ResourceVersion: "20"}})
		want("9") // no informer
		show(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "fourth", UID: "fourth"}})
		time.Sleep(shownWithin)
		want("9") // the version of the object that the informer shows now does not matter
		for n := range 10 * maxUnshown {
			w.Note(pod(fmt.Sprint("many-", n), 100+n))
		}
		if n := len(w.kinds[schema.GroupVersionKind{Version: "v1", Kind: "Pod"}].writes); n != maxUnshown {
			t.Errorf("%d writes are remembered", n)
		}
		want(fmt.Sprint(100 + 10*maxUnshown - 1))
	})
}
