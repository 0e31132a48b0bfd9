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
type written struct {
	mu     sync.Mutex
	byKind map[string]*lastWrite // guarded by mu
}

type lastWrite struct {
	version string    // the highest
	at      time.Time // when it was answered
	created time.Time // when the creation of an object was last answered
}

// answered is an object as the API server has answered a write with it.
type answered struct {
	kind, namespace, name, version string
	created                        bool
}

// wrote notes a write that the API server has confirmed. Called by the transport.
func (s *Sharder) wrote(a answered) {
	known, may := false, false
	stored := false
	for _, c := range s.copies() {
		if c.is(a.kind) {
			known = true
			_, exists, _ := c.GetStore().GetByKey(cache.NewObjectName(a.namespace, a.name).String())
			stored = stored || exists
		} else {
			may = may || c.mayBe(a.kind)
		}
	}
	if !known && !may || !higher(a.version, "") {
		return // nobody has a cache of it, or nobody could compare
	}
	now := time.Now()
	w := &s.written
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.byKind[a.kind]
	if last == nil {
		if len(w.byKind) >= maxKinds {
			return
		}
		last = &lastWrite{}
		w.byKind[a.kind] = last
	}
	if a.created {
		last.created = now
	} else if known && !stored && now.Sub(last.created) >= shownWithin {
		return // the informer does not select it, or would hold it
	}
	if higher(a.version, last.version) {
		last.version, last.at = a.version, now
	}
}

// all returns a copy.
func (w *written) all() map[string]lastWrite {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make(map[string]lastWrite, len(w.byKind))
	for kind, last := range w.byKind {
		all[kind] = *last
	}
	return all
}

// marks returns how far this member has written, as far as it matters to who has the
// same informers. What the own informer has not shown in the time that it has for it
// was of an object that it does not select; then what it has shown last counts,
// which is above all that was written before and selected.
func (s *Sharder) marks() claim.Marks {
	now := time.Now()
	lasts := s.written.all()
	marks := claim.Marks{}
	for kind, last := range lasts {
		copies := s.copiesOf(kind)
		if len(copies) == 0 {
			continue
		}
		version := last.version
		if now.Sub(last.at) >= shownWithin {
			if own := shown(copies); !higher(own, version) {
				version = own
			}
		}
		if version != "" {
			marks[kind] = version
		}
	}
	return marks
}
