// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// ErrReplaying is returned by [Informer.Replay] if it is already running.
var ErrReplaying = errors.New("informer: Replay is already running")

// housekeeping is how often an informer frees what it need not keep.
const housekeeping = time.Minute

// Activated delivers the stored objects of the partitions to all handlers as Adds, and the
// remembered deletions as Deletes. Call it each time that partitions become active, after
// State has begun to return ring.Active for them. It does not block: Replay does the work.
func (i *Informer) Activated(set ring.Set) {
	i.post(change{set: set.Clone(), active: true, deletions: i.deletions.snapshot()})
}

// Released makes all handlers forget the objects of the partitions. Call it after State has
// begun to return ring.NotOwned for them, and before Activated is called for them again. It
// does not block: Replay does the work.
func (i *Informer) Released(set ring.Set) {
	i.post(change{set: set.Clone()})
}

func (i *Informer) post(c change) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if c.active {
		i.activated = true
		i.complete.add(c.set)
	} else {
		i.complete.removeAll(c.set)
	}
	i.posted++
	c.number = i.posted
	for _, f := range i.filters {
		f.changes.post(c)
	}
}

// Replay processes the calls of Activated and Released until ctx ends or the informer stops,
// and returns nil after all its goroutines have ended. Each handler has its own goroutine, so
// that a slow handler delays only itself. When ctx ends, Replay waits for calls that are under
// way; the next Replay does the rest.
//
// It may run before and after the informer. If it is already running, it returns
// [ErrReplaying].
func (i *Informer) Replay(ctx context.Context) error {
	if !i.replaying.CompareAndSwap(false, true) {
		return ErrReplaying
	}
	defer i.replaying.Store(false)
	var workers sync.WaitGroup
	defer workers.Wait()
	period := housekeeping
	if i.deletions.window > 0 {
		period = min(period, i.deletions.window/generations+1)
	}
	ticker := time.NewTicker(period)
	defer ticker.Stop()
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
		case <-i.stopped:
			return nil
		case <-i.registered:
		case now := <-ticker.C:
			i.tidy(klog.FromContext(ctx), now)
		}
	}
}

// tidy frees old deletions, and ends Replay if the inner informer has stopped.
func (i *Informer) tidy(logger klog.Logger, now time.Time) {
	i.deletions.expire(now)
	if i.deletions.takeEarly() {
		logger.Error(nil, "More deletions than DeletionLimit were seen within DeletionWindow; the oldest are forgotten. A handover may lose those that still wait for their work", "limit", i.deletions.limit, "window", i.deletions.window)
	}
	if i.IsStopped() { // it was run by itself
		i.stop()
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
	defer f.informer.dropScan() // the handler may have been removed during its replay
	ticker := time.NewTicker(housekeeping)
	defer ticker.Stop()
	for {
		// A change is removed after it was processed, so that nothing is lost if ctx ends
		// meanwhile. It is safe to process a change twice.
		for c, ok := f.changes.first(); ok; c, ok = f.changes.first() {
			if !f.apply(ctx, c) {
				return
			}
			f.done(c)
		}
		f.informer.dropScan()
		select {
		case <-ctx.Done():
			return
		case <-f.removed:
			return
		case <-f.informer.stopped:
			return
		case <-f.changes.posted:
		case <-ticker.C:
			f.tidy(ctx)
		}
	}
}

// done removes a change that was processed.
func (f *filter) done(c change) {
	defer f.changes.drop()
	if !c.active {
		return
	}
	f.lock()
	defer f.unlock()
	if !f.informer.unfiltered {
		f.complete.replayed(f.informer.LastSyncResourceVersion())
		f.endFirst()
		return
	}
	f.activated = true
	f.caughtUp()
}

// apply processes one change. It returns false if it was interrupted.
func (f *filter) apply(ctx context.Context, c change) bool {
	if !c.active {
		return f.releaseAll(ctx, c)
	}
	if c.again != "" {
		return f.step(ctx, func() { f.showAgain(c.again, false) })
	}
	if c.set.Empty() {
		return true
	}
	var outdated uint64
	if !f.step(ctx, func() { f.complete.add(c.set); outdated = f.outdated }) {
		return false
	}
	for _, t := range f.informer.deletions.in(c.set, c.deletions) {
		if !f.step(ctx, func() { f.replayDeletion(t) }) {
			return false
		}
	}
	for _, p := range f.informer.scan(c.number, outdated).found {
		if c.set.HasPoint(p.point) && !f.step(ctx, func() { f.replay(p.key, p.point) }) {
			return false
		}
	}
	return true
}

// step runs do with the lock held; between two steps the stream of events can take the lock.
// It returns false, without running do, if the replay must end.
func (f *filter) step(ctx context.Context, do func()) (ok bool) {
	if ctx.Err() != nil {
		return false
	}
	f.lock()
	defer f.unlock()
	// The store of a stopped informer is out of date, and its handlers must not be called.
	if f.cleared.Load() || f.informer.IsStopped() {
		return false
	}
	// As in client-go: if panics are not to crash the program, the event that made the handler
	// panic is skipped.
	defer utilruntime.HandleCrashWithContext(ctx)
	ok = true
	do()
	return ok
}

// replay delivers the current stored version of an object, which had the point in the scan.
func (f *filter) replay(key string, point uint64) {
	if f.informer.unfiltered {
		if f.activePoint(point) {
			f.showAgain(key, false)
		}
		return
	}
	id := f.informer.identifyKey(key)
	if _, known := f.shown[id]; known {
		return // the stream will deliver what the handler does not know yet
	}
	now := f.informer.stored(key)
	if now == nil {
		f.informer.checkKeys(key)
		return
	}
	var s located
	f.locate(&s, now)
	s.id = id
	if f.state(&s) != ring.Active {
		f.missed(&s)
		return
	}
	f.record(Replayed)
	f.overtake(&s)
	f.deliverAdd(&s, func(obj any) {
		if f.gained != nil {
			f.gained(obj)
		} else {
			f.handler.OnAdd(obj, false)
		}
	})
}

// replayDeletion delivers a remembered deletion, unless the handler has seen it since this
// member owns the partition, or will see it in the stream, or the object exists again.
func (f *filter) replayDeletion(t *tombstone) {
	ds := &f.informer.deletions
	if _, done := f.delivered[t.seq]; done || t.seq > max(f.observed, f.since) || ds.isBack(t) || !f.activePoint(t.point) {
		return
	}
	deleted := f.informer.deleted(t)
	now := f.informer.stored(deleted.Key)
	if now != nil {
		if m, err := meta.Accessor(now); err == nil && !differ(m.GetUID(), t.meta.UID) {
			ds.back(t)
			return
		}
	}
	f.record(ReplayedDeletion)
	f.noteDelivered(t.deletion)
	if f.informer.unfiltered {
		f.handler.OnDelete(deleted)
		if now != nil { // as in deliverDelete
			f.showAgain(deleted.Key, true)
		}
		return
	}
	f.deliverDelete(t.id, deleted, now, now != nil)
}

// releaseAll makes the handler forget the objects of the partitions, without a Delete.
func (f *filter) releaseAll(ctx context.Context, c change) bool {
	ids, ok := f.releasable(ctx, c.set)
	if !ok {
		return false
	}
	for _, id := range ids {
		ok := f.step(ctx, func() {
			if point, ok := f.shown[id]; !ok || !c.set.HasPoint(point) {
				return
			}
			known := f.names[id]
			f.forget(id)
			var obj any = cache.DeletedFinalStateUnknown{Key: known.key}
			if now := f.informer.stored(known.key); now != nil {
				if m, err := meta.Accessor(now); err == nil && !differ(m.GetUID(), known.uid) {
					obj = now
				}
			}
			f.notifyReleased(obj, known.passed)
		})
		if !ok {
			return false
		}
	}
	return f.step(ctx, func() {
		if f.changes.activate(c.set) {
			// The partitions are active again. So the stream may have shown objects that the handler has
			// forgotten just now, and that were stored after the last scan.
			f.outdated = f.informer.scans.Load()
		}
		f.shrink()
	})
}

// releasable returns the objects of the partitions that the handler knows, if it must be
// notified of their release. Otherwise it makes the handler forget them.
func (f *filter) releasable(ctx context.Context, set ring.Set) (ids []id, ok bool) {
	ok = f.step(ctx, func() {
		// The work that these deletions caused may have been dropped with the partitions.
		maps.DeleteFunc(f.delivered, func(_, point uint64) bool { return set.HasPoint(point) })
		if f.informer.unfiltered {
			return
		}
		f.complete.removeAll(set)
		for id, point := range f.shown {
			switch {
			case !set.HasPoint(point):
			case f.released != nil:
				ids = append(ids, id)
			default:
				f.forget(id)
				f.record(Released)
			}
		}
	})
	return ids, ok
}

// tidy frees memory.
func (f *filter) tidy(ctx context.Context) {
	f.step(ctx, func() {
		forgotten := f.informer.deletions.forgotten()
		maps.DeleteFunc(f.delivered, func(seq, _ uint64) bool { return seq <= forgotten })
		f.shrink()
	})
}

// shrink makes the maps smaller after most of their entries were removed.
func (f *filter) shrink() {
	if len(f.ahead) == 0 {
		f.ahead = map[id]version{}
	}
	if len(f.late) == 0 {
		f.late = map[id]bool{}
	}
	if f.peak <= 1024 || len(f.shown) > f.peak/4 {
		return
	}
	f.shown, f.ahead, f.peak = shrunk(f.shown), shrunk(f.ahead), len(f.shown)
	if f.names != nil {
		f.names = shrunk(f.names)
	}
}
