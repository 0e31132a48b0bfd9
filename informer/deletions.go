// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// A deletion that was seen is remembered whether or not the handler was told: work
// that a handler was told of can still be dropped with its partition, and the
// partition can come back from a member that never got to it.
type deletion struct {
	name  cache.ObjectName
	uid   types.UID // of the object that was deleted
	obj   any       // what OnDelete gets: the object, or a cache.DeletedFinalStateUnknown
	point uint64
	at    time.Time
	seq   uint64 // in the order in which they were seen
	told  bool   // the handler was told, and its partition was not released since
}

// deletions are those of one handler, guarded by the filter's mutex.
type deletions struct {
	window time.Duration // less than zero: nothing is remembered
	byName map[cache.ObjectName][]*deletion
	swept  time.Time
	seq    uint64 // of the last one
}

// remember adds a deletion and, now and then, forgets those that no activation at
// or after oldest will want.
func (ds *deletions) remember(d *deletion, oldest time.Time) {
	if ds.window < 0 {
		return
	}
	if d.at.Sub(ds.swept) > ds.window {
		ds.sweep(d.at, oldest)
	}
	if ds.byName == nil {
		ds.byName = map[cache.ObjectName][]*deletion{}
	}
	ds.seq++
	d.seq = ds.seq
	ds.byName[d.name] = append(ds.byName[d.name], d)
}

// sweep forgets what had left the window at the time of the oldest activation that
// is still to be worked off.
func (ds *deletions) sweep(now, oldest time.Time) {
	ds.swept = now
	for name, of := range ds.byName {
		ds.keep(name, slices.DeleteFunc(of, func(d *deletion) bool { return oldest.Sub(d.at) > ds.window }))
	}
}

func (ds *deletions) keep(name cache.ObjectName, of []*deletion) {
	if len(of) == 0 {
		delete(ds.byName, name)
	} else {
		ds.byName[name] = of
	}
}

// cameBack forgets the deletions of a name that were none: a watch by selector
// reports an object that leaves the selection as deleted, and it may return.
// Without UIDs (fakes have none) objects of one name can't be told apart.
func (ds *deletions) cameBack(name cache.ObjectName, uid types.UID) {
	if of := ds.byName[name]; len(of) > 0 {
		ds.keep(name, slices.DeleteFunc(of, func(d *deletion) bool { return !differ(d.uid, uid) }))
	}
}

// untold returns the deletions that the handler was not told of and that happened
// in the window before the given time, in their order.
func (ds *deletions) untold(set ring.Set, before time.Time) []*deletion {
	var found []*deletion
	for _, of := range ds.byName {
		for _, d := range of {
			if ds.due(d, before) && set.HasPoint(d.point) {
				found = append(found, d)
			}
		}
	}
	slices.SortFunc(found, func(a, b *deletion) int { return cmp.Compare(a.seq, b.seq) })
	return found
}

func (ds *deletions) due(d *deletion, at time.Time) bool {
	return !d.told && at.Sub(d.at) <= ds.window
}

// released makes the handler hear of deletions again should it get the partitions
// back: what it was told may have been dropped with them.
func (ds *deletions) released(set ring.Set) {
	for _, of := range ds.byName {
		for _, d := range of {
			if set.HasPoint(d.point) {
				d.told = false
			}
		}
	}
}

// differ reports whether two UIDs are known to be those of two objects.
func differ(a, b types.UID) bool { return a != b && a != "" && b != "" }
