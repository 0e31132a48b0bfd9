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

// unshown are, for one kind, the writes that informers may still have to show: creations, updates
// of objects that they do not select, and writes after which the object has ended.
type unshown struct {
	writes []write  // in the order of their first write; at most maxUnshown
	names  []string // of the informers that have shown the last object of the kind that was shown
	// unselected are the names of the informers that have not shown the last such object within
	// shownWithin: later ones do not count for them until they show one.
	unselected map[string]bool
}

// write is an object as the API server has returned it in response to a write.
type write struct {
	kind              schema.GroupVersionKind // lacks the group if it is not exact
	exact             bool
	namespace, object string
	uid               types.UID
	version           string
	at                time.Time
	missing           []string // names of informers that may still have to show it; "" is one without a name yet
	late              bool     // for longer than shownWithin
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
		k = &unshown{unselected: map[string]bool{}}
	}
	t.settle(k)
	t.look(k, &w)
	if len(t.kinds) < maxKinds && len(w.missing)+len(k.names) > 0 { // else there is no cache of it
		t.kinds[w.kind] = k
	}
	if len(w.missing) == 0 || t.kinds[w.kind] == nil {
		return
	}
	same := func(other write) bool {
		return other.namespace == w.namespace && other.object == w.object && other.uid == w.uid
	}
	if at := slices.IndexFunc(k.writes, same); at >= 0 {
		known := &k.writes[at]
		if higher(w.version, known.version) {
			known.version = w.version
		}
		if !known.late {
			return
		}
		w.version = known.version
		k.writes = slices.Delete(k.writes, at, at+1)
	}
	if len(k.writes) == maxUnshown {
		k.writes = slices.Delete(k.writes, 1, 2) // the oldest one shows whether informers select such objects
	}
	k.writes = append(k.writes, w)
}

// look finds out which informers of the kind have shown a write, and which may still have to.
func (t *WriteTracker) look(k *unshown, w *write) {
	late := time.Since(w.at) >= shownWithin
	var shown, passed, missing, learned []string
	for _, c := range t.caches.all() {
		shows := c.shows(w)
		if shows {
			c.learn(w)
		}
		switch name, known := c.name(); {
		case !known:
			missing = append(missing, "")
		case name == "":
		case shows:
			shown = append(shown, name)
		case !w.isOf(name) && !slices.Contains(k.names, name):
		case !higher(w.version, c.GetStore().LastStoreSyncResourceVersion()):
			// It shows a later state, in which the object has ended, or it does not select the object.
			passed = append(passed, name)
		case w.isOf(name):
			missing = append(missing, name)
		default:
			learned = append(learned, name)
		}
	}
	for _, name := range shown {
		raise(t.written, name, w.version)
		delete(k.unselected, name)
	}
	if len(shown) > 0 {
		k.names = shown
	} else {
		missing = append(missing, learned...)
	}
	if !late { // a bookmark may be what has passed a late one, and peers' bookmarks come later
		for _, name := range passed {
			raise(t.written, name, w.version)
		}
	}
	w.missing = slices.DeleteFunc(missing, func(name string) bool { return slices.Contains(shown, name) || slices.Contains(passed, name) })
	if late && !w.late {
		w.late = true
		for _, name := range w.missing {
			k.unselected[name] = true
		}
	}
}

func raise(watermarks claim.Watermarks, name, version string) {
	if higher(version, watermarks[name]) {
		watermarks[name] = version
	}
}

// settle notes what is known by now of the writes that were not shown. A late one does not count, but
// is remembered: an informer that was cut off may still show it.
func (t *WriteTracker) settle(k *unshown) {
	for i := range k.writes {
		t.look(k, &k.writes[i])
	}
	k.writes = slices.DeleteFunc(k.writes, func(w write) bool { return len(w.missing) == 0 })
}

// Watermarks returns how far this member has written, as far as it matters to a peer
// with the same informers. An object that an informer has neither shown nor passed within a second
// is one that it does not select; until the informer shows one again, none that is new to it counts.
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
			for _, name := range w.missing {
				if !w.late && !k.unselected[name] && live[name] {
					raise(watermarks, name, w.version)
				}
			}
		}
	}
	return watermarks
}
