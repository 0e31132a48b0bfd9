// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"errors"
	"fmt"
	"strings"
	"sync"
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
// published.
//
// Therefore a replay may overtake the stream, but never the other way round. What the stream
// delivers after being overtaken is recognized by its resourceVersion.
//
// Invariant: for each object in shown, the handler has seen every event that the stream has
// delivered, or a later version that supersedes it. So a replay has nothing to add for these
// objects: the stream will deliver what is still missing.
type filter struct {
	informer   *Informer
	handler    cache.ResourceEventHandler
	releases   ReleaseHandler // the handler; nil if it is not a ReleaseHandler
	logger     *klog.Logger   // nil: the default
	changes    changeQueue
	removed    chan struct{} // closed, with Informer.mu held, when the handler is removed
	registered bool          // with the inner informer; guarded by Informer.mu
	working    bool          // a goroutine of Replay serves it; guarded by Informer.mu

	mu        sync.Mutex
	shown     map[cache.ObjectName]*shown
	deletions deletions
}

// shown is what a handler knows about an object.
type shown struct {
	obj   any // the last version that was delivered
	point uint64
}

func newFilter(i *Informer, handler cache.ResourceEventHandler, logger *klog.Logger) *filter {
	releases, _ := handler.(ReleaseHandler)
	return &filter{
		informer:  i,
		handler:   handler,
		releases:  releases,
		logger:    logger,
		changes:   changeQueue{posted: make(chan struct{}, 1)},
		removed:   make(chan struct{}),
		shown:     map[cache.ObjectName]*shown{},
		deletions: deletions{window: i.window},
	}
}

// String formats the handler, for client-go's errors.
func (f *filter) String() string { return fmt.Sprint(f.handler) }

// locatedObject is an object and its point of the hash space.
type locatedObject struct {
	obj   any
	meta  metav1.Object // nil if obj is not an object
	name  cache.ObjectName
	point uint64
	// err is the reason why there is no point. An object without a point belongs to no
	// member: if it belonged to every member, all would work on it at once. But a handler that
	// already knows the object is notified of its update, as of an update to a key that this
	// member does not own, and of its deletion.
	err error
}

func (f *filter) locate(obj any) (s locatedObject) {
	s.obj = obj
	if s.meta, s.err = meta.Accessor(obj); s.err != nil {
		return s
	}
	s.name = cache.ObjectName{Namespace: s.meta.GetNamespace(), Name: s.meta.GetName()}
	s.point, s.err = f.informer.point(obj)
	return s
}

func (f *filter) active(s locatedObject) bool { return s.err == nil && f.activePoint(s.point) }

func (f *filter) activePoint(point uint64) bool {
	return f.informer.ownership.State(point) == ring.Active
}

// OnAdd is called by the inner informer.
func (f *filter) OnAdd(obj any, isInInitialList bool) {
	s := f.locate(obj)
	if !f.active(s) { // without the lock: nothing is recorded about events that are dropped here
		f.dropped(s)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	e, known := f.shown[s.name]
	switch {
	case known && !newer(s.meta.GetResourceVersion(), version(e.obj)):
		f.dropped(s) // a replay has delivered it
	case known:
		f.update(e, e.obj, s)
	case !f.active(s): // it was active before the lock was taken
		f.dropped(s)
	default:
		f.deliverAdd(s, isInInitialList)
		f.record(Passed)
	}
}

// OnUpdate is called by the inner informer.
func (f *filter) OnUpdate(oldObj, newObj any) {
	s := f.locate(newObj)
	oldMeta, err := meta.Accessor(oldObj)
	if s.meta == nil || err != nil {
		s.err = errors.Join(s.err, err)
		f.dropped(s)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	e, known := f.shown[s.name]
	if differ(oldMeta.GetUID(), s.meta.GetUID()) {
		// One object was deleted and another created while the watch was interrupted. A
		// handler that sees the update can detect this; the others must not miss the
		// deletion.
		o := f.locate(oldObj)
		f.deleted(o, cache.DeletedFinalStateUnknown{Key: o.name.String(), Obj: oldObj}, known && f.active(o))
	}
	switch {
	case !known:
		f.updateUnknown(oldObj, s)
	case overtaken(oldMeta.GetResourceVersion(), s.meta.GetResourceVersion(), version(e.obj)):
		f.updateOvertaken(e, oldObj, s)
	default:
		f.update(e, oldObj, s)
	}
}

// update delivers the next version of an object that the handler knows.
func (f *filter) update(e *shown, oldObj any, s locatedObject) {
	leaving := !f.active(s)
	if leaving && !f.activePoint(e.point) {
		// Released will release the object too, but until then the handler's version would
		// be out of date.
		f.dropped(s)
		f.release(s.name, e)
		return
	}
	e.obj, e.point = s.obj, s.point
	f.record(Passed)
	if !leaving {
		f.handler.OnUpdate(oldObj, s.obj)
		return
	}
	// The object has moved from a key that this member owns to a key that it does not own. The
	// handler sees this update, because it matters to the old key, and nothing after it.
	delete(f.shown, s.name)
	f.handler.OnUpdate(oldObj, s.obj)
	f.notifyReleased(s.obj)
}

// updateUnknown handles an update of an object that the handler does not know.
func (f *filter) updateUnknown(oldObj any, s locatedObject) {
	if f.active(s) {
		f.deliverAdd(s, false)
		f.record(Passed)
		return
	}
	if !f.active(f.locate(oldObj)) {
		f.dropped(s)
		return
	}
	// The key that the object has left is active, but its replay has not reached the object
	// and will no longer find it.
	f.record(Passed)
	f.handler.OnAdd(oldObj, false)
	f.handler.OnUpdate(oldObj, s.obj)
	f.notifyReleased(s.obj)
}

// updateOvertaken handles an update to a version that a replay has already delivered or
// skipped. Such an update matters only if the object left a key by it, or was replaced by
// another object.
func (f *filter) updateOvertaken(e *shown, oldObj any, s locatedObject) {
	o := f.locate(oldObj)
	if f.active(o) && (o.point != e.point || differ(uid(oldObj), uid(s.obj))) {
		f.record(Passed)
		f.handler.OnUpdate(oldObj, e.obj)
		return
	}
	f.dropped(s)
}

// OnDelete is called by the inner informer.
func (f *filter) OnDelete(obj any) {
	s := f.locateDeleted(obj)
	f.mu.Lock()
	defer f.mu.Unlock()
	e, known := f.shown[s.name]
	if s.err != nil && known { // use the point of its last known state
		s = locatedObject{obj: e.obj, name: s.name, point: e.point}
		s.meta, s.err = meta.Accessor(e.obj)
	}
	active := f.active(s)
	if known && differ(uid(e.obj), s.meta.GetUID()) {
		f.deleteOvertaken(s, obj, active)
		return
	}
	if known && newer(version(e.obj), s.meta.GetResourceVersion()) && f.stored(s.name) != nil {
		f.dropped(s) // it did not match the selector for a time, and a replay has delivered it again since
		return
	}
	f.deleted(s, obj, active)
	if !known && !active {
		f.dropped(s)
		return
	}
	delete(f.shown, s.name)
	f.record(Passed)
	f.handler.OnDelete(obj)
}

// locateDeleted locates a deleted object, also inside a cache.DeletedFinalStateUnknown. The
// object may be missing there: then only its name is known.
func (f *filter) locateDeleted(obj any) locatedObject {
	unknown, ok := obj.(cache.DeletedFinalStateUnknown)
	if !ok {
		return f.locate(obj)
	}
	if unknown.Obj != nil {
		return f.locate(unknown.Obj)
	}
	s := locatedObject{obj: obj, err: fmt.Errorf("the final state of %q is unknown", unknown.Key)}
	if namespace, name, found := strings.Cut(unknown.Key, "/"); found {
		s.name = cache.ObjectName{Namespace: namespace, Name: name}
	} else {
		s.name = cache.ObjectName{Name: unknown.Key}
	}
	return s
}

// deleteOvertaken handles the deletion of an object if a replay has already delivered another
// object of the same name.
func (f *filter) deleteOvertaken(s locatedObject, obj any, active bool) {
	d := f.deleted(s, obj, false)
	if !active {
		f.dropped(s)
		return
	}
	f.record(Passed)
	f.deliverDelete(d)
}

// deliverAdd delivers an object that the handler does not know, after the deletions of earlier
// objects of the same name.
func (f *filter) deliverAdd(s locatedObject, isInInitialList bool) {
	if list := f.deletions.byName[s.name]; len(list) > 0 {
		f.deletions.forgetReturned(s.name, s.meta.GetUID())
		now := time.Now()
		for _, d := range f.deletions.byName[s.name] {
			if f.deletions.due(d, now) && f.activePoint(d.point) {
				f.record(ReplayedDeletion)
				f.deliverDelete(d)
			}
		}
	}
	f.shown[s.name] = &shown{s.obj, s.point}
	f.handler.OnAdd(s.obj, isInInitialList)
}

// deleted remembers a deletion.
func (f *filter) deleted(s locatedObject, obj any, delivered bool) *deletion {
	now := time.Now()
	d := &deletion{name: s.name, uid: uid(s.obj), obj: obj, point: s.point, at: now, delivered: delivered}
	if s.err == nil {
		f.deletions.remember(d, f.changes.oldest(now))
	}
	return d
}

// deliverDelete delivers a deletion. If the handler knows another object of that name, the
// object is then added again: a handler that identifies objects by name would otherwise treat
// it as deleted.
func (f *filter) deliverDelete(d *deletion) {
	d.delivered = true
	f.handler.OnDelete(d.obj)
	if e, known := f.shown[d.name]; known {
		f.handler.OnAdd(e.obj, false)
	}
}

// release makes the handler forget an object, without a Delete.
func (f *filter) release(name cache.ObjectName, e *shown) {
	delete(f.shown, name)
	f.notifyReleased(e.obj)
}

func (f *filter) notifyReleased(obj any) {
	f.record(Released)
	if f.releases != nil {
		f.releases.OnReleased(obj)
	}
}

// stored returns the stored object of that name, or nil if there is none.
func (f *filter) stored(name cache.ObjectName) any {
	obj, exists, err := f.informer.GetStore().GetByKey(name.String())
	if err != nil || !exists {
		return nil
	}
	return obj
}

// dropped counts an event that is not delivered.
func (f *filter) dropped(s locatedObject) {
	if s.err == nil {
		f.record(Filtered)
		return
	}
	f.record(Malformed)
	logger := klog.Background()
	if f.logger != nil {
		logger = *f.logger
	}
	utilruntime.HandleErrorWithLogger(logger, s.err, "No member works on the object, because its key cannot be determined", "object", s.name)
}

func (f *filter) record(o Outcome) {
	if f.informer.recorder != nil {
		f.informer.recorder.Record(o)
	}
}

// overtaken reports whether an update contains nothing new for a handler that has seen the
// version shown.
func overtaken(oldVersion, newVersion, shown string) bool {
	switch shown {
	case newVersion:
		return oldVersion != newVersion // equal: a resync
	case oldVersion:
		return false
	}
	return !newer(newVersion, shown)
}

// newer reports whether version a is later than b. Versions that cannot be compared (some API
// servers' and most fakes') are treated as newer: it is safe to deliver an object twice, but
// not to miss it.
func newer(a, b string) bool {
	if a == b {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err != nil || order > 0
}

func version(obj any) string {
	m, err := meta.Accessor(obj)
	if err != nil {
		return ""
	}
	return m.GetResourceVersion()
}

func uid(obj any) types.UID {
	m, err := meta.Accessor(obj)
	if err != nil {
		return ""
	}
	return m.GetUID()
}
