// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// A filter sits between the inner informer and one handler.
//
// Two goroutines call the handler: the inner informer's goroutine, with the stream of events,
// and Replay's goroutine, with the results of a change of ownership. The filter makes each
// call with mu held, and in the same critical section checks the ownership and records what
// was delivered. So the handler sees one order.
//
// Why nothing is lost: the inner informer changes its store before it notifies a handler.
// Assume that the stream delivers version v of an object and the filter drops it, because
// State does not return Active. If the partition becomes active later, Activated is called
// after State returns Active, and the replay that it requests reads the store later still: it
// finds v or a later version, and delivers that. If the partition had been active already, the
// event would not have been dropped. It does not matter whether Activated was called before or
// after the drop; it only matters that the drop called State before the activation was
// published. An update of an object that the handler knows is only dropped if State returns
// NotOwned, and then Released follows, before any activation: the handler forgets the object,
// and the replay delivers it again. While State returns Pending, for a drain, the handler
// continues to see what it knows: the drain may be called off, and then no replay delivers it.
//
// Therefore a replay may overtake the stream, but never the other way round. The objects that
// a replay has delivered are in ahead until the stream has reached the version that was
// delivered. Objects that are not in ahead are delivered as they come, whatever their
// versions are.
//
// Why the stream reaches each version in ahead: the replay took it from the store, so the
// stream has delivered or dropped the event that stored it, or will do so. In the first case
// the next event of the object starts from that version, or deletes it.
//
// Invariant: for each object in shown, the handler has seen every event that the stream has
// delivered, or a later version that supersedes it. So a replay has nothing to add for these
// objects: the stream will deliver what is still missing.
type filter struct {
	informer *Informer
	handler  cache.ResourceEventHandler
	released func(obj any) // the handler's OnReleased; nil if it has none
	gained   func(obj any) // the handler's OnGained; nil if it has none
	// passes is the filter of a cache.FilteringResourceEventHandler; nil if it is none.
	passes     func(obj any) bool
	logger     *klog.Logger // nil: the default
	changes    changeQueue
	removed    chan struct{} // closed, with Informer.mu held, when the handler is removed
	finished   chan struct{} // closed when a removed handler is not called any more
	replayed   chan struct{} // closed when the first activation was processed
	registered bool          // with the inner informer; guarded by Informer.mu
	working    bool          // a goroutine of Replay serves it; guarded by Informer.mu
	counts     counters

	cleared atomic.Bool // the handler was removed: whoever unlocks mu empties the filter

	mu    sync.Mutex
	empty bool          // the handler was removed: it is not called, and nothing is recorded
	shown map[id]uint64 // the objects that the handler knows, and their points
	peak  int           // the size that shown has had
	// names identify the objects in shown for OnReleased; nil without it.
	names map[id]named
	// ahead is what a replay has delivered last, of the objects in shown that the stream may
	// not have reached yet.
	ahead map[id]version
	// highest is at least the highest version in ahead. When the stream delivers a higher one,
	// it has reached everything in ahead, because a watch stores and delivers events in the
	// order of their versions. (A list does not, so the stream may then still deliver versions
	// that were in ahead; update and OnAdd tolerate that.)
	highest uint64
	// observed is the last deletion that the stream has delivered or dropped. Others follow in
	// the order of their numbers, and the stream will deliver them itself, unless they are
	// not later than since: the last deletion when the handler was added. Set before registered.
	observed, since uint64
	// delivered are the deletions that were delivered to the handler while this member owned
	// the partition, and has not released it since.
	delivered map[*tombstone]struct{}
}

// named is what OnReleased needs of an object.
type named struct {
	key    string
	uid    types.UID
	passed bool // the handler's own filter, in the version that was delivered last
}

// version identifies a state of an object.
type version struct {
	uid     types.UID
	version string
}

func versionOf(m metav1.Object) version { return version{m.GetUID(), m.GetResourceVersion()} }

// is reports whether a and b are the same state, as far as can be determined.
func (a version) is(b version) bool { return a.version == b.version && !differ(a.uid, b.uid) }

func newFilter(i *Informer, handler cache.ResourceEventHandler, logger *klog.Logger) *filter {
	f := &filter{
		informer:  i,
		handler:   handler,
		logger:    logger,
		changes:   changeQueue{posted: make(chan struct{}, 1)},
		removed:   make(chan struct{}),
		finished:  make(chan struct{}),
		replayed:  make(chan struct{}),
		shown:     map[id]uint64{},
		ahead:     map[id]version{},
		delivered: map[*tombstone]struct{}{},
		observed:  i.deletions.number(),
	}
	if f.released, f.gained, f.passes = optional(handler); f.released != nil {
		f.names = map[id]named{}
	}
	return f
}

// String formats the handler, for client-go's errors.
func (f *filter) String() string { return fmt.Sprint(f.handler) }

func (f *filter) lock() { f.mu.Lock() }

func (f *filter) unlock() {
	f.mu.Unlock()
	if f.cleared.Load() {
		f.tryClear()
	}
}

// clear frees what was kept for a removed handler: now, or when the call of the handler that is
// under way returns. It may be called by that call.
func (f *filter) clear() {
	f.cleared.Store(true)
	f.tryClear()
}

func (f *filter) tryClear() {
	if !f.mu.TryLock() {
		return // the goroutine that holds the lock sees cleared when it unlocks
	}
	defer f.mu.Unlock()
	if f.empty {
		return
	}
	f.empty = true
	close(f.finished)
	f.handler, f.released, f.gained, f.passes = removedHandler{}, nil, nil, nil
	f.shown, f.names, f.ahead, f.delivered = nil, nil, nil, nil
	f.changes.clear()
}

// removedHandler replaces a handler that was removed.
type removedHandler struct {
	cache.ResourceEventHandlerFuncs
}

// located is an object and its point of the hash space.
type located struct {
	obj   any
	meta  metav1.Object // nil if obj is not an object
	key   string        // in the store; only of a deleted object without a final state
	id    id            // only if identified
	point uint64
	// err is the reason why there is no point. An object without a point belongs to no
	// member: if it belonged to every member, all would work on it at once. But a handler that
	// already knows the object is notified of its update, as of an update to a key that this
	// member does not own, and of its deletion.
	err error
}

func (f *filter) locate(obj any) (s located) {
	s.obj = obj
	if s.meta, s.err = meta.Accessor(obj); s.err == nil {
		s.point, s.err = f.informer.pointOf(s.meta)
	}
	return s
}

// state returns what this member may do with an object.
func (f *filter) state(s *located) ring.State {
	if s.err != nil {
		return ring.NotOwned
	}
	return f.informer.ownership.State(s.point)
}

func (f *filter) activePoint(point uint64) bool {
	return f.informer.ownership.State(point) == ring.Active
}

// OnAdd is called by the inner informer.
func (f *filter) OnAdd(obj any, isInInitialList bool) {
	s := f.locate(obj)
	if f.state(&s) != ring.Active { // without the lock: nothing is recorded about events that are dropped here
		f.dropped(&s)
		return
	}
	s.id = f.informer.identify(s.meta)
	f.lock()
	defer f.unlock()
	if f.empty {
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
	_, known := f.shown[s.id]
	if known || f.state(&s) != ring.Active { // it was active before the lock was taken
		f.dropped(&s)
		return
	}
	f.record(Passed)
	f.deliverAdd(&s, func(obj any) { f.handler.OnAdd(obj, isInInitialList) })
}

// OnUpdate is called by the inner informer.
func (f *filter) OnUpdate(oldObj, newObj any) {
	s := f.locate(newObj)
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
	s.id = f.informer.identify(s.meta)
	f.lock()
	defer f.unlock()
	if f.empty {
		return
	}
	f.streamed(s.meta)
	u := update{located: s, oldObj: oldObj, replaced: replaced}
	if replaced {
		// One object was deleted and another created while the watch was interrupted.
		o := f.locate(oldObj)
		o.id = s.id
		u.deletion = f.remember(&o)
	}
	point, known := f.shown[s.id]
	a, ahead := f.ahead[s.id]
	switch old, now := versionOf(oldMeta), versionOf(s.meta); {
	case !known:
		f.updateUnknown(&u)
	case ahead && a.is(old):
		delete(f.ahead, s.id)
		f.update(&u, point)
	case ahead:
		if a.is(now) {
			delete(f.ahead, s.id)
		}
		f.updateOvertaken(&u)
	default:
		f.update(&u, point)
	}
}

// update is an event of the stream.
type update struct {
	located
	oldObj   any
	replaced bool       // by another object of the same name
	deletion *tombstone // of the object that was replaced; nil if it cannot be remembered
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
		f.record(Passed)
		if u.replaced { // the other object never was this member's
			f.noteDelivered(u.deletion)
			f.handler.OnDelete(f.replacedObject(u))
			return
		}
		f.handler.OnUpdate(u.oldObj, u.obj)
		f.notifyReleased(u.obj, f.passes == nil || f.passes(u.obj))
	default:
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
	o := f.locate(u.oldObj)
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
	f.handler.OnUpdate(u.oldObj, u.obj)
	f.notifyReleased(u.obj, f.passes == nil || f.passes(u.obj))
}

// updateOvertaken handles an update to a version that a replay has already delivered or
// skipped. Such an update matters only if the object left a key by it, or was replaced by
// another object.
func (f *filter) updateOvertaken(u *update) {
	o := f.locate(u.oldObj)
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
	l := f.locate(latest)
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
	s := f.locateDeleted(obj)
	f.lock()
	defer f.unlock()
	if f.empty {
		return
	}
	point, known := f.shown[s.id]
	a, ahead := f.ahead[s.id]
	if known && ahead && s.meta != nil && f.deleteOvertaken(&s, obj, a) {
		return
	}
	if s.err != nil && known { // use the point of its last known state
		s.point, s.err = point, nil
	}
	t := f.remember(&s)
	if !known && f.state(&s) != ring.Active {
		f.dropped(&s)
		return
	}
	f.forget(s.id)
	f.record(Passed)
	f.noteDelivered(t)
	f.handler.OnDelete(obj)
}

// locateDeleted locates and identifies a deleted object, also inside a
// cache.DeletedFinalStateUnknown. The object may be missing there: then only its key is known.
func (f *filter) locateDeleted(obj any) (s located) {
	unknown, ok := obj.(cache.DeletedFinalStateUnknown)
	switch {
	case !ok:
		s = f.locate(obj)
	case unknown.Obj != nil:
		s = f.locate(unknown.Obj)
	default:
		s = located{key: unknown.Key, err: fmt.Errorf("the final state of %q is unknown", unknown.Key)}
	}
	if s.meta != nil {
		s.id = f.informer.identify(s.meta)
	} else if ok {
		s.id = f.informer.identifyKey(unknown.Key)
	}
	return s
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
	t := f.remember(s)
	if another && f.state(s) != ring.Active {
		f.dropped(s)
		return true
	}
	f.record(Passed)
	f.noteDelivered(t)
	f.deliverDelete(s.id, obj, now, exists)
	return true
}

// remember records a deletion that the stream delivers.
func (f *filter) remember(s *located) *tombstone {
	t := f.informer.deletions.remember(s)
	if t != nil {
		f.observed = max(f.observed, t.seq)
	}
	return t
}

// deliverDelete delivers the deletion of an earlier object. If the handler knows another
// object of that name, the object that is stored now is then added again: a handler that
// identifies objects by name would otherwise treat it as deleted.
func (f *filter) deliverDelete(id id, deleted, now any, exists bool) {
	f.handler.OnDelete(deleted)
	_, known := f.shown[id]
	if f.forget(id); !known || !exists {
		return // if the other object was deleted, too, the stream will deliver that
	}
	s := f.locate(now)
	if s.id = id; f.state(&s) == ring.Active {
		f.earlier(&s)
		f.show(&s)
		f.overtake(&s)
		f.handler.OnAdd(now, false)
	}
}

// deliverAdd delivers an object that the handler does not know, after the deletions of earlier
// objects of the same name.
func (f *filter) deliverAdd(s *located, add func(obj any)) {
	for _, t := range f.earlier(s) {
		// The stream will deliver later ones itself, possibly of objects that came after this one.
		if _, done := f.delivered[t]; !done && t.seq <= f.observed && f.activePoint(t.point) {
			f.record(ReplayedDeletion)
			f.noteDelivered(t)
			f.handler.OnDelete(f.informer.deleted(t))
		}
	}
	f.show(s)
	add(s.obj)
}

// earlier returns the deletions of other objects of the same name. If the object is stored,
// its apparent deletions are forgotten: a watch with a selector reports an object that no
// longer matches as deleted, and it may match again later. An event alone does not prove that
// its object is stored: other handlers may have seen the deletion that follows in the stream.
func (f *filter) earlier(s *located) []*tombstone {
	same, others := f.informer.deletions.of(s.id, s.meta.GetUID())
	if len(same) > 0 { // look at the store after that: deletions that follow are not among them
		if now := f.informer.stored(f.informer.keyOf(s.meta)); now != nil {
			if m, err := meta.Accessor(now); err == nil && !differ(m.GetUID(), s.meta.GetUID()) {
				f.informer.deletions.back(same...)
			}
		}
	}
	return others
}

// show records that the handler knows an object.
func (f *filter) show(s *located) {
	f.shown[s.id] = s.point
	f.peak = max(f.peak, len(f.shown))
	f.name(s)
}

func (f *filter) name(s *located) {
	if f.names != nil {
		f.names[s.id] = named{f.informer.keyOf(s.meta), s.meta.GetUID(), f.passes == nil || f.passes(s.obj)}
	}
}

// overtake records that the handler has seen a version that the stream may not have reached.
func (f *filter) overtake(s *located) {
	f.ahead[s.id] = versionOf(s.meta)
	n, ok := number(s.meta.GetResourceVersion())
	if !ok {
		n = math.MaxUint64 // cannot be compared
	}
	f.highest = max(f.highest, n)
}

// streamed records that the stream has delivered a state of an object.
func (f *filter) streamed(m metav1.Object) {
	if len(f.ahead) == 0 {
		f.highest = 0
		return
	}
	if n, ok := number(m.GetResourceVersion()); ok && n > f.highest {
		f.ahead = map[id]version{}
	}
}

// forget records that the handler does not know an object any more.
func (f *filter) forget(id id) {
	delete(f.shown, id)
	delete(f.ahead, id)
	delete(f.names, id)
}

// noteDelivered records that a deletion was delivered, if this member owns the partition. If
// it does not, the deletion is delivered again should it get the partition.
func (f *filter) noteDelivered(t *tombstone) {
	if t != nil && f.informer.ownership.State(t.point) != ring.NotOwned {
		f.delivered[t] = struct{}{}
	}
}

// notifyReleased reports the release of an object whose last delivered version passed the
// handler's own filter, or not.
func (f *filter) notifyReleased(obj any, passed bool) {
	f.record(Released)
	if f.released != nil && passed {
		f.released(obj)
	}
}

// latest returns the stored object of the same name, if there is one, or else the object.
func (f *filter) latest(obj any) (latest any, exists bool) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return obj, false
	}
	if now := f.informer.stored(f.informer.keyOf(m)); now != nil {
		return now, true
	}
	return obj, false
}

// dropped counts an event that is not delivered.
func (f *filter) dropped(s *located) {
	if s.err == nil {
		f.record(Filtered)
		return
	}
	f.record(Malformed)
	now, logged := time.Now().UnixNano(), f.informer.logged.Load()
	if logged != 0 && now-logged < int64(time.Minute) || !f.informer.logged.CompareAndSwap(logged, now) {
		return // one line a minute is enough: they are counted
	}
	logger := klog.Background()
	if f.logger != nil {
		logger = *f.logger
	}
	object := cache.ObjectName{}
	if s.meta != nil {
		object = cache.ObjectName{Namespace: s.meta.GetNamespace(), Name: s.meta.GetName()}
	}
	utilruntime.HandleErrorWithLogger(logger, s.err, "No member works on the object, because its key cannot be determined; further objects are only counted for a minute", "object", object)
}

func (f *filter) record(o Outcome) { f.counts[o].Add(1) }
