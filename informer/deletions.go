// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// A tombstone is a remembered deletion. It is remembered whether or not it was delivered to a
// handler: the work that a deletion causes can still wait in a queue when its partition is
// handed over, and then it is dropped with the partition. All handlers of an informer share
// one tombstone of a deletion.
//
// It holds the object's metadata and not the object, which may be a hundred times as large.
type tombstone struct {
	deletion
	id id
	// meta is the object's metadata without managedFields, or at least its UID and version.
	meta metav1.ObjectMeta
	// obj is the object's type, a reflect.Type, if meta holds all of its metadata. Otherwise it
	// is what is kept of the object (see slim), or missing.
	obj any

	previous uint64 // the number of the deletion of an earlier object with the same id
	returned bool   // the object exists again; guarded by deletions.mu
}

// A deletion identifies a tombstone. The zero value identifies none.
type deletion struct {
	seq   uint64 // numbers the deletions of an informer, from 1
	point uint64 // of the object
}

// missing is the key in the store of an object of which nothing else is known.
type missing string

// version returns the last known version of the object; the zero value if it is not known.
func (t *tombstone) version() version { return versionOf(&t.meta) }

// A history holds the tombstones of successive deletions: those after the one with the number
// after, until the one with the number last.
type history struct {
	after, last uint64
	blocks      []*block // tombstones do not move
}

const blockSize uint64 = 64

// A block is reused when all its tombstones were forgotten, unless it is shared.
type block struct {
	tombstones [blockSize]tombstone
	shared     bool // there may be pointers to it outside the critical sections of deletions.mu
}

// skipped returns the number of blocks before the first one.
func (h *history) skipped() uint64 { return h.after / blockSize }

// block returns the block of a deletion in the history.
func (h *history) block(seq uint64) *block { return h.blocks[(seq-1)/blockSize-h.skipped()] }

// at returns the tombstone of a deletion in the history. It is valid until mu is unlocked.
func (h *history) at(seq uint64) *tombstone {
	return &h.block(seq).tombstones[(seq-1)%blockSize]
}

// share returns the tombstone of a deletion in the history. It stays valid.
func (h *history) share(seq uint64) *tombstone {
	h.block(seq).shared = true
	return h.at(seq)
}

// A generation is a part of the window. Deletions are forgotten by generation, so that
// remembering one does not need the time.
type generation struct {
	began, ended time.Time // ended is zero for the last one
	after        uint64    // the last deletion before it
}

const generations = 4 // in a window, and one more that is being filled

// deletions are the remembered deletions of an informer. They are remembered for at least the
// window, unless there are more than limit: then only the last three quarters of the limit
// are certain to be remembered.
type deletions struct {
	window time.Duration // negative: nothing is remembered
	limit  int

	mu sync.Mutex // may be locked with a filter's mutex held
	history
	live   []generation
	latest map[id]uint64 // the number of the last deletion of each object
	peak   int           // the size that latest has had
	free   []*block      // to be reused
	early  bool          // a generation was forgotten within the window; see takeEarly
}

// remember records a deletion, unless another handler's event has already recorded it. It
// returns the zero value if deletions are not remembered.
func (ds *deletions) remember(s *located) deletion {
	if ds.window < 0 || s.err != nil {
		return deletion{}
	}
	var of version
	if s.meta != nil {
		of = versionOf(s.meta)
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	previous := ds.latest[s.id]
	for seq := previous; seq > ds.after; {
		t := ds.at(seq)
		if t.version() == of && !t.returned {
			return t.deletion
		}
		seq = t.previous
	}
	t := ds.next()
	t.id, t.point, t.previous = s.id, s.point, previous
	if s.meta != nil {
		t.meta.UID, t.meta.ResourceVersion = of.uid, of.version
		t.slim(s.obj)
	} else {
		t.obj = missing(s.key)
	}
	if ds.latest == nil {
		ds.latest = map[id]uint64{}
	}
	ds.latest[s.id] = t.seq
	ds.peak = max(ds.peak, len(ds.latest))
	return t.deletion
}

// next returns a new tombstone, of which only the number is set.
func (ds *deletions) next() *tombstone {
	if len(ds.live) == 0 || int(ds.last-ds.live[len(ds.live)-1].after) >= max(1, ds.limit/generations) {
		ds.rotate(time.Now())
	}
	ds.last++
	if (ds.last-1)/blockSize-ds.skipped() == uint64(len(ds.blocks)) {
		if n := len(ds.free); n > 0 {
			ds.blocks, ds.free = append(ds.blocks, ds.free[n-1]), ds.free[:n-1]
		} else {
			ds.blocks = append(ds.blocks, &block{})
		}
	}
	t := ds.at(ds.last)
	t.seq = ds.last
	return t
}

// expire forgets what is outside the window.
func (ds *deletions) expire(now time.Time) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if len(ds.live) == 0 {
		return
	}
	if last := ds.live[len(ds.live)-1]; ds.last > last.after && now.Sub(last.began) >= ds.window/generations {
		ds.rotate(now)
		return
	}
	if ds.forget(now); ds.last == ds.after {
		ds.blocks, ds.free = nil, nil
	}
}

// rotate begins a new generation.
func (ds *deletions) rotate(now time.Time) {
	if n := len(ds.live); n > 0 {
		ds.live[n-1].ended = now
	}
	ds.live = append(ds.live, generation{began: now, after: ds.last})
	ds.forget(now)
}

// forget forgets the generations that ended before the window, and those above the limit.
func (ds *deletions) forget(now time.Time) {
	after := ds.after
	for len(ds.live) > 1 { // the last one has not ended
		old := now.Sub(ds.live[0].ended) > ds.window
		if !old && int(ds.last-after) <= ds.limit-ds.limit/generations {
			break
		}
		ds.early = ds.early || !old
		ds.live = ds.live[1:]
		after = ds.live[0].after
	}
	if after == ds.after {
		return
	}
	skipped := ds.skipped()
	ds.after = after
	unused := ds.blocks[:ds.skipped()-skipped]
	ds.free = nil // at most the size of one generation
	for _, b := range unused {
		if !b.shared {
			*b = block{}
			ds.free = append(ds.free, b)
		}
	}
	ds.blocks = slices.Delete(ds.blocks, 0, len(unused))
	maps.DeleteFunc(ds.latest, func(_ id, seq uint64) bool { return seq <= after })
	if ds.peak > 1024 && len(ds.latest) < ds.peak/4 {
		ds.latest, ds.peak = shrunk(ds.latest), len(ds.latest)
	}
}

// takeEarly reports whether deletions were forgotten within the window since the last call.
func (ds *deletions) takeEarly() (early bool) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	early, ds.early = ds.early, false
	return early
}

// snapshot returns the remembered deletions, so that a change can still deliver them when they
// have been forgotten otherwise.
func (ds *deletions) snapshot() history {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	h := ds.history
	h.blocks = slices.Clone(h.blocks)
	for _, b := range h.blocks {
		b.shared = true
	}
	return h
}

// in returns the deletions in the partitions, in their order: those that are remembered, or
// were when the snapshot was taken.
func (ds *deletions) in(set ring.Set, snapshot history) (found []*tombstone) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	snapshot.last = min(snapshot.last, ds.after)
	for _, h := range []*history{&snapshot, &ds.history} {
		for seq := h.after + 1; seq <= h.last; seq++ {
			if t := h.at(seq); !t.returned && set.HasPoint(t.point) {
				found = append(found, h.share(seq))
			}
		}
	}
	return found
}

// of returns the deletions of objects with an id, in their order: those of the object with the
// given UID, and those of others. Without UIDs (fakes have none) objects of one name cannot be
// distinguished.
func (ds *deletions) of(id id, uid types.UID) (same, others []*tombstone) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	for seq := ds.latest[id]; seq > ds.after; {
		t := ds.at(seq)
		switch {
		case t.returned:
		case differ(t.meta.UID, uid):
			others = append(others, ds.share(seq))
		default:
			same = append(same, ds.share(seq))
		}
		seq = t.previous
	}
	slices.Reverse(same)
	slices.Reverse(others)
	return same, others
}

// back records that the object exists again.
func (ds *deletions) back(ts ...*tombstone) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	for _, t := range ts {
		t.returned = true
	}
}

// isBack reports whether the object exists again.
func (ds *deletions) isBack(t *tombstone) bool {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return t.returned
}

// number returns the number of the last deletion.
func (ds *deletions) number() uint64 {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return ds.last
}

// forgotten returns the number of the last deletion that was forgotten.
func (ds *deletions) forgotten() uint64 {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return ds.after
}

// count returns the number of remembered deletions.
func (ds *deletions) count() int {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return int(ds.last - ds.after)
}

// slim makes the tombstone hold the object's metadata. An object whose metadata cannot be
// separated, because its type holds no ObjectMeta, is kept as it is, except that
// an unstructured object is cut down to its metadata.
func (t *tombstone) slim(obj any) {
	switch o := obj.(type) {
	case *metav1.PartialObjectMetadata: // needs its kind, too
		slim := *o
		slim.ManagedFields = nil
		t.obj = &slim
		return
	case *unstructured.Unstructured:
		slim := &unstructured.Unstructured{Object: map[string]any{}}
		for _, field := range []string{"apiVersion", "kind"} {
			if value, ok := o.Object[field]; ok {
				slim.Object[field] = value
			}
		}
		if fields, ok := o.Object["metadata"].(map[string]any); ok {
			copied := make(map[string]any, len(fields))
			for name, value := range fields {
				if name != "managedFields" {
					copied[name] = value
				}
			}
			slim.Object["metadata"] = copied
		}
		t.obj = slim
		return
	}
	if m := objectMeta(obj); m != nil && holds(obj, m) {
		t.meta, t.obj = *m, reflect.TypeOf(obj)
		t.meta.ManagedFields = nil
		return
	}
	t.obj = obj
}

// holds reports whether the metadata is in the object itself. If it is behind a pointer, because the type
// embeds a pointer to an API type, a new object of the type has none.
func holds(obj any, m *metav1.ObjectMeta) bool {
	o := reflect.ValueOf(obj)
	return o.Kind() == reflect.Pointer && reflect.ValueOf(m).Pointer()-o.Pointer() < o.Type().Elem().Size()
}

// objectMeta returns the ObjectMeta of a typed API object, nil if it has none.
func objectMeta(obj any) *metav1.ObjectMeta {
	accessor, ok := obj.(metav1.ObjectMetaAccessor)
	if !ok {
		return nil
	}
	if _, ok := obj.(runtime.Object); !ok {
		return nil
	}
	m, _ := accessor.GetObjectMeta().(*metav1.ObjectMeta)
	return m
}

// deleted returns OnDelete's argument for a replayed deletion: the object's last known
// metadata in an object of its type.
func (i *Informer) deleted(t *tombstone) cache.DeletedFinalStateUnknown {
	obj := t.obj
	switch o := obj.(type) {
	case missing:
		return cache.DeletedFinalStateUnknown{Key: string(o)}
	case reflect.Type:
		obj = reflect.New(o.Elem()).Interface()
		if m := objectMeta(obj); m != nil {
			*m = t.meta
		}
	}
	unknown := cache.DeletedFinalStateUnknown{Obj: obj}
	if m, ok := obj.(metav1.Object); ok {
		unknown.Key = i.keyOf(m)
	}
	return unknown
}

// differ reports whether two UIDs are known to belong to two different objects.
func differ(a, b types.UID) bool { return a != b && a != "" && b != "" }

// shrunk returns a map with the same content. A map itself never becomes smaller.
func shrunk[V any](m map[id]V) map[id]V {
	small := make(map[id]V, len(m))
	for key, value := range m {
		small[key] = value
	}
	return small
}
