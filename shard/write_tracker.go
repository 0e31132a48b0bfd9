// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/claim"
)

// shownWithin is the time in which an informer shows what was written, unless it does
// not select the object. Peers have the same informers and would wait in vain.
const shownWithin = time.Second

// maxKinds bounds the kinds that are remembered.
const maxKinds = 64

// written remembers how far the work of this member has written, by kind.
type writeTracker struct {
	mu     sync.Mutex
	byKind map[string]*kindWrites // guarded by mu
}

type kindWrites struct {
	// version is the highest that was written to an object that the own informer
	// selects: peers have the same informers, and theirs will show it.
	version string
	// fresh is the last object that was created and that the own informer has not
	// shown yet; nil if there is none.
	fresh *pendingCreate
	// unselected says that the informer did not show the last creation of which is
	// known whether it did: such objects are not waited for.
	unselected bool
}

// creation is an object that was created, and its highest version.
type pendingCreate struct {
	key     string
	version string
	at      time.Time
}

// answered is an object as the API server has answered a write with it.
type observedWrite struct {
	kind, namespace, name, version string
	created                        bool
}

// wrote notes a write that the API server has confirmed. Called by the transport.
func (s *Sharder) wrote(a observedWrite) {
	if !higher(a.version, "") {
		return // nobody could compare
	}
	known, may := false, false
	for _, c := range s.caches() {
		known = known || c.is(a.kind)
		may = may || c.mayBe(a.kind)
	}
	if !known && !may {
		return // nobody has a cache of it
	}
	key := cache.NewObjectName(a.namespace, a.name).String()
	w := &s.writes
	before := w.fresh()[a.kind].key
	stored, shown := s.stored(a.kind, key), s.stored(a.kind, before)
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.byKind[a.kind]
	if last == nil {
		if len(w.byKind) >= maxKinds {
			return
		}
		last = &kindWrites{}
		w.byKind[a.kind] = last
	}
	last.resolve(before, shown, now)
	switch {
	case stored:
		last.selects(a.version)
	case last.fresh != nil && !higher(a.version, last.fresh.version):
	case last.fresh != nil && last.fresh.key == key:
		last.fresh.version = a.version
	case a.created:
		last.fresh = &pendingCreate{key: key, version: a.version, at: now}
	}
	// Of an update the informer would hold the object, if it selected it.
}

// selects notes a write to an object that the informer selects.
func (l *kindWrites) selects(version string) {
	if higher(version, l.version) {
		l.version = version
	}
}

// resolve notes what is known by now of the last creation, if it was of that key.
func (l *kindWrites) resolve(key string, shown bool, now time.Time) {
	switch c := l.fresh; {
	case c == nil || c.key != key:
	case shown:
		l.selects(c.version)
		l.fresh, l.unselected = nil, false
	case now.Sub(c.at) >= shownWithin:
		l.fresh, l.unselected = nil, true
	}
}

// stored reports whether one of the informers of a kind holds an object.
func (s *Sharder) stored(kind, key string) bool {
	if key == "" {
		return false
	}
	for _, c := range s.cachesFor(kind) {
		if _, exists, _ := c.GetStore().GetByKey(key); exists {
			return true
		}
	}
	return false
}

// marks returns how far this member has written, as far as it matters to who has the
// same informers. A creation that the own informer has not shown within a second was
// of an object that it does not select; until one is shown again, none counts.
func (s *Sharder) watermarks() claim.Watermarks {
	now := time.Now()
	w := &s.writes
	// The informers are asked while no lock is held.
	fresh := w.fresh()
	copied, shown := map[string]bool{}, map[string]bool{}
	for kind, c := range fresh {
		copied[kind], shown[kind] = len(s.cachesFor(kind)) > 0, s.stored(kind, c.key)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	marks := claim.Watermarks{}
	for kind, last := range w.byKind {
		last.resolve(fresh[kind].key, shown[kind], now)
		version := last.version
		if c := last.fresh; c != nil && !last.unselected && higher(c.version, version) {
			version = c.version
		}
		if version != "" && copied[kind] {
			marks[kind] = version
		}
	}
	return marks
}

// fresh returns the creations that were not shown yet, by kind; the zero value for
// kinds without one.
func (w *writeTracker) fresh() map[string]pendingCreate {
	w.mu.Lock()
	defer w.mu.Unlock()
	fresh := map[string]pendingCreate{}
	for kind, last := range w.byKind {
		fresh[kind] = pendingCreate{}
		if last.fresh != nil {
			fresh[kind] = *last.fresh
		}
	}
	return fresh
}
