// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package cachesync

import (
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

// shownWithin is the time in which an informer shows what was written, unless it does
// not select the object. Peers have the same informers and would wait in vain.
const shownWithin = time.Second

// maxKinds bounds the kinds that are remembered.
const maxKinds = 64

// WriteTracker remembers how far the work of this member has written, by kind. Any
// goroutine may call its methods.
type WriteTracker struct {
	caches *Caches

	mu     sync.Mutex
	byKind map[string]*kindWrites // guarded by mu
}

// NewWriteTracker returns a tracker for a member that has these caches.
func NewWriteTracker(c *Caches) *WriteTracker {
	return &WriteTracker{caches: c, byKind: map[string]*kindWrites{}}
}

// kindWrites are the writes to objects of one kind.
type kindWrites struct {
	// version is the highest that was written to an object that this member's informer
	// selects: peers have the same informers, and theirs will show it.
	version string
	// pending is the last object that was created and that this member's informer has not
	// shown yet; nil if there is none.
	pending *pendingCreate
	// unselected says that the informer did not show the last creation whose outcome is
	// known: such objects are not waited for.
	unselected bool
}

// pendingCreate is an object that was created, and its highest version.
type pendingCreate struct {
	key     string
	version string
	at      time.Time
}

// observedWrite is an object as the API server has returned it in response to a write.
type observedWrite struct {
	kind, namespace, name, version string
	created                        bool
}

// note notes a write that the API server has confirmed.
func (t *WriteTracker) note(w observedWrite) {
	if !higher(w.version, "") {
		return // no peer could compare it
	}
	may := false
	for _, c := range t.caches.all() {
		may = may || c.mayBe(w.kind)
	}
	if !may {
		return // no cache of it
	}
	key := cache.NewObjectName(w.namespace, w.name).String()
	before := t.pending()[w.kind].key
	held, shown := t.caches.holds(w.kind, key), t.caches.holds(w.kind, before)
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	last := t.byKind[w.kind]
	if last == nil {
		if len(t.byKind) >= maxKinds {
			return
		}
		last = &kindWrites{}
		t.byKind[w.kind] = last
	}
	last.resolve(before, shown, now)
	switch {
	case held:
		last.selects(w.version)
	case last.pending != nil && !higher(w.version, last.pending.version):
	case last.pending != nil && last.pending.key == key:
		last.pending.version = w.version
	case w.created:
		last.pending = &pendingCreate{key: key, version: w.version, at: now}
	}
	// If this was an update, the informer would hold the object if it selected it.
}

// selects notes a write to an object that the informer selects.
func (k *kindWrites) selects(version string) {
	if higher(version, k.version) {
		k.version = version
	}
}

// resolve notes what is known by now of the last creation, if it was of that key.
func (k *kindWrites) resolve(key string, shown bool, now time.Time) {
	switch c := k.pending; {
	case c == nil || c.key != key:
	case shown:
		k.selects(c.version)
		k.pending, k.unselected = nil, false
	case now.Sub(c.at) >= shownWithin:
		k.pending, k.unselected = nil, true
	}
}

// Watermarks returns how far this member has written, as far as it matters to a peer
// with the same informers. A creation that this member's informer has not shown within a
// second was of an object that it does not select; until it shows one again, none counts.
func (t *WriteTracker) Watermarks() claim.Watermarks {
	now := time.Now()
	// The informers are asked while no lock is held.
	pending := t.pending()
	cached, shown := map[string]bool{}, map[string]bool{}
	for kind, c := range pending {
		cached[kind], shown[kind] = len(t.caches.cachesFor(kind)) > 0, t.caches.holds(kind, c.key)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	watermarks := claim.Watermarks{}
	for kind, last := range t.byKind {
		last.resolve(pending[kind].key, shown[kind], now)
		version := last.version
		if c := last.pending; c != nil && !last.unselected && higher(c.version, version) {
			version = c.version
		}
		if version != "" && cached[kind] {
			watermarks[kind] = version
		}
	}
	return watermarks
}

// pending returns the creations that were not shown yet, by kind; the zero value for
// kinds without one.
func (t *WriteTracker) pending() map[string]pendingCreate {
	t.mu.Lock()
	defer t.mu.Unlock()
	pending := map[string]pendingCreate{}
	for kind, last := range t.byKind {
		pending[kind] = pendingCreate{}
		if last.pending != nil {
			pending[kind] = *last.pending
		}
	}
	return pending
}
