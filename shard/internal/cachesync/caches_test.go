// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package cachesync

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

func TestKindOf(t *testing.T) {
	custom := &unstructured.Unstructured{}
	custom.SetKind("Foo")
	for _, c := range []struct {
		object any
		want   string
	}{
		{&appsv1.Deployment{}, "Deployment"},
		{custom, "Foo"},
		{&unstructured.Unstructured{}, ""},
		{&metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{Kind: "Pod"}}, "Pod"},
		{&metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadata"}}, ""},
		{nil, ""},
	} {
		if got := kindOf(c.object); got != c.want {
			t.Errorf("%T: %q, want %q", c.object, got, c.want)
		}
	}
}

// Where there is nothing to compare, no member waits.
func TestCaches_Reached(t *testing.T) {
	c := &Caches{}
	deployments := &unsynced{SharedIndexInformer: cache.NewSharedIndexInformer(&cache.ListWatch{}, &appsv1.Deployment{}, 0, nil)}
	c.Add(deployments, &appsv1.Deployment{})
	check := func(version string, want bool) {
		t.Helper()
		if got := len(c.Reached(claim.Watermarks{"Deployment": version})) == 1; got != want {
			t.Errorf("version %s is reached: %v", version, got)
		}
	}
	check("1", false) // has not synced
	if got := c.Reached(claim.Watermarks{"Pod": "5"}); len(got) != 1 {
		t.Error("waits for a kind that there is no informer of")
	}
	deployments.synced = true
	check("1", true) // cannot be compared: the store knows no version
	deployments.GetStore().Bookmark("100")
	check("99", true)
	check("100", true)
	check("101", false)
	check("abc", true)
	if diff := cmp.Diff(claim.Watermarks{"Deployment": "100", "Pod": ""}, c.Cached(claim.Watermarks{"Deployment": "101", "Pod": "5"})); diff != "" {
		t.Errorf("cached (-want +got):\n%s", diff)
	}
	deployments.GetStore().Bookmark("x")
	check("101", true)
}

// unsynced has synced when the test says so.
type unsynced struct {
	cache.SharedIndexInformer
	synced bool
}

func (u *unsynced) HasSynced() bool { return u.synced }

// Without an example the first object shows the kind.
func TestCaches_LearnTheKindFromAnObject(t *testing.T) {
	c := &Caches{}
	i := cache.NewSharedIndexInformer(&cache.ListWatch{}, &appsv1.Deployment{}, 0, nil)
	c.Add(i, nil)
	w := NewWriteTracker(c)
	w.note(observedWrite{kind: "Pod", namespace: "x", name: "y", version: "5", created: true})
	if got := w.pending(); len(got) != 1 {
		t.Errorf("a write to an object that may be of the informer's kind was not noted: %v", got)
	}
	if got := w.Watermarks(); len(got) != 0 {
		t.Errorf("watermarks %v of a kind that is not known to be cached", got)
	}
	if err := i.GetStore().Add(deployment(0)); err != nil {
		t.Fatal(err)
	}
	w.note(observedWrite{kind: "Deployment", namespace: "x", name: "y", version: "6"})
	w.note(observedWrite{kind: "Service", namespace: "x", name: "y", version: "7", created: true})
	if diff := cmp.Diff(claim.Watermarks{"Deployment": "6"}, w.Watermarks()); diff != "" {
		t.Errorf("watermarks (-want +got):\n%s", diff)
	}
}

// A stopped informer shows no more writes. If it is the only one of its kind, no handover may
// wait for it, and it must not stay in memory.
func TestCaches_StoppedInformer(t *testing.T) {
	c := &Caches{}
	i := &stoppedInformer{unsynced: unsynced{SharedIndexInformer: cache.NewSharedIndexInformer(&cache.ListWatch{}, &appsv1.Deployment{}, 0, nil), synced: true}}
	i.GetStore().Bookmark("100")
	c.Add(i, &appsv1.Deployment{})
	waits := func() bool { return len(c.Reached(claim.Watermarks{"Deployment": "101"})) == 0 }
	if !waits() {
		t.Error("does not wait for an informer that runs")
	}
	i.stopped = true
	if waits() || len(c.list) > 0 {
		t.Errorf("waits for a stopped informer, or keeps it (%d)", len(c.list))
	}
}

type stoppedInformer struct {
	unsynced
	stopped bool
}

func (i *stoppedInformer) IsStopped() bool { return i.stopped }
