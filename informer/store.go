// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"runtime"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
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

// A scan has the keys of the stored objects in the partitions that wait for their activation.
// All handlers and changes share one, because it takes a look at each stored object, or at its
// key. It only provides the keys: an object may have changed by the time that it is replayed.
type scan struct {
	number uint64 // counts the scans of an informer, from 1
	covers uint64 // it was begun after this many changes were posted
	found  []place
}

// A place is where an object was stored, and the point that it had.
type place struct {
	key   string
	point uint64
}

// scan returns a scan that was begun after the change with the number was posted, and that is not
// one of the first scans.
func (i *Informer) scan(number, first uint64) *scan {
	i.scanMu.Lock()
	defer i.scanMu.Unlock()
	if i.last != nil && i.last.covers >= number && i.last.number > first {
		return i.last
	}
	covers, waiting := i.waiting()
	begun := i.scans.Add(1) // objects that are stored from now on may be missing
	found, _ := i.find(func(point uint64) bool {
		return slices.ContainsFunc(waiting, func(set ring.Set) bool { return set.HasPoint(point) })
	})
	i.last = &scan{begun, covers, found}
	return i.last
}

// waiting returns the partitions that wait for their activation, in one set for each partition
// count, and the number of the last change.
func (i *Informer) waiting() (last uint64, sets []ring.Set) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, f := range i.filters {
		sets = f.changes.activations(sets)
	}
	return i.posted, sets
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

// find returns the stored objects whose points match, and the number of those without a point.
// It looks only at the keys, if that is enough: an object is seldom in the CPU caches.
func (i *Informer) find(match func(point uint64) bool) (found []place, unlocated int) {
	if keys := i.locatedKeys(); keys != nil {
		for batch := range slices.Chunk(keys, 64) {
			prefetch(batch)
			for _, key := range batch {
				if point := i.pointOfKey(key); match(point) {
					found = append(found, place{key, point})
				}
			}
		}
		return found, 0
	}
	for _, obj := range i.GetStore().List() {
		m, err := meta.Accessor(obj)
		if err != nil {
			unlocated++
		} else if point, err := i.pointOf(m); err != nil {
			unlocated++ // the stream has reported it
		} else if match(point) {
			found = append(found, place{i.keyOf(m), point})
		}
	}
	return found, unlocated
}

// prefetch loads keys into the CPU caches, which takes a third off the time of a look at the keys:
// the CPU waits for many of these reads at once, but for the hash of one key after the other.
func prefetch(keys []string) {
	var read byte
	for _, key := range keys {
		if key != "" {
			read |= key[0]
		}
	}
	runtime.KeepAlive(read) // so that the compiler does not remove the reads
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
	if i.keysChecked.Load() {
		return
	}
	for _, obj := range i.GetStore().List() {
		if m, err := meta.Accessor(obj); err != nil || i.stored(i.keyOf(m)) != nil {
			i.keysChecked.Store(true) // to list a large store for each deleted object would take minutes
			return
		}
	}
	if keys := i.GetStore().ListKeys(); len(keys) > 0 && i.keysChecked.CompareAndSwap(false, true) {
		i.misplaced.Store(true)
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
	_, unlocated := i.find(func(point uint64) bool {
		count[min(i.ownership.State(point), ring.Active)]++
		return false
	})
	count[ring.NotOwned] += unlocated
	return count
}
