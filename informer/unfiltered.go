// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"hash/maphash"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// passing is a filter that passes every event (Options.Unfiltered). A replay shows the handler
// objects that it knows again.
//
// Why nothing is lost: the handler may have seen an object before its partition became active,
// and whoever works on the object may have dropped it then. The replay comes after the
// activation. If the stream has delivered the state that is stored, the replay shows that
// state. Otherwise the stream will deliver an event of the object, which is then after the
// activation, too. That event may be one that the handler ignores, such as a change of the
// status. So the object is in late, and is shown again after that event.
//
// Why the stream reaches each object in late: see filter. It delivers every event with another
// resourceVersion, and late holds only objects whose stored resourceVersion it has not delivered.
type passing struct{ *filter }

// stream returns the handler of the inner informer's events.
func (f *filter) stream() cache.ResourceEventHandler {
	if f.informer.unfiltered {
		return passing{f}
	}
	return f
}

// OnAdd is called by the inner informer.
func (p passing) OnAdd(obj any, isInInitialList bool) {
	p.lock()
	defer p.unlock()
	if p.cleared.Load() {
		return
	}
	defer p.caughtUp()
	p.record(Passed)
	if m, err := meta.Accessor(obj); err == nil {
		delete(p.late, p.reached(m)) // an Add shows the object: not once more
	}
	p.handler.OnAdd(obj, isInInitialList)
}

// OnUpdate is called by the inner informer.
func (p passing) OnUpdate(oldObj, newObj any) {
	p.lock()
	defer p.unlock()
	if p.cleared.Load() {
		return
	}
	defer p.caughtUp()
	p.record(Passed)
	var id id
	m, err := meta.Accessor(newObj)
	if err == nil {
		id = p.reached(m)
		if was, err := meta.Accessor(oldObj); err == nil && differ(was.GetUID(), m.GetUID()) {
			// One object was deleted and another created while the watch was interrupted.
			var o located
			p.locate(&o, oldObj)
			o.id = id
			p.noteDelivered(p.remember(&o))
		}
	}
	add, late := p.late[id]
	if late {
		defer func() {
			if _, late := p.late[id]; late { // the handler has panicked, which need not end the program
				p.changes.post(change{again: p.informer.keyOf(m), active: true})
			}
		}()
	}
	p.handler.OnUpdate(oldObj, newObj)
	if late {
		delete(p.late, id)
		p.again(newObj, add)
	}
}

// OnDelete is called by the inner informer.
func (p passing) OnDelete(obj any) {
	var s located
	p.locateDeleted(&s, obj)
	p.lock()
	defer p.unlock()
	if p.cleared.Load() {
		return
	}
	defer p.caughtUp()
	p.record(Passed)
	p.forget(s.id)
	delete(p.late, s.id)
	p.noteDelivered(p.remember(&s))
	p.handler.OnDelete(obj)
}

// reached records the state that the stream has delivered.
func (f *filter) reached(m metav1.Object) id {
	id := f.informer.identify(m)
	f.shown[id] = f.informer.stateOf(m)
	f.peak = max(f.peak, len(f.shown))
	return id
}

// stateOf identifies the state of an object.
func (i *Informer) stateOf(m metav1.Object) uint64 {
	return maphash.String(i.seeds[0], m.GetResourceVersion())
}

// showAgain shows the handler an object that it knows, now or when the stream has reached it.
func (f *filter) showAgain(key string, add bool) {
	now := f.informer.stored(key)
	if now == nil {
		f.informer.checkKeys(key)
		return
	}
	m, err := meta.Accessor(now)
	if err != nil {
		return
	}
	id := f.informer.identifyKey(key)
	if state, known := f.shown[id]; !known || state != f.informer.stateOf(m) {
		f.late[id] = f.late[id] || add
		return
	}
	add = add || f.late[id] // late: see OnUpdate
	delete(f.late, id)
	f.again(now, add)
}

// again shows the handler the state that it has seen last: as a resync does, or as an Add after
// the deletion of an earlier object of that name. A handler that identifies objects by name takes
// the object for deleted then, and may skip an update with equal versions.
func (f *filter) again(obj any, add bool) {
	if f.cleared.Load() {
		return
	}
	f.record(Replayed)
	switch {
	case add:
		f.handler.OnAdd(obj, false)
	case f.gained != nil:
		f.gained(obj)
	default:
		f.handler.OnUpdate(obj, obj)
	}
}

// caughtUp ends the first replay, if one was processed, and the stream has reached what it has
// left to it.
func (f *filter) caughtUp() {
	if f.activated && len(f.late) == 0 {
		f.endFirst()
	}
}
