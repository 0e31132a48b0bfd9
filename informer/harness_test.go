// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// harness drives one filter directly: the test determines when the store changes, what the
// stream delivers and when, and when replays happen. No goroutine is involved.
type harness struct {
	t *testing.T
	*owner
	i     *Informer
	f     *filter
	inner *recordingInformer
	j     *releaseJournal
	count counted
}

func newHarness(t *testing.T, o *owner) *harness {
	inner := cache.NewSharedIndexInformer(&cache.ListWatch{}, &corev1.ConfigMap{}, 0, cache.Indexers{})
	h := &harness{t: t, owner: o, j: &releaseJournal{}, inner: &recordingInformer{SharedIndexInformer: inner}}
	h.i = Wrap(h.inner, Options{Ownership: o, Point: pointOfLabel})
	h.count = counted{h.i}
	if _, err := h.i.AddEventHandlerWithOptions(h.j, cache.HandlerOptions{Logger: &klog.Logger{}}); err != nil {
		t.Fatal(err)
	}
	h.f = h.i.filters[0]
	return h
}

// recordingInformer has recorded the version that the test determines.
type recordingInformer struct {
	cache.SharedIndexInformer
	recorded string
}

func (i *recordingInformer) LastSyncResourceVersion() string { return i.recorded }

// put and drop change the store, which is ahead of the stream. Calls of h.f's OnAdd, OnUpdate
// and OnDelete are the stream.
func (h *harness) put(obj any) {
	h.t.Helper()
	if err := h.i.GetIndexer().Update(obj); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) drop(obj any) {
	h.t.Helper()
	if err := h.i.GetIndexer().Delete(obj); err != nil {
		h.t.Fatal(err)
	}
}

// created, updated and deleted change the store and deliver the event.
func (h *harness) created(obj any) {
	h.put(obj)
	h.f.OnAdd(obj, false)
}

func (h *harness) updated(oldObj, newObj any) {
	h.put(newObj)
	h.f.OnUpdate(oldObj, newObj)
}

func (h *harness) deleted(obj any) {
	h.drop(obj)
	h.f.OnDelete(obj)
}

// replay processes all queued changes.
func (h *harness) replay() {
	h.t.Helper()
	for c, ok := h.f.changes.first(); ok; c, ok = h.f.changes.first() {
		if !h.f.apply(h.t.Context(), c) {
			h.t.Fatal("interrupted")
		}
		h.f.done(c)
	}
}

// wants compares lines with what the handler has seen since the last call.
func (h *harness) wants(lines ...string) {
	h.t.Helper()
	if diff := cmp.Diff(lines, h.j.take()); diff != "" {
		h.t.Errorf("the handler saw (-want +got):\n%s", diff)
	}
}

// knows reports whether the handler knows an object.
func (h *harness) knows(name string) bool {
	_, known := h.f.shown[h.i.identifyKey("ns/"+name)]
	return known
}
