// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"math"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// deliverDelete delivers the deletion of an earlier object. If the handler knows another
// object of that name, the object that is stored now is then added again: a handler that
// identifies objects by name would otherwise treat it as deleted.
func (f *filter) deliverDelete(id id, deleted, now any, exists bool) {
	f.handler.OnDelete(deleted)
	_, known := f.shown[id]
	if f.forget(id); !known || !exists || f.cleared.Load() {
		return // if the other object was deleted, too, the stream will deliver that
	}
	var s located
	f.locate(&s, now)
	if s.id = id; f.state(&s) != ring.Active {
		f.missed(&s)
		return
	}
	f.earlier(&s)
	f.show(&s)
	f.overtake(&s)
	f.handler.OnAdd(now, false)
}

// deliverAdd delivers an object that the handler does not know, after the deletions of earlier
// objects of the same name.
func (f *filter) deliverAdd(s *located, add func(obj any)) {
	for _, t := range f.earlier(s) {
		// The stream will deliver later ones itself, possibly of objects that came after this one.
		if _, done := f.delivered[t.seq]; !done && t.seq <= f.observed && f.activePoint(t.point) && !f.cleared.Load() {
			f.record(ReplayedDeletion)
			f.noteDelivered(t.deletion)
			f.missed(s) // the handler may panic
			f.handler.OnDelete(f.informer.deleted(t))
		}
	}
	f.show(s)
	if !f.cleared.Load() {
		add(s.obj)
	}
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

// forget records that the handler does not know an object any more.
func (f *filter) forget(id id) {
	delete(f.shown, id)
	delete(f.ahead, id)
	delete(f.names, id)
}

// noteDelivered records that a deletion was delivered, if this member owns the partition. If
// it does not, the deletion is delivered again should it get the partition.
func (f *filter) noteDelivered(d deletion) {
	if d.seq > 0 && f.informer.ownership.State(d.point) != ring.NotOwned {
		f.delivered[d.seq] = d.point
	}
}

// notifyReleased reports the release of an object whose last delivered version passed the
// handler's own filter, or not.
func (f *filter) notifyReleased(obj any, passed bool) {
	f.record(Released)
	if f.released != nil && passed && !f.cleared.Load() {
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
