// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// stored returns the stored object of that key, or nil if there is none.
func (i *Informer) stored(key string) any {
	obj, exists, err := i.GetStore().GetByKey(key)
	if err != nil || !exists {
		return nil
	}
	return obj
}

// A scan is the list of the stored objects with their points. All handlers and changes that
// wait share one, because it takes a look at each stored object, or at its key. It only
// provides the keys: an object may have changed by the time that it is replayed.
type scan struct {
	number    uint64 // counts the scans of an informer, from 1
	covers    uint64 // it was begun after this many changes were posted
	points    []uint64
	key       func(at int) string // of the object with points[at]
	unlocated int                 // stored objects without a point
}

// scan returns a scan that was begun after the change with the number was posted, and that is not
// one of the first scans.
func (i *Informer) scan(number, first uint64) *scan {
	i.scanMu.Lock()
	defer i.scanMu.Unlock()
	if i.last != nil && i.last.covers >= number && i.last.number > first {
		return i.last
	}
	i.mu.Lock()
	covers := i.posted
	i.mu.Unlock()
	i.scans++
	i.last = i.newScan()
	i.last.number, i.last.covers = i.scans, covers
	return i.last
}

// scanned returns the number of scans so far.
func (i *Informer) scanned() uint64 {
	i.scanMu.Lock()
	defer i.scanMu.Unlock()
	return i.scans
}

// dropScan frees the last scan if no change waits for it.
func (i *Informer) dropScan() {
	i.mu.Lock()
	for _, f := range i.filters {
		if _, waiting := f.changes.first(); waiting {
			i.mu.Unlock()
			return
		}
	}
	i.mu.Unlock()
	i.scanMu.Lock()
	i.last = nil
	i.scanMu.Unlock()
}

// newScan looks at the keys, if that is enough: an object is seldom in the CPU caches.
func (i *Informer) newScan() *scan {
	if keys := i.locatedKeys(); keys != nil {
		s := &scan{points: make([]uint64, len(keys)), key: func(at int) string { return keys[at] }}
		for at, key := range keys {
			s.points[at] = i.pointOfKey(key)
		}
		return s
	}
	list := i.GetStore().List()
	objects := make([]metav1.Object, 0, len(list))
	s := &scan{points: make([]uint64, 0, len(list)), key: func(at int) string { return i.keyOf(objects[at]) }}
	for _, obj := range list {
		if m, err := meta.Accessor(obj); err == nil {
			if point, err := i.pointOf(m); err == nil {
				s.points, objects = append(s.points, point), append(objects, m)
			}
		} // else the stream has reported it
	}
	s.unlocated = len(list) - len(objects)
	return s
}

// locatedKeys returns the keys of the stored objects. It returns nil if their points must be
// determined from the objects: if there is no PointOfKey, or if it is wrong for the first object.
func (i *Informer) locatedKeys() []string {
	if i.pointOfKey == nil {
		return nil
	}
	keys := i.GetStore().ListKeys()
	for _, key := range keys {
		obj := i.stored(key)
		if obj == nil {
			continue // deleted in between
		}
		m, err := meta.Accessor(obj)
		if err != nil || i.keyOf(m) != key {
			return nil
		}
		if point, err := i.pointOf(m); err != nil || point != i.pointOfKey(key) {
			return nil
		}
		return keys
	}
	return nil
}

// checkKeys logs, once, if the store finds none of its objects by the key that this informer
// computes. Otherwise the object with the key was deleted.
func (i *Informer) checkKeys(key string) {
	if i.misplaced.Load() {
		return
	}
	for _, obj := range i.GetStore().List() {
		if m, err := meta.Accessor(obj); err != nil || i.stored(i.keyOf(m)) != nil {
			return
		}
	}
	if keys := i.GetStore().ListKeys(); len(keys) > 0 && i.misplaced.CompareAndSwap(false, true) {
		klog.Background().Error(nil, "The keys of the store are not those of StoreKey (by default namespace/name), so no object is replayed: set StoreKey to the function that the store uses", "computed", key, "stored", keys[0])
	}
}

// Objects counts the stored objects by what this member may do with them, indexed by
// ring.State. Objects without a point count as not owned. It takes a look at each stored
// object, or at its key; see [Options.PointOfKey]. An unfiltered informer counts none: their
// points need not be those of the work on them.
func (i *Informer) Objects() (count [ring.Active + 1]int) {
	if i.unfiltered {
		return count
	}
	s := i.newScan()
	count[ring.NotOwned] = s.unlocated
	for _, point := range s.points {
		count[min(i.ownership.State(point), ring.Active)]++
	}
	return count
}
