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

// A filter stands between the inner informer and one handler.
//
// Two goroutines call the handler: the inner informer's, with the stream of events,
// and Replay's, with what a change of ownership brings. Each call is made under mu,
// together with the check of ownership and the note of what was shown, so that the
// handler sees one order.
//
// Why nothing is lost: the inner informer changes its store before it tells a
// handler. Say that the stream brings version v of an object and the filter drops
// it, because State does not answer Active. If the partition becomes active later,
// Activated is called after State answers so, and the replay that it asks for reads
// the store later still: it finds v or what came after v, and shows it. If the
// partition was active already, the event would not have been dropped. Whether
// Activated came before or after the drop makes no difference, only that the drop
// saw State before the activation was published.
//
// A replay may thus overtake the stream, never the other way round; what the stream
// brings afterwards is recognised by its resourceVersion.
//
// Invariant: the handler has seen, or been relieved of by a later version, each
// event that the stream has brought of an object in shown. So a replay has nothing
// to tell of these: what is still to come will come by the stream.
type filter struct {
	informer   *Informer
	handler    cache.ResourceEventHandler
	releases   ReleaseHandler // the handler, nil if it does not want to hear
	logger     *klog.Logger   // nil: the default
	mail       changeQueue
	removed    chan struct{} // closed, under Informer.mu, when the handler is removed
	registered bool          // with the inner informer; guarded by Informer.mu
	working    bool          // a goroutine of Replay serves it; guarded by Informer.mu

	mu        sync.Mutex
	shown     map[cache.ObjectName]*shown
	deletions deletions
}

// shown is what a handler knows of an object.
type shown struct {
	obj   any // the last version that it was shown
	point uint64
}

func newFilter(i *Informer, handler cache.ResourceEventHandler, logger *klog.Logger) *filter {
	releases, _ := handler.(ReleaseHandler)
	return &filter{
		informer:  i,
		handler:   handler,
		releases:  releases,
		logger:    logger,
		mail:      changeQueue{posted: make(chan struct{}, 1)},
		removed:   make(chan struct{}),
		shown:     map[cache.ObjectName]*shown{},
		deletions: deletions{window: i.window},
	}
}

// String is the handler, for client-go's errors.
func (f *filter) String() string { return fmt.Sprint(f.handler) }

// locatedObject is an object and where it lies.
type locatedObject struct {
	obj   any
	meta  metav1.Object // nil for what is not an object
	name  cache.ObjectName
	point uint64
	// err says why there is no point. An object without one is nobody's: were it
	// everybody's, all members would work on it at once. But a handler that knows it
	// from before hears of its update, as of one to a key that this member does not own, and of its deletion.
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
	if !f.active(s) { // without the lock: nothing is noted of what is dropped here
		f.dropped(s)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	e, known := f.shown[s.name]
	switch {
	case known && !newer(s.meta.GetResourceVersion(), version(e.obj)):
		f.dropped(s) // a replay has shown it
	case known:
		f.update(e, e.obj, s)
	case !f.active(s): // it was, before the lock was taken
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
		// One object was deleted and another created while nobody looked. Who sees the
		// update can tell; the others must not miss the deletion.
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

// update shows the next version of an object that the handler knows.
func (f *filter) update(e *shown, oldObj any, s locatedObject) {
	leaving := !f.active(s)
	if leaving && !f.activePoint(e.point) {
		// Released will say so; until then the handler would lag behind.
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
	// The object has moved from a key of this member's to another's. The handler
	// hears of it, for the sake of the key that was left, and of nothing thereafter.
	delete(f.shown, s.name)
	f.handler.OnUpdate(oldObj, s.obj)
	f.tellReleased(s.obj)
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
	// The key that the object has left is active, but its replay has not got here
	// and won't find the object any more.
	f.record(Passed)
	f.handler.OnAdd(oldObj, false)
	f.handler.OnUpdate(oldObj, s.obj)
	f.tellReleased(s.obj)
}

// updateOvertaken handles an update to a version that a replay has shown already,
// or has skipped. It matters only if the object has left a key by it, or was
// replaced by another one.
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
	if s.err != nil && known { // its last state says where it lies
		s = locatedObject{obj: e.obj, name: s.name, point: e.point}
		s.meta, s.err = meta.Accessor(e.obj)
	}
	active := f.active(s)
	if known && differ(uid(e.obj), s.meta.GetUID()) {
		f.deleteOvertaken(s, obj, active)
		return
	}
	if known && newer(version(e.obj), s.meta.GetResourceVersion()) && f.stored(s.name) != nil {
		f.dropped(s) // it had left the selection, and a replay has shown it on its return
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

// locateDeleted looks into a cache.DeletedFinalStateUnknown. Its object may be
// missing: then there is only a name.
func (f *filter) locateDeleted(obj any) locatedObject {
	unknown, is := obj.(cache.DeletedFinalStateUnknown)
	if !is {
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

// deleteOvertaken handles the deletion of an object after which a replay has shown
// another one of the same name.
func (f *filter) deleteOvertaken(s locatedObject, obj any, active bool) {
	d := f.deleted(s, obj, false)
	if !active {
		f.dropped(s)
		return
	}
	f.record(Passed)
	f.tell(d)
}

// first shows an object that the handler does not know, after the deletions of its
// predecessors.
func (f *filter) deliverAdd(s locatedObject, isInInitialList bool) {
	if of := f.deletions.byName[s.name]; len(of) > 0 {
		f.deletions.cameBack(s.name, s.meta.GetUID())
		now := time.Now()
		for _, d := range f.deletions.byName[s.name] {
			if f.deletions.due(d, now) && f.activePoint(d.point) {
				f.record(ReplayedDeletion)
				f.tell(d)
			}
		}
	}
	f.shown[s.name] = &shown{s.obj, s.point}
	f.handler.OnAdd(s.obj, isInInitialList)
}

// deleted remembers a deletion.
func (f *filter) deleted(s locatedObject, obj any, told bool) *deletion {
	now := time.Now()
	d := &deletion{name: s.name, uid: uid(s.obj), obj: obj, point: s.point, at: now, told: told}
	if s.err == nil {
		f.deletions.remember(d, f.mail.oldest(now))
	}
	return d
}

// tell shows a deletion. If the handler knows another object of that name, it sees
// it anew: whoever goes by names would take it for the one that was deleted.
func (f *filter) tell(d *deletion) {
	d.told = true
	f.handler.OnDelete(d.obj)
	if e, known := f.shown[d.name]; known {
		f.handler.OnAdd(e.obj, false)
	}
}

// release takes an object from the handler without saying that it was deleted.
func (f *filter) release(name cache.ObjectName, e *shown) {
	delete(f.shown, name)
	f.tellReleased(e.obj)
}

func (f *filter) tellReleased(obj any) {
	f.record(Released)
	if f.releases != nil {
		f.releases.OnReleased(obj)
	}
}

// stored returns what the store has under the name, nil if nothing.
func (f *filter) stored(name cache.ObjectName) any {
	obj, exists, err := f.informer.GetStore().GetByKey(name.String())
	if err != nil || !exists {
		return nil
	}
	return obj
}

// dropped counts an event that is not shown.
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
	utilruntime.HandleErrorWithLogger(logger, s.err, "No member works on an object, because its key can't be told", "object", s.name)
}

func (f *filter) record(o Outcome) {
	if f.informer.recorder != nil {
		f.informer.recorder.Record(o)
	}
}

// overtaken reports whether an update brings nothing new to a handler that was
// shown the given version.
func overtaken(oldVersion, newVersion, shown string) bool {
	switch shown {
	case newVersion:
		return oldVersion != newVersion // else it is a resync
	case oldVersion:
		return false
	}
	return !newer(newVersion, shown)
}

// newer reports whether version a came after b. Versions that can't be compared
// (some API servers' and most fakes') are taken for newer: to show something twice
// does no harm, not to show it would.
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
