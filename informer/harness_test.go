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

// A harness drives one filter by hand: the test decides when the store changes, when
// the stream brings what, and when replays happen. No goroutine is involved.
type harness struct {
	t *testing.T
	*owner
	i     *Informer
	f     *filter
	j     *releaseJournal
	count *counter
}

func newRig(t *testing.T, o *owner) *harness {
	inner := cache.NewSharedIndexInformer(&cache.ListWatch{}, &corev1.ConfigMap{}, 0, nil)
	r := &harness{t: t, owner: o, j: &releaseJournal{}, count: &counter{}}
	r.i = Wrap(inner, Options{Ownership: o, Point: pointOfLabel, Recorder: r.count})
	if _, err := r.i.AddEventHandlerWithOptions(r.j, cache.HandlerOptions{Logger: &klog.Logger{}}); err != nil {
		t.Fatal(err)
	}
	r.f = r.i.filters[0]
	return r
}

// The store is ahead of the stream: put and drop change it, OnAdd, OnUpdate and
// OnDelete of r.f are the stream.
func (r *harness) put(obj any) {
	r.t.Helper()
	if err := r.i.GetIndexer().Update(obj); err != nil {
		r.t.Fatal(err)
	}
}

func (r *harness) drop(obj any) {
	r.t.Helper()
	if err := r.i.GetIndexer().Delete(obj); err != nil {
		r.t.Fatal(err)
	}
}

// created, updated and deleted do both at once.
func (r *harness) created(obj any) {
	r.put(obj)
	r.f.OnAdd(obj, false)
}

func (r *harness) updated(oldObj, newObj any) {
	r.put(newObj)
	r.f.OnUpdate(oldObj, newObj)
}

func (r *harness) deleted(obj any) {
	r.drop(obj)
	r.f.OnDelete(obj)
}

// replay works off the mail.
func (r *harness) replay() {
	r.t.Helper()
	for c, ok := r.f.mail.first(); ok; c, ok = r.f.mail.first() {
		if !r.f.apply(r.t.Context(), c) {
			r.t.Fatal("interrupted")
		}
		r.f.mail.drop()
	}
}

// wants compares with what the handler has seen since the last call.
func (r *harness) wants(lines ...string) {
	r.t.Helper()
	if diff := cmp.Diff(lines, r.j.take()); diff != "" {
		r.t.Errorf("the handler saw (-want +got):\n%s", diff)
	}
}
