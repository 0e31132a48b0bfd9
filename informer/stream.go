// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// OnAdd is called by the inner informer.
func (f *filter) OnAdd(obj any, isInInitialList bool) {
	var s located
	f.locate(&s, obj)
	if f.state(&s) == ring.NotOwned { // without the lock: nothing is recorded about events that are dropped here
		f.dropped(&s)
		return
	}
	s.id = f.informer.identify(s.meta)
	f.lock()
	defer f.unlock()
	if f.cleared.Load() {
		return
	}
	f.streamed(s.meta)
	if a, ahead := f.ahead[s.id]; ahead {
		// A replay has delivered this version, or one that comes later in the stream.
		if a.is(versionOf(s.meta)) {
			delete(f.ahead, s.id)
		}
		f.dropped(&s)
		return
	}
	if _, known := f.shown[s.id]; known {
		f.dropped(&s)
		return
	}
	if f.state(&s) != ring.Active {
		f.missed(&s)
		f.dropped(&s)
		return
	}
	f.record(Passed)
	f.deliverAdd(&s, func(obj any) { f.handler.OnAdd(obj, isInInitialList) })
}

// OnUpdate is called by the inner informer.
func (f *filter) OnUpdate(oldObj, newObj any) {
	var s located
	f.locate(&s, newObj)
	oldMeta, err := meta.Accessor(oldObj)
	if s.meta == nil || err != nil {
		s.err = errors.Join(s.err, err)
		f.dropped(&s)
		return
	}
	state := f.state(&s)
	replaced := differ(oldMeta.GetUID(), s.meta.GetUID())
	if state == ring.NotOwned && !replaced && s.err == nil {
		// Without the lock, if the object was not this member's before either. If the handler
		// knows it, a release follows.
		if f.informer.fixed {
			f.record(Filtered)
			return
		}
		if point, err := f.informer.pointOf(oldMeta); err != nil || f.informer.ownership.State(point) == ring.NotOwned {
			f.record(Filtered)
			return
		}
	}
	f.lock()
	defer f.unlock()
	if f.cleared.Load() {
		return
	}
	f.streamed(s.meta)
	if !replaced && (f.passes == nil || f.names == nil) && f.knows(&s, oldMeta) {
		f.record(Passed)
		f.handler.OnUpdate(oldObj, newObj)
		return
	}
	s.id = f.informer.identify(s.meta)
	f.updated(&update{located: s, oldObj: oldObj, replaced: replaced}, oldMeta)
}

// update is an event of the stream.
type update struct {
	located
	oldObj   any
	replaced bool     // by another object of the same name
	deletion deletion // of the object that was replaced; zero if it cannot be remembered
}

// updated handles an update that needs a look at what the handler knows.
func (f *filter) updated(u *update, oldMeta metav1.Object) {
	if u.replaced {
		// One object was deleted and another created while the watch was interrupted.
		var o located
		f.locate(&o, u.oldObj)
		o.id = u.id
		u.deletion = f.remember(&o)
	}
	point, known := f.shown[u.id]
	a, ahead := f.ahead[u.id]
	switch {
	case !known:
		f.updateUnknown(u)
	case !ahead:
		f.update(u, point)
	case a.is(versionOf(oldMeta)):
		delete(f.ahead, u.id)
		f.update(u, point)
	default:
		if a.is(versionOf(u.meta)) {
			delete(f.ahead, u.id)
		}
		f.updateOvertaken(u)
	}
}

// update delivers the next version of an object that the handler knows, at a point.
func (f *filter) update(u *update, point uint64) {
	state, moved := f.state(&u.located), u.err != nil || u.point != point
	switch {
	case state == ring.Active || state == ring.Pending && !moved:
		if moved {
			f.shown[u.id] = u.point
		}
		if u.replaced {
			f.earlier(&u.located)
		}
		if f.passes != nil || f.names != nil && f.names[u.id].uid != u.meta.GetUID() {
			f.name(&u.located)
		}
		f.record(Passed)
		f.noteDelivered(u.deletion)
		f.handler.OnUpdate(u.oldObj, u.obj)
	case moved && f.informer.ownership.State(point) != ring.NotOwned:
		// The object has moved from a key that this member owns to a key that it does not own.
		// The handler sees this update, because it matters to the old key, and nothing after it.
		f.forget(u.id)
		f.missed(&u.located)
		f.record(Passed)
		if u.replaced { // the other object never was this member's
			f.noteDelivered(u.deletion)
			f.handler.OnDelete(f.replacedObject(u))
			return
		}
		f.handler.OnUpdate(u.oldObj, u.obj)
		f.notifyReleased(u.obj, f.passes == nil || f.passes(u.obj))
	default:
		f.missed(&u.located)
		f.dropped(&u.located) // this member has lost the object: a release follows
	}
}

// updateUnknown handles an update of an object that the handler does not know.
func (f *filter) updateUnknown(u *update) {
	if f.state(&u.located) == ring.Active {
		f.record(Passed)
		f.deliverAdd(&u.located, func(obj any) { f.handler.OnAdd(obj, false) })
		return
	}
	f.missed(&u.located)
	var o located
	f.locate(&o, u.oldObj)
	if f.state(&o) != ring.Active {
		f.dropped(&u.located)
		return
	}
	// The key that the object has left is active, but its replay has not reached the object
	// and will no longer find it.
	f.record(Passed)
	if u.replaced {
		f.noteDelivered(u.deletion)
		f.handler.OnDelete(f.replacedObject(u))
		return
	}
	f.handler.OnAdd(u.oldObj, false)
	if f.cleared.Load() {
		return
	}
	f.handler.OnUpdate(u.oldObj, u.obj)
	f.notifyReleased(u.obj, f.passes == nil || f.passes(u.obj))
}

// updateOvertaken handles an update to a version that a replay has already delivered or
// skipped. Such an update matters only if the object left a key by it, or was replaced by
// another object.
func (f *filter) updateOvertaken(u *update) {
	var o located
	f.locate(&o, u.oldObj)
	if f.state(&o) != ring.Active || u.err == nil && o.point == u.point && !u.replaced {
		f.dropped(&u.located)
		return
	}
	latest, exists := f.latest(u.obj)
	if !exists { // it was deleted: the handler follows the stream from here
		delete(f.ahead, u.id)
		f.update(u, o.point)
		return
	}
	f.record(Passed)
	f.noteDelivered(u.deletion)
	var l located
	f.locate(&l, latest)
	l.id = u.id
	switch {
	case f.state(&l) == ring.Active:
		f.earlier(&l)
		f.show(&l)
		if !versionOf(l.meta).is(versionOf(u.meta)) {
			f.overtake(&l)
		}
		f.handler.OnUpdate(u.oldObj, latest)
	default: // it has moved to a key that this member does not own
		f.forget(l.id)
		f.missed(&u.located)
		f.handler.OnUpdate(u.oldObj, latest)
		f.notifyReleased(latest, f.passes == nil || f.passes(latest))
	}
}

// replacedObject is OnDelete's argument for an object that was replaced by another one.
func (f *filter) replacedObject(u *update) cache.DeletedFinalStateUnknown {
	return cache.DeletedFinalStateUnknown{Key: f.informer.keyOf(u.meta), Obj: u.oldObj}
}

// OnDelete is called by the inner informer.
func (f *filter) OnDelete(obj any) {
	var s located
	f.locateDeleted(&s, obj)
	f.lock()
	defer f.unlock()
	if f.cleared.Load() {
		return
	}
	point, known := f.shown[s.id]
	if known && s.meta != nil {
		if a, ahead := f.ahead[s.id]; ahead && f.deleteOvertaken(&s, obj, a) {
			return
		}
	}
	if s.err != nil && known { // use the point of its last known state
		s.point, s.err = point, nil
	}
	d := f.remember(&s)
	if !known && f.state(&s) != ring.Active {
		f.dropped(&s)
		return
	}
	f.forget(s.id)
	f.record(Passed)
	f.noteDelivered(d)
	f.handler.OnDelete(obj)
}

// locateDeleted locates and identifies a deleted object, also inside a
// cache.DeletedFinalStateUnknown. The object may be missing there: then only its key is known.
func (f *filter) locateDeleted(s *located, obj any) {
	unknown, ok := obj.(cache.DeletedFinalStateUnknown)
	switch {
	case !ok:
		f.locate(s, obj)
	case unknown.Obj != nil:
		f.locate(s, unknown.Obj)
	default:
		s.key, s.err = unknown.Key, fmt.Errorf("the final state of %q is unknown", unknown.Key)
	}
	if s.meta != nil {
		s.id = f.informer.identify(s.meta)
	} else if ok {
		s.id = f.informer.identifyKey(unknown.Key)
	}
}

// deleteOvertaken handles a deletion that comes before the version that a replay has
// delivered. It returns false if the deletion comes after it.
func (f *filter) deleteOvertaken(s *located, obj any, a version) bool {
	now, exists := f.latest(s.obj)
	another := differ(a.uid, s.meta.GetUID())
	if !another {
		order, err := resourceversion.CompareResourceVersion(s.meta.GetResourceVersion(), a.version)
		switch {
		case !exists || err == nil && order >= 0:
			return false
		case err == nil:
			f.dropped(s) // it did not match the selector for a time, and matches again
			return true
		}
		// The versions cannot be compared, and there is an object of that name. It is safe to
		// deliver a deletion and the object again, but not to miss either.
	}
	d := f.remember(s)
	if another && f.state(s) != ring.Active {
		f.dropped(s)
		return true
	}
	f.record(Passed)
	f.noteDelivered(d)
	f.deliverDelete(s.id, obj, now, exists)
	return true
}

// remember records a deletion that the stream delivers.
func (f *filter) remember(s *located) deletion {
	d := f.informer.deletions.remember(s)
	f.observed = max(f.observed, d.seq)
	return d
}

// streamed records that the stream has delivered a state of an object.
func (f *filter) streamed(m metav1.Object) {
	f.complete.streamed(m, f.informer)
	if len(f.ahead) == 0 {
		f.highest = 0
		return
	}
	if n, ok := number(m.GetResourceVersion()); ok && n > f.highest {
		f.ahead = map[id]version{}
	}
}
