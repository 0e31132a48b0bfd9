// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package cachesync

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

func inform(example runtime.Object) cache.SharedIndexInformer {
	return cache.NewSharedIndexInformer(&cache.ListWatch{}, example, 0, nil)
}

func untypedObject(apiVersion, kind string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetAPIVersion(apiVersion)
	u.SetKind(kind)
	u.SetName("x")
	u.SetResourceVersion("100")
	return u
}

// An informer has the same name on every member, whether or not an example was passed and
// whatever it holds.
func TestCaches_Name(t *testing.T) {
	meta := func(kind string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: kind}, ObjectMeta: metav1.ObjectMeta{Name: "x"}}
	}
	for _, c := range []struct {
		name                    string
		client, example, stored runtime.Object
		want                    string
		known                   bool
	}{
		{"typed", &appsv1.Deployment{}, nil, nil, "v1.Deployment", true},
		{"typed, with an example", &appsv1.Deployment{}, &appsv1.Deployment{}, nil, "v1.Deployment", true},
		{"typed, without client-go's example", nil, nil, &appsv1.Deployment{}, "v1.Deployment", true},
		{"untyped", &unstructured.Unstructured{}, nil, untypedObject("example.com/v1", "Foo"), "Foo.example.com", true},
		{"untyped, with an example", &unstructured.Unstructured{}, untypedObject("example.com/v1", "Foo"), nil, "Foo.example.com", true},
		{"untyped, of the core group", &unstructured.Unstructured{}, nil, untypedObject("v1", "Pod"), "Pod", true},
		{"untyped and empty", &unstructured.Unstructured{}, &unstructured.Unstructured{}, nil, "", false},
		{"metadata", meta(""), nil, meta("Deployment"), "Deployment.apps", true},
		{"metadata without a kind", meta(""), nil, meta("PartialObjectMetadata"), "", false},
		{"nothing", nil, nil, nil, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := inform(c.client)
			if c.stored != nil {
				if err := i.GetStore().Add(c.stored); err != nil {
					t.Fatal(err)
				}
			}
			var caches Caches
			if c.example == nil {
				caches.Add(i, nil)
			} else {
				caches.Add(i, c.example)
			}
			if name, known := caches.list[0].name(); name != c.want || known != c.known {
				t.Errorf("name %q, known: %v", name, known)
			}
		})
	}
}

// Where there is nothing to compare, no member waits.
func TestCaches_Reached(t *testing.T) {
	c := &Caches{}
	deployments := &unsynced{SharedIndexInformer: inform(&appsv1.Deployment{})}
	c.Add(deployments, nil)
	check := func(name, version string, want bool) {
		t.Helper()
		if got := len(c.Reached(claim.Watermarks{name: version})) == 1; got != want {
			t.Errorf("version %s is reached: %v", version, got)
		}
	}
	check("v1.Deployment", "1", false) // has not synced
	check("v1.Pod", "5", true)         // no informer
	deployments.synced = true
	check("v1.Deployment", "1", true) // cannot be compared: the store knows no version
	deployments.GetStore().Bookmark("100")
	check("v1.Deployment", "99", true)
	check("v1.Deployment", "100", true)
	check("v1.Deployment", "101", false)
	check("v1.Deployment", "abc", true)
	if diff := cmp.Diff(claim.Watermarks{"v1.Deployment": "100", "v1.Pod": ""}, c.Cached(claim.Watermarks{"v1.Deployment": "101", "v1.Pod": "5"})); diff != "" {
		t.Errorf("cached (-want +got):\n%s", diff)
	}
	deployments.GetStore().Bookmark("x")
	check("v1.Deployment", "101", true)
}

// unsynced has synced when the test says so.
type unsynced struct {
	cache.SharedIndexInformer
	synced bool
}

func (u *unsynced) HasSynced() bool { return u.synced }

// An informer that holds nothing yet may be the one that the former owner's watermark is about.
func TestCaches_WaitForAnInformerWhoseNameIsNotKnown(t *testing.T) {
	c := &Caches{}
	foos := &unsynced{inform(&unstructured.Unstructured{}), true}
	foos.GetStore().Bookmark("100")
	c.Add(foos, nil)
	waits := func(name string) bool { return len(c.Reached(claim.Watermarks{name: "101"})) == 0 }
	if !waits("Foo.example.com") {
		t.Error("does not wait for the empty informer")
	}
	if err := foos.GetStore().Add(untypedObject("example.com/v1", "Bar")); err != nil {
		t.Fatal(err)
	}
	if waits("Foo.example.com") || !waits("Bar.example.com") {
		t.Error("does not know what the informer holds")
	}
}

// What was written counts for the informer that shows an object with that UID. Neither the name
// of the Go type nor the kind of the response matters.
func TestWriteTracker_TheInformerThatShowsTheObjectCounts(t *testing.T) {
	c := &Caches{}
	odd, services, other := inform(&oddName{}), inform(&corev1.Service{}), inform(&appsv1.Deployment{})
	for _, i := range []cache.SharedIndexInformer{odd, services, other} {
		c.Add(i, nil)
	}
	named := metav1.ObjectMeta{Namespace: "x", Name: "y", UID: "u", ResourceVersion: "1"}
	if err := odd.GetStore().Add(&oddName{ConfigMap: corev1.ConfigMap{ObjectMeta: named}}); err != nil {
		t.Fatal(err)
	}
	named.UID = "another"
	if err := services.GetStore().Add(&corev1.Service{ObjectMeta: named}); err != nil {
		t.Fatal(err)
	}
	w := NewWriteTracker(c)
	w.note(write{kind: schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}, namespace: "x", object: "y", uid: "u", version: "7"})
	if diff := cmp.Diff(claim.Watermarks{"cachesync.oddName": "7"}, w.Watermarks()); diff != "" {
		t.Errorf("watermarks (-want +got):\n%s", diff)
	}
}

// A metadata informer of a real server holds objects that do not show their kind.
func TestWriteTracker_LearnsTheKindOfAMetadataInformer(t *testing.T) {
	deployment := schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}
	for _, test := range []struct {
		name   string
		writes []write
		want   claim.Watermarks
	}{
		{"a write", []write{{kind: deployment, exact: true, version: "101"}}, claim.Watermarks{"Deployment.apps": "101"}},
		{"by way of its scale", []write{{kind: schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}, exact: true, version: "101"}}, claim.Watermarks{}},
		{"without the group", []write{{kind: schema.GroupVersionKind{Version: "v1", Kind: "Deployment"}, version: "101"}}, claim.Watermarks{}},
		{
			"by way of its scale, later",
			[]write{{kind: deployment, exact: true, version: "101"}, {kind: schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}, exact: true, version: "102"}},
			claim.Watermarks{"Deployment.apps": "102"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			members := [2]*Caches{{}, {}}
			for _, c := range members {
				i := &unsynced{inform(&metav1.PartialObjectMetadata{}), true}
				m := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"}, ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "y", UID: "u"}}
				if err := i.GetStore().Add(m); err != nil {
					t.Fatal(err)
				}
				i.GetStore().Bookmark("100")
				c.Add(i, nil)
			}
			w := NewWriteTracker(members[0])
			for _, written := range test.writes {
				written.namespace, written.object, written.uid = "x", "y", "u"
				w.note(written)
			}
			if diff := cmp.Diff(test.want, w.Watermarks()); diff != "" {
				t.Errorf("watermarks (-want +got):\n%s", diff)
			}
			if reached := members[1].Reached(test.want); len(reached) > 0 {
				t.Errorf("a peer that has written nothing does not wait: %v", reached)
			}
		})
	}
}

// oddName is a Go type whose name is not that of its kind.
type oddName struct{ corev1.ConfigMap }

func TestWriteTracker_RemembersWhichInformerShowsAKind(t *testing.T) {
	c := &Caches{}
	i := inform(&oddName{})
	c.Add(i, nil)
	w := NewWriteTracker(c)
	kind := schema.GroupVersionKind{Version: "v1", Kind: "Foo"}
	create := func(name, version string) {
		w.note(write{kind: kind, namespace: "x", object: name, uid: "uid-" + "x", version: version})
	}
	create("a", "5")
	if got := w.Watermarks(); len(got) > 0 {
		t.Errorf("watermarks %v of a kind that no informer has shown", got)
	}
	if err := i.GetStore().Add(&oddName{ConfigMap: corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "a", UID: "uid-x"}}}); err != nil {
		t.Fatal(err)
	}
	create("a", "6")
	create("b", "7") // not shown yet
	if diff := cmp.Diff(claim.Watermarks{"cachesync.oddName": "7"}, w.Watermarks()); diff != "" {
		t.Errorf("watermarks (-want +got):\n%s", diff)
	}
}

// A stopped informer shows no more writes. If it is the only one of its kind, no handover may
// wait for it, and it must not stay in memory.
func TestCaches_StoppedInformer(t *testing.T) {
	c := &Caches{}
	i := &stoppedInformer{unsynced: unsynced{inform(&appsv1.Deployment{}), true}}
	i.GetStore().Bookmark("100")
	c.Add(i, nil)
	w := NewWriteTracker(c)
	w.note(write{kind: appsv1.SchemeGroupVersion.WithKind("Deployment"), namespace: "x", object: "y", uid: "u", version: "101"})
	waits := func() bool { return len(c.Reached(claim.Watermarks{"v1.Deployment": "101"})) == 0 }
	if !waits() || len(w.Watermarks()) == 0 {
		t.Error("does not wait for an informer that runs")
	}
	i.stopped = true
	if waits() || len(c.list) > 0 || len(w.Watermarks()) > 0 {
		t.Errorf("waits for a stopped informer, or keeps it (%d), or publishes %v", len(c.list), w.Watermarks())
	}
}

type stoppedInformer struct {
	unsynced
	stopped bool
}

func (i *stoppedInformer) IsStopped() bool { return i.stopped }

// Of two informers that hold nothing yet, either may be the one that the watermark is about. One that
// has reached it does not speak for the other.
func TestCaches_WaitForAllInformersWhoseNamesAreNotKnown(t *testing.T) {
	c := &Caches{}
	foos, bars := &unsynced{inform(&unstructured.Unstructured{}), true}, &unsynced{inform(&unstructured.Unstructured{}), true}
	c.Add(foos, nil)
	c.Add(bars, nil)
	foos.GetStore().Bookmark("100")
	bars.GetStore().Bookmark("102")
	waits := func() bool { return len(c.Reached(claim.Watermarks{"Foo.example.com": "101"})) == 0 }
	if !waits() {
		t.Error("the first Foo may not be shown yet")
	}
	foos.GetStore().Bookmark("101")
	if waits() {
		t.Error("both have reached the version")
	}
	foos.synced = false
	if !waits() {
		t.Error("one of them has not synced")
	}
}

// Of two informers of one name, for instance one for each namespace, only one will show the write.
func TestCaches_WaitForOneOfTheInformersOfAName(t *testing.T) {
	c := &Caches{}
	for _, version := range []string{"100", "102"} {
		pods := &unsynced{inform(&corev1.Pod{}), true}
		pods.GetStore().Bookmark(version)
		c.Add(pods, nil)
	}
	for version, want := range map[string]int{"101": 1, "103": 0} {
		if n := len(c.Reached(claim.Watermarks{"v1.Pod": version})); n != want {
			t.Errorf("version %s: %d watermarks are reached, want %d", version, n, want)
		}
	}
}
