// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"reflect"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/tom-ludwig/operator-scaling/informer"
	"github.com/tom-ludwig/operator-scaling/shard/claim"
)

// catchUpPeriod is the time between two looks at the informers while a mark is
// awaited that they have not reached.
const catchUpPeriod = 5 * time.Millisecond

// copied is a sharded informer as a copy of the objects of one kind.
type kindCache struct {
	*informer.Informer
	kind atomic.Pointer[string] // nil: not known yet; "": can't be told
}

func newCopied(i *informer.Informer, kind string) *kindCache {
	c := &kindCache{Informer: i}
	if kind != "" {
		c.kind.Store(&kind)
	}
	return c
}

// kindOf returns the kind of an object. The Go type of a typed one is named for it:
// by that rule schemes register their types. It returns "" if it can't be told.
func kindOf(obj any) string {
	switch o := obj.(type) {
	case nil:
		return ""
	case *metav1.PartialObjectMetadata:
		if o.Kind == "PartialObjectMetadata" {
			return ""
		}
		return o.Kind
	case runtime.Unstructured:
		return o.GetObjectKind().GroupVersionKind().Kind
	}
	t := reflect.TypeOf(obj)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Name()
}

// is reports whether the informer holds objects of a kind. Where nobody has said
// which kind it is, the first object that it holds tells.
func (c *kindCache) is(kind string) bool {
	known := c.kind.Load()
	if known == nil {
		objects := c.GetStore().List()
		if len(objects) == 0 {
			return false
		}
		first := kindOf(objects[0])
		known = &first
		c.kind.Store(known)
	}
	return *known == kind
}

// mayBe is is, but for an informer of which nobody knows the kind yet.
func (c *kindCache) mayBe(kind string) bool { return c.is(kind) || c.kind.Load() == nil }

// copiesOf returns the informers that hold objects of a kind.
func (s *Sharder) cachesFor(kind string) (of []*kindCache) {
	for _, c := range s.caches() {
		if c.is(kind) {
			of = append(of, c)
		}
	}
	return of
}

// reached returns those of the marks that the stores of the sharded informers have
// come to. The store, which listers and handlers read, says itself up to which version it
// has taken in what the watch showed; the reflector is ahead of it.
func (s *Sharder) reached(marks claim.Watermarks) claim.Watermarks {
	reached := claim.Watermarks{}
	for kind, version := range marks {
		if hasReached(s.cachesFor(kind), version) {
			reached[kind] = version
		}
	}
	return reached
}

// hasReached is true where there is nothing to wait for: no informer of the kind, or
// one whose versions can't be compared. Of several informers of one kind, which
// hold different parts of the objects, one is enough: the others may be shown nothing.
func hasReached(copies []*kindCache, version string) bool {
	for _, c := range copies {
		if !c.HasSynced() {
			continue
		}
		if order, err := resourceversion.CompareResourceVersion(c.GetStore().LastStoreSyncResourceVersion(), version); err != nil || order >= 0 {
			return true
		}
	}
	return len(copies) == 0
}

// shown returns the highest version that one of the informers has come to, "" if
// none can be compared.
func shown(copies []*kindCache) (highest string) {
	for _, c := range copies {
		if v := c.GetStore().LastStoreSyncResourceVersion(); higher(v, highest) {
			highest = v
		}
	}
	return highest
}

// higher reports whether a is above b, which may be "" for none. What can't be
// compared is not.
func higher(a, b string) bool {
	if b == "" {
		b = "1"
		if a == b {
			return true
		}
	}
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && order > 0
}

// catchUp tells the machine which of the marks that it awaits the informers have
// reached, and sees to it that the loop looks again soon if there are others.
func (l *loop) catchUp() {
	l.catching = false
	if l.ended != nil {
		return
	}
	awaited := l.machine.PendingWatermarks()
	if awaited == nil {
		return
	}
	reached := l.s.reached(awaited)
	l.catching = len(reached) < len(awaited)
	if len(reached) > 0 {
		l.step(claim.WatermarksReached{Watermarks: reached})
	}
}

// tellBehind says with which caches partitions became active that have waited for them
// in vain.
func (l *loop) logCacheLag(partitions uint64) {
	logger := l.logger.V(2)
	if !logger.Enabled() {
		return
	}
	lagging := l.machine.UnreachedWatermarks()
	have := claim.Watermarks{}
	for kind := range lagging {
		have[kind] = shown(l.s.cachesFor(kind))
	}
	logger.Info("Activated partitions although the caches have not reached what their former owners wrote", "member", l.holder,
		"partitions", partitions, "watermarks", lagging, "cached", have)
}
