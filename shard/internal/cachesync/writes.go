// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package cachesync

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

const (
	// shownWithin is the time in which an informer shows what was written, unless it does
	// not select the object. Peers have the same informers and would wait in vain.
	shownWithin = time.Second
	// maxKinds and maxUnshown bound what is remembered: kinds, and objects of each.
	maxKinds   = 64
	maxUnshown = 16
)

// WriteTracker remembers how far this member has written, by the names of the informers that
// show the objects. Any goroutine may call its methods.
type WriteTracker struct {
	caches *Caches

	mu      sync.Mutex       // held while stores are read, which never call back
	written claim.Watermarks // the highest versions of objects that the informers show
	kinds   map[schema.GroupVersionKind]*unshown
}

// unshown are, for one kind, the writes to objects that no informer has shown yet: creations, or
// updates of objects that no informer selects.
type unshown struct {
	writes []write  // in the order of their first write; at most maxUnshown
	names  []string // of the informers that have shown the last object of the kind that was shown
	// unselected says that no informer has shown the last such object within shownWithin: later
	// ones do not count until one is shown.
	unselected bool
}

// write is an object as the API server has returned it in response to a write.
type write struct {
	kind              schema.GroupVersionKind // lacks the group if it is not exact
	exact             bool
	namespace, object string
	uid               types.UID
	version           string
	at                time.Time
}

// isOf reports whether informers of a name usually hold objects of the kind.
func (w *write) isOf(name string) bool {
	return name == w.kind.Version+"."+w.kind.Kind || name == w.kind.GroupKind().String()
}

// NewWriteTracker returns a tracker for a member that has these caches.
func NewWriteTracker(c *Caches) *WriteTracker {
	return &WriteTracker{caches: c, written: claim.Watermarks{}, kinds: map[schema.GroupVersionKind]*unshown{}}
}

// Note notes an object as the API server has returned it in response to a write.
func (t *WriteTracker) Note(obj metav1.Object) {
	kind := schema.GroupVersionKind{}
	if o, ok := obj.(runtime.Object); ok {
		kind = o.GetObjectKind().GroupVersionKind()
	}
	exact := kind.Kind != ""
	if !exact { // typed objects have none when client-go has decoded them
		kind.Version, kind.Kind, _ = strings.Cut(nameOf(obj), ".")
	}
	t.note(write{kind: kind, exact: exact, namespace: obj.GetNamespace(), object: obj.GetName(), uid: obj.GetUID(), version: obj.GetResourceVersion()})
}

// note notes a write that the API server has confirmed.
func (t *WriteTracker) note(w write) {
	if !higher(w.version, "") {
		return // no peer could compare it
	}
	w.at = time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.kinds[w.kind]
	if k == nil {
		k = &unshown{}
	}
	shown := t.shown(k, &w)
	if len(t.kinds) < maxKinds && len(t.candidates(k, &w)) > 0 { // else there is no cache of it
		t.kinds[w.kind] = k
	}
	if shown || t.kinds[w.kind] == nil {
		return
	}
	t.settle(k)
	same := func(other write) bool {
		return other.namespace == w.namespace && other.object == w.object && other.uid == w.uid
	}
	if at := slices.IndexFunc(k.writes, same); at >= 0 {
		if higher(w.version, k.writes[at].version) {
			k.writes[at].version = w.version
		}
		return
	}
	if len(k.writes) == maxUnshown {
		k.writes = slices.Delete(k.writes, 0, 1)
	}
	k.writes = append(k.writes, w)
}

// shown notes a write if informers show its object.
func (t *WriteTracker) shown(k *unshown, w *write) bool {
	var names []string
	for _, c := range t.caches.all() {
		if c.shows(w) {
			c.learn(w)
			if name, _ := c.name(); name != "" {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		raise(t.written, name, w.version)
	}
	if len(names) > 0 {
		k.names, k.unselected = names, false
	}
	return len(names) > 0
}

func raise(watermarks claim.Watermarks, name, version string) {
	if higher(version, watermarks[name]) {
		watermarks[name] = version
	}
}

// settle notes what is known by now of the writes that were not shown.
func (t *WriteTracker) settle(k *unshown) {
	k.writes = slices.DeleteFunc(k.writes, func(w write) bool {
		if t.shown(k, &w) {
			return true
		}
		late := time.Since(w.at) >= shownWithin
		k.unselected = k.unselected || late
		return late
	})
}

// candidates returns the names of the informers that may show an object that none shows yet:
// those that have shown others of its kind, or that usually hold its kind.
func (t *WriteTracker) candidates(k *unshown, w *write) []string {
	names := slices.Clone(k.names)
	for _, c := range t.caches.all() {
		if name, known := c.name(); !known || w.isOf(name) {
			names = append(names, name)
		}
	}
	return names
}

// Watermarks returns how far this member has written, as far as it matters to a peer
// with the same informers. An object that no informer has shown within a second of its
// creation is one that they do not select; until one is shown again, none of its kind counts.
func (t *WriteTracker) Watermarks() claim.Watermarks {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range t.kinds {
		t.settle(k)
	}
	live := map[string]bool{}
	for _, c := range t.caches.all() {
		if name, known := c.name(); known {
			live[name] = true
		}
	}
	maps.DeleteFunc(t.written, func(name, _ string) bool { return !live[name] })
	watermarks := maps.Clone(t.written)
	for _, k := range t.kinds {
		for _, w := range k.writes {
			for _, name := range t.candidates(k, &w) {
				if !k.unselected && live[name] {
					raise(watermarks, name, w.version)
				}
			}
		}
	}
	return watermarks
}
