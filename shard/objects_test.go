// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/internal/leaseserver"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// objects is an API server for the ConfigMaps that members work on. As an
// http.RoundTripper it accepts writes.
type objects struct {
	mu    sync.Mutex
	store *leaseserver.Store[*corev1.ConfigMap] // by namespace/name
	gone  map[string]time.Time                  // when objects were deleted
	views []*view
}

// view is what one member sees: the objects of all namespaces except one.
type view struct {
	cache.ListWatch
	of      *objects
	without string
	late    time.Duration // of the first list
	once    sync.Once
	watch   *watch.ProxyWatcher // nil if none is running
	events  chan watch.Event
	next    int // number of the next change that it shows
	holds   bool
	broken  bool // lists and watches fail
	expired bool // the next watch fails, so that the informer lists again
}

func newObjects(names ...string) *objects {
	o := &objects{store: leaseserver.NewStore[*corev1.ConfigMap](), gone: map[string]time.Time{}}
	o.store.Revision = 1000
	for _, name := range names {
		o.write(name)
	}
	return o
}

// write creates or changes an object in the namespace default.
func (o *objects) write(name string) { o.put("default", name) }

func (o *objects) put(namespace, name string) (cm *corev1.ConfigMap, created bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := namespace + "/" + name
	cm = &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	stored, err := o.store.Update(key, leaseserver.Condition{}, cm)
	if err != nil {
		stored, _ = o.store.Create(key, time.Now(), cm)
	}
	delete(o.gone, key)
	o.show()
	return configMap(stored), err != nil
}

func configMap(o leaseserver.Object[*corev1.ConfigMap]) *corev1.ConfigMap {
	cm := o.Value.DeepCopy()
	cm.ResourceVersion = o.Version
	return cm
}

// remove deletes an object.
func (o *objects) remove(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := "default/" + name
	if o.store.Delete(key, leaseserver.Condition{}) == nil {
		o.gone[key] = time.Now()
		o.show()
	}
}

// versions returns the version of each object: "gone" if it was deleted after the
// given time. Objects that were deleted before are left out.
func (o *objects) versions(since time.Time) map[string]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	versions := map[string]string{}
	for _, object := range o.store.List() {
		versions[object.Name] = object.Version
	}
	for key, at := range o.gone {
		if at.After(since) {
			versions[key] = "gone"
		}
	}
	return versions
}

// listWatch returns a view whose first list is late.
func (o *objects) listWatch(late time.Duration) *view {
	v := &view{of: o, late: late}
	v.ListWithContextFunc = func(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
		v.once.Do(func() { pause(ctx, v.late) })
		o.mu.Lock()
		defer o.mu.Unlock()
		if v.broken {
			return nil, shardtest.ErrFault
		}
		list := &corev1.ConfigMapList{ListMeta: metav1.ListMeta{ResourceVersion: o.store.Version()}}
		for _, object := range o.store.List() {
			if v.selects(object.Value) {
				list.Items = append(list.Items, *configMap(object))
			}
		}
		return list, nil
	}
	v.WatchFuncWithContext = func(_ context.Context, options metav1.ListOptions) (watch.Interface, error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if v.broken {
			return nil, shardtest.ErrFault
		}
		next, err := o.store.After(options.ResourceVersion)
		if err == nil && v.expired {
			v.expired, err = false, leaseserver.ErrExpired
		}
		if err != nil {
			return nil, apierrors.NewResourceExpired(err.Error())
		}
		v.next, v.events = next, make(chan watch.Event, 10_000)
		v.watch = watch.NewProxyWatcher(v.events)
		v.show()
		return v.watch, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.views = append(o.views, v)
	return v
}

func (v *view) selects(cm *corev1.ConfigMap) bool { return cm.Namespace != v.without }

// IsWatchListSemanticsUnSupported makes the reflector use lists.
func (v *view) IsWatchListSemanticsUnSupported() bool { return true }

// hold holds back the events of the view, or releases the events that were held back.
func (v *view) hold(holds bool) {
	v.of.mu.Lock()
	defer v.of.mu.Unlock()
	v.holds = holds
	v.show()
}

// lose makes the server unreachable: lists and watches fail, and the watch that runs shows nothing.
func (v *view) lose() {
	v.of.mu.Lock()
	defer v.of.mu.Unlock()
	v.broken, v.holds = true, true
}

// regain ends what lose has begun. The watch resumes, or it ends, and the informer may have to list
// again.
func (v *view) regain(end, expired bool) {
	v.of.mu.Lock()
	defer v.of.mu.Unlock()
	v.broken, v.holds = false, false
	if end && v.watch != nil && !v.watch.Stopping() {
		close(v.events)
		v.watch, v.expired = nil, expired
	}
	v.show()
}

func (o *objects) show() {
	for _, v := range o.views {
		v.show()
	}
}

// show shows the changes since the last call, unless they are held back.
func (v *view) show() {
	if v.watch == nil || v.holds || v.watch.Stopping() {
		return
	}
	for ; v.next < v.of.store.End(); v.next++ {
		if event, object, ok := v.of.store.Change(v.next).Event(v.selects); ok {
			v.events <- watch.Event{Type: watch.EventType(event), Object: configMap(object)}
		}
	}
}

// RoundTrip carries out a PUT or a POST of an object.
func (o *objects) RoundTrip(r *http.Request) (*http.Response, error) {
	cm, created := o.put(path.Base(path.Dir(path.Dir(r.URL.Path))), path.Base(r.URL.Path))
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	body, err := json.Marshal(cm)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body))}, nil
}
