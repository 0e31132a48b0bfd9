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

// A deletion is remembered whether or not it was delivered to the handler. The work that a
// delivered deletion causes can still be dropped together with its partition, and the
// partition can come back from a member that never did that work.
type deletion struct {
	name  cache.ObjectName
	uid   types.UID // of the object that was deleted
	obj   any       // OnDelete's argument: the object, or a cache.DeletedFinalStateUnknown
	point uint64
	at    time.Time
	seq   uint64 // the order in which the deletions were observed
	// delivered: it was delivered to the handler, and its partition was not released since.
	delivered bool
}

// deletions holds the remembered deletions of one handler. The filter's mutex guards it.
type deletions struct {
	window time.Duration // negative: nothing is remembered
	byName map[cache.ObjectName][]*deletion
	swept  time.Time
	seq    uint64 // of the last one
}

// remember adds a deletion and, from time to time, forgets those that no activation at or
// after oldest needs.
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

// sweep forgets the deletions that were outside the window at the time of the oldest
// activation that is still to be processed.
func (ds *deletions) sweep(now, oldest time.Time) {
	ds.swept = now
	for name, list := range ds.byName {
		ds.keep(name, slices.DeleteFunc(list, func(d *deletion) bool { return oldest.Sub(d.at) > ds.window }))
	}
}

func (ds *deletions) keep(name cache.ObjectName, list []*deletion) {
	if len(list) == 0 {
		delete(ds.byName, name)
	} else {
		ds.byName[name] = list
	}
}

// forgetReturned forgets the apparent deletions of an object that exists again: a watch with
// a selector reports an object that no longer matches as deleted, and it may match again
// later. Without UIDs (fakes have none) objects of one name cannot be distinguished.
func (ds *deletions) forgetReturned(name cache.ObjectName, uid types.UID) {
	if list := ds.byName[name]; len(list) > 0 {
		ds.keep(name, slices.DeleteFunc(list, func(d *deletion) bool { return !differ(d.uid, uid) }))
	}
}

// undelivered returns, in their order, the deletions that were not delivered to the handler
// and that happened in the window before the given time.
func (ds *deletions) undelivered(set ring.Set, before time.Time) []*deletion {
	var found []*deletion
	for _, list := range ds.byName {
		for _, d := range list {
			if ds.due(d, before) && set.HasPoint(d.point) {
				found = append(found, d)
			}
		}
	}
	slices.SortFunc(found, func(a, b *deletion) int { return cmp.Compare(a.seq, b.seq) })
	return found
}

func (ds *deletions) due(d *deletion, at time.Time) bool {
	return !d.delivered && at.Sub(d.at) <= ds.window
}

// released marks the deletions in the partitions as not delivered, so that they are delivered
// again if the member gets the partitions back: the work that they caused may have been
// dropped with the partitions.
func (ds *deletions) released(set ring.Set) {
	for _, list := range ds.byName {
		for _, d := range list {
			if set.HasPoint(d.point) {
				d.delivered = false
			}
		}
	}
}

// differ reports whether two UIDs are known to belong to two different objects.
func differ(a, b types.UID) bool { return a != b && a != "" && b != "" }
