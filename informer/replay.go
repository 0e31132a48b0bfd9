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

// ErrReplaying says that Replay is running already.
var ErrReplaying = errors.New("informer: Replay is running already")

// housekeeping is how often each filter lets go of what it need not keep.
const housekeeping = time.Minute

// Activated makes the stored objects of the partitions known to all handlers, as
// Adds, and the deletions of the last DeletionWindow before this call as Deletes.
// To be called after State has begun to answer ring.Active for the partitions,
// each time that it does. It does not block: Replay does the work.
func (i *Informer) Activated(set ring.Set) {
	i.post(change{set: set.Clone(), active: true, at: time.Now()})
}

// Released makes all handlers forget the objects of the partitions. To be called
// after State has ceased to answer ring.Active for them, and not later than
// Activated is called for them again. It does not block: Replay does the work.
func (i *Informer) Released(set ring.Set) {
	i.post(change{set: set.Clone(), at: time.Now()})
}

func (i *Informer) post(c change) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, f := range i.filters {
		f.mail.post(c)
	}
}

// Replay does what Activated and Released ask for until ctx ends, and returns nil
// after all that it started has ended. It serves each handler by a goroutine of
// its own, so that a slow one delays only itself; a call that is under way when
// ctx ends is waited for. What is left undone then is done by the next Replay.
//
// It may run before, after and without the informer, but not twice at a time:
// then it returns [ErrReplaying].
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

// serve works off the mail of one filter.
func (f *filter) serve(ctx context.Context) {
	ticker := time.NewTicker(housekeeping)
	defer ticker.Stop()
	for {
		// A change is taken out when it has been dealt with, so that nothing is lost
		// if ctx ends meanwhile. To deal with one twice does no harm.
		for c, ok := f.mail.first(); ok; c, ok = f.mail.first() {
			if !f.apply(ctx, c) {
				return
			}
			f.mail.drop()
		}
		select {
		case <-ctx.Done():
			return
		case <-f.removed:
			return
		case <-f.mail.posted:
		case <-ticker.C:
			f.tidy(ctx)
		}
	}
}

// apply returns false if it was interrupted.
func (f *filter) apply(ctx context.Context, c change) bool {
	if !c.active {
		return f.releaseAll(ctx, c)
	}
	if f.informer.IsStopped() {
		return true // its store is of the past, and its handlers have heard the last of it
	}
	for _, d := range f.untold(c) {
		if !f.step(ctx, func() { f.replayDeletion(d) }) {
			return false
		}
	}
	// The list only says where to look: by the time that its turn comes, the object
	// may have changed.
	for _, obj := range f.informer.GetStore().List() {
		if point, err := f.informer.point(obj); err != nil || !c.set.HasPoint(point) {
			continue // the stream has reported what is malformed
		}
		if !f.step(ctx, func() { f.replay(obj) }) {
			return false
		}
	}
	return true
}

// step does one thing under the lock, so that the stream of events gets its turn
// between any two. It returns false, without doing it, if the work is to end.
func (f *filter) step(ctx context.Context, do func()) (going bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-ctx.Done():
		return false
	case <-f.removed:
		return false
	default:
	}
	// Like client-go: if panics are not to crash the program, what made the handler
	// panic is skipped.
	defer utilruntime.HandleCrashWithContext(ctx)
	going = true
	do()
	return going
}

// replay shows what the store now has under the name of an object.
func (f *filter) replay(obj any) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return
	}
	name := cache.ObjectName{Namespace: m.GetNamespace(), Name: m.GetName()}
	if _, known := f.shown[name]; known {
		return // what the handler does not know of it is still to come by the stream
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

func (f *filter) untold(c change) []*deletion {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.deletions.untold(c.set, c.at)
}

func (f *filter) replayDeletion(d *deletion) {
	if d.told || !f.activePoint(d.point) {
		return
	}
	if now := f.stored(d.name); now != nil && !differ(uid(now), d.uid) {
		f.deletions.cameBack(d.name, d.uid)
		return
	}
	if e, known := f.shown[d.name]; known && !differ(uid(e.obj), d.uid) {
		return // it had come back and was deleted again: that will come by the stream
	}
	f.record(ReplayedDeletion)
	f.tell(d)
}

func (f *filter) releaseAll(ctx context.Context, c change) bool {
	for _, name := range f.releasable(c.set) {
		going := f.step(ctx, func() {
			if e, known := f.shown[name]; known && c.set.HasPoint(e.point) {
				f.release(name, e)
			}
		})
		if !going {
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

// tidy lets go of old deletions, and of copies of objects: client-go does not tell
// a handler of an object that a relist has found unchanged, so without this the
// filter would keep the copy from before the relist in memory, beside the store's.
func (f *filter) tidy(ctx context.Context) {
	now := time.Now()
	f.step(ctx, func() { f.deletions.sweep(now, f.mail.oldest(now)) })
	for _, obj := range f.informer.GetStore().List() {
		going := f.step(ctx, func() {
			m, err := meta.Accessor(obj)
			if err != nil {
				return
			}
			e, known := f.shown[cache.ObjectName{Namespace: m.GetNamespace(), Name: m.GetName()}]
			if v := m.GetResourceVersion(); known && v != "" && v == version(e.obj) {
				e.obj = obj
			}
		})
		if !going {
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

// changeQueue holds the changes that a filter has yet to deal with, in their order.
type changeQueue struct {
	posted chan struct{} // has room for one

	mu      sync.Mutex
	changes []change
}

// post never blocks.
func (m *changeQueue) post(c change) {
	m.mu.Lock()
	m.changes = append(m.changes, c)
	m.mu.Unlock()
	select {
	case m.posted <- struct{}{}:
	default: // told already
	}
}

func (m *changeQueue) first() (change, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.changes) == 0 {
		return change{}, false
	}
	return m.changes[0], true
}

func (m *changeQueue) drop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes = m.changes[1:]
}

// oldest is the time of the oldest activation that is still to be dealt with, or
// now if there is none.
func (m *changeQueue) oldest(now time.Time) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.changes {
		if c.active {
			return c.at
		}
	}
	return now
}
