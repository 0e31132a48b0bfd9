// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
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
	id    id
	point uint64
	seq   uint64 // numbers the deletions of an informer, from 1
	// meta is the object's metadata without managedFields, or at least its UID and version.
	meta metav1.ObjectMeta
	// obj is the object's type, a reflect.Type, if meta holds all of its metadata. Otherwise it
	// is what is kept of the object (see slim), or missing.
	obj any

	previous *tombstone // the deletion of an earlier object with the same id
	returned bool       // the object exists again; guarded by deletions.mu
	expired  bool       // it is not in deletions any more; guarded by deletions.mu
}

// missing is the key in the store of an object of which nothing else is known.
type missing string

// version returns the last known version of the object; the zero value if it is not known.
func (t *tombstone) version() version { return versionOf(&t.meta) }

// A generation holds the deletions of a part of the window. Deletions are forgotten by
// generation, so that remembering one needs neither the time nor an allocation.
type generation struct {
	began, ended time.Time     // ended is zero for the last one
	chunks       [][]tombstone // tombstones do not move
	n            int
}

const (
	generations = 4   // in a window, and one more that is being filled
	chunkSize   = 128 // tombstones in a full chunk
)

// deletions are the remembered deletions of an informer. They are remembered for at least the
// window, unless there are more than limit: then only the last three quarters of the limit
// are certain to be remembered.
type deletions struct {
	window time.Duration // negative: nothing is remembered
	limit  int

	mu    sync.Mutex // may be locked with a filter's mutex held
	live  []*generation
	last  map[id]*tombstone // the last deletion of each object
	peak  int               // the size that last has had
	n     int               // in all live generations
	seq   uint64            // of the last one
	early bool              // a generation was forgotten within the window; see takeEarly
}

// remember records a deletion, or returns the tombstone that another handler's event has
// already recorded. It returns nil if deletions are not remembered.
func (ds *deletions) remember(s *located) *tombstone {
	if ds.window < 0 || s.err != nil {
		return nil
	}
	var of version
	if s.meta != nil {
		of = versionOf(s.meta)
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	for t := ds.last[s.id]; t != nil; t = t.previous {
		if t.version() == of && !t.returned {
			return t
		}
	}
	ds.seq++
	t := ds.next()
	t.id, t.point, t.seq, t.previous = s.id, s.point, ds.seq, ds.last[s.id]
	if s.meta != nil {
		t.meta.UID, t.meta.ResourceVersion = of.uid, of.version
		t.slim(s.obj)
	} else {
		t.obj = missing(s.key)
	}
	if ds.last == nil {
		ds.last = map[id]*tombstone{}
	}
	ds.last[s.id] = t
	ds.peak = max(ds.peak, len(ds.last))
	return t
}

// next returns the place for a new tombstone, which is the zero value.
func (ds *deletions) next() *tombstone {
	if len(ds.live) == 0 || ds.live[len(ds.live)-1].n >= max(1, ds.limit/generations) {
		ds.rotate(time.Now())
	}
	g := ds.live[len(ds.live)-1]
	last := len(g.chunks) - 1
	if last < 0 {
		g.chunks, last = append(g.chunks, make([]tombstone, 0, 4)), 0
	} else if size := cap(g.chunks[last]); len(g.chunks[last]) == size {
		g.chunks, last = append(g.chunks, make([]tombstone, 0, min(chunkSize, 2*size))), last+1
	}
	at := len(g.chunks[last])
	g.chunks[last] = g.chunks[last][:at+1]
	g.n++
	ds.n++
	return &g.chunks[last][at]
}

// expire forgets what is outside the window.
func (ds *deletions) expire(now time.Time) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if len(ds.live) == 0 {
		return
	}
	if last := ds.live[len(ds.live)-1]; last.n > 0 && now.Sub(last.began) >= ds.window/generations {
		ds.rotate(now)
		return
	}
	ds.forget(now)
}

// rotate begins a new generation.
func (ds *deletions) rotate(now time.Time) {
	if n := len(ds.live); n > 0 {
		ds.live[n-1].ended = now
	}
	ds.live = append(ds.live, &generation{began: now})
	ds.forget(now)
}

// forget forgets the generations that ended before the window, and those above the limit.
func (ds *deletions) forget(now time.Time) {
	for len(ds.live) > 0 {
		oldest := ds.live[0]
		old := !oldest.ended.IsZero() && now.Sub(oldest.ended) > ds.window
		if !old && ds.n <= ds.limit-ds.limit/generations {
			break
		}
		if !old && oldest.ended.IsZero() {
			break // it is the only one
		}
		ds.early = ds.early || !old
		ds.live = ds.live[1:]
		ds.n -= oldest.n
		for _, chunk := range oldest.chunks {
			for at := range chunk {
				ds.unlink(&chunk[at])
			}
		}
	}
	if ds.peak > 1024 && len(ds.last) < ds.peak/4 {
		ds.last, ds.peak = shrunk(ds.last), len(ds.last)
	}
}

// unlink removes the oldest deletion of an object. All older ones have been removed.
func (ds *deletions) unlink(t *tombstone) {
	t.expired = true
	t.previous = nil
	last := ds.last[t.id]
	if last == t {
		delete(ds.last, t.id)
		return
	}
	for ; last != nil; last = last.previous {
		if last.previous == t {
			last.previous = nil
		}
	}
}

// takeEarly reports whether deletions were forgotten within the window since the last call.
func (ds *deletions) takeEarly() (early bool) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	early, ds.early = ds.early, false
	return early
}

// snapshot returns the live generations, so that a change can still deliver them when they
// have been forgotten otherwise.
func (ds *deletions) snapshot() []*generation {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return append([]*generation(nil), ds.live...)
}

// in returns the deletions in the partitions, in their order: those that are live, or were
// live when the snapshot was taken.
func (ds *deletions) in(set ring.Set, snapshot []*generation) (found []*tombstone) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(snapshot), func(g *generation) bool { return slices.Contains(ds.live, g) })
	for _, g := range append(all, ds.live...) {
		for _, chunk := range g.chunks {
			for at := range chunk {
				if t := &chunk[at]; !t.returned && set.HasPoint(t.point) {
					found = append(found, t)
				}
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
	for t := ds.last[id]; t != nil; t = t.previous {
		switch {
		case t.returned:
		case differ(t.meta.UID, uid):
			others = append([]*tombstone{t}, others...)
		default:
			same = append([]*tombstone{t}, same...)
		}
	}
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
	return ds.seq
}

// count returns the number of remembered deletions.
func (ds *deletions) count() int {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return ds.n
}

// slim makes the tombstone hold the object's metadata. An object whose metadata cannot be
// separated, because its type holds no ObjectMeta, is kept as it is, except that
// an unstructured object is cut down to its metadata.
func (t *tombstone) slim(obj any) {
	switch o := obj.(type) {
	case *metav1.PartialObjectMetadata: // needs its kind, too
		t.obj = o
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
