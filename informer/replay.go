// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// ErrReplaying is returned by [Informer.Replay] if it is already running.
var ErrReplaying = errors.New("informer: Replay is already running")

// housekeeping is how often each filter frees what it need not keep.
const housekeeping = time.Minute

// Activated delivers the stored objects of the partitions to all handlers as Adds, and the
// deletions within DeletionWindow before this call as Deletes. Call it each time that
// partitions become active, after State has begun to return ring.Active for them. It does not
// block: Replay does the work.
func (i *Informer) Activated(set ring.Set) {
	i.post(change{set: set.Clone(), active: true, at: time.Now()})
}

// Released makes all handlers forget the objects of the partitions. Call it after State has
// ceased to return ring.Active for them, and before Activated is called for them again. It
// does not block: Replay does the work.
func (i *Informer) Released(set ring.Set) {
	i.post(change{set: set.Clone(), at: time.Now()})
}

func (i *Informer) post(c change) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, f := range i.filters {
		f.changes.post(c)
	}
}

// Replay processes the calls of Activated and Released until ctx ends, and returns nil after
// all its goroutines have ended. Each handler has its own goroutine, so that a slow handler
// delays only itself. When ctx ends, Replay waits for calls that are under way; the next
// Replay does the rest.
//
// It may run before, after and without the informer. If it is already running, it returns
// [ErrReplaying].
func (i *Informer) Replay(ctx context.Context) error {
	if !i.replaying.CompareAndSwap(false, true) {
		return ErrReplaying
	}
	defer i.replaying.Store(false)
	var workers sync.WaitGroup
	defer workers.Wait()
	for {
		for _, f := range i.unserved() {
			workers.Go(func() {
				defer i.left(f)
				f.serve(ctx)
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-i.registered:
		}
	}
}

// unserved returns the filters that need a goroutine.
func (i *Informer) unserved() []*filter {
	i.mu.Lock()
	defer i.mu.Unlock()
	var unserved []*filter
	for _, f := range i.filters {
		if f.registered && !f.working {
			f.working = true
			unserved = append(unserved, f)
		}
	}
	return unserved
}

func (i *Informer) left(f *filter) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f.working = false
}

// serve processes the changes of one filter.
func (f *filter) serve(ctx context.Context) {
	ticker := time.NewTicker(housekeeping)
	defer ticker.Stop()
	for {
		// A change is removed after it was processed, so that nothing is lost if ctx ends
		// meanwhile. It is safe to process a change twice.
		for c, ok := f.changes.first(); ok; c, ok = f.changes.first() {
			if !f.apply(ctx, c) {
				return
			}
			f.changes.drop()
		}
		select {
		case <-ctx.Done():
			return
		case <-f.removed:
			return
		case <-f.changes.posted:
		case <-ticker.C:
			f.tidy(ctx)
		}
	}
}

// apply processes one change. It returns false if it was interrupted.
func (f *filter) apply(ctx context.Context, c change) bool {
	if !c.active {
		return f.releaseAll(ctx, c)
	}
	if f.informer.IsStopped() {
		return true // its store is out of date, and its handlers get no more events
	}
	for _, d := range f.undelivered(c) {
		if !f.step(ctx, func() { f.replayDeletion(d) }) {
			return false
		}
	}
	// The list only provides the names: an object may have changed by the time that it is
	// replayed.
	for _, obj := range f.informer.GetStore().List() {
		if point, err := f.informer.point(obj); err != nil || !c.set.HasPoint(point) {
			continue // the stream has reported malformed objects
		}
		if !f.step(ctx, func() { f.replay(obj) }) {
			return false
		}
	}
	return true
}

// step runs do with the lock held; between two steps the stream of events can take the lock.
// It returns false, without running do, if the replay must end.
func (f *filter) step(ctx context.Context, do func()) (ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-ctx.Done():
		return false
	case <-f.removed:
		return false
	default:
	}
	// As in client-go: if panics are not to crash the program, the event that made the handler
	// panic is skipped.
	defer utilruntime.HandleCrashWithContext(ctx)
	ok = true
	do()
	return ok
}

// replay delivers the current stored version of an object.
func (f *filter) replay(obj any) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return
	}
	name := cache.ObjectName{Namespace: m.GetNamespace(), Name: m.GetName()}
	if _, known := f.shown[name]; known {
		return // the stream will deliver what the handler does not know yet
	}
	now := f.stored(name)
	if now == nil {
		return
	}
	if s := f.locate(now); f.active(s) {
		f.record(Replayed)
		f.deliverAdd(s, false)
	}
}

func (f *filter) undelivered(c change) []*deletion {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.deletions.undelivered(c.set, c.at)
}

func (f *filter) replayDeletion(d *deletion) {
	if d.delivered || !f.activePoint(d.point) {
		return
	}
	if now := f.stored(d.name); now != nil && !differ(uid(now), d.uid) {
		f.deletions.forgetReturned(d.name, d.uid)
		return
	}
	if e, known := f.shown[d.name]; known && !differ(uid(e.obj), d.uid) {
		return // it came back and was deleted again: the stream will deliver that
	}
	f.record(ReplayedDeletion)
	f.deliverDelete(d)
}

func (f *filter) releaseAll(ctx context.Context, c change) bool {
	for _, name := range f.releasable(c.set) {
		ok := f.step(ctx, func() {
			if e, known := f.shown[name]; known && c.set.HasPoint(e.point) {
				f.release(name, e)
			}
		})
		if !ok {
			return false
		}
	}
	return true
}

func (f *filter) releasable(set ring.Set) []cache.ObjectName {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deletions.released(set)
	var names []cache.ObjectName
	for name, e := range f.shown {
		if set.HasPoint(e.point) {
			names = append(names, name)
		}
	}
	return names
}

// tidy frees old deletions and duplicate copies of objects. client-go does not notify a
// handler of an object that a relist found unchanged. Without tidy the filter would keep the
// copy from before the relist in memory, in addition to the store's copy.
func (f *filter) tidy(ctx context.Context) {
	now := time.Now()
	f.step(ctx, func() { f.deletions.sweep(now, f.changes.oldest(now)) })
	for _, obj := range f.informer.GetStore().List() {
		ok := f.step(ctx, func() {
			m, err := meta.Accessor(obj)
			if err != nil {
				return
			}
			e, known := f.shown[cache.ObjectName{Namespace: m.GetNamespace(), Name: m.GetName()}]
			if v := m.GetResourceVersion(); known && v != "" && v == version(e.obj) {
				e.obj = obj
			}
		})
		if !ok {
			return
		}
	}
}

// change is one call of Activated or Released.
type change struct {
	set    ring.Set
	active bool
	at     time.Time
}

// changeQueue holds the changes that a filter has not processed yet, in their order.
type changeQueue struct {
	posted chan struct{} // capacity 1: notifies serve of new changes

	mu   sync.Mutex
	list []change
}

// post appends a change. It never blocks.
func (q *changeQueue) post(c change) {
	q.mu.Lock()
	q.list = append(q.list, c)
	q.mu.Unlock()
	select {
	case q.posted <- struct{}{}:
	default: // a notification is already pending
	}
}

func (q *changeQueue) first() (change, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 {
		return change{}, false
	}
	return q.list[0], true
}

func (q *changeQueue) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = q.list[1:]
}

// oldest returns the time of the oldest activation that is still to be processed, or now if
// there is none.
func (q *changeQueue) oldest(now time.Time) time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range q.list {
		if c.active {
			return c.at
		}
	}
	return now
}
