// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// metadataOf returns a ConfigMap as kube-apiserver shows it to a metadata client: the kind is that of
// the metadata, and not ConfigMap (apiserver/pkg/endpoints/handlers/response.go).
func metadataOf(cm *corev1.ConfigMap) *metav1.PartialObjectMetadata {
	m := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"}, ObjectMeta: *cm.ObjectMeta.DeepCopy()}
	m.UID = types.UID("uid-" + cm.Name)
	return m
}

// metadataView is what a metadata informer lists and watches.
type metadataView struct{ *view }

func (v metadataView) List(options metav1.ListOptions) (runtime.Object, error) {
	return v.ListWithContext(context.Background(), options)
}

func (v metadataView) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	all, err := v.view.ListWithContext(ctx, options)
	if err != nil {
		return nil, err
	}
	list := &metav1.PartialObjectMetadataList{ListMeta: all.(*corev1.ConfigMapList).ListMeta}
	for _, cm := range all.(*corev1.ConfigMapList).Items {
		list.Items = append(list.Items, *metadataOf(&cm))
	}
	return list, nil
}

func (v metadataView) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	w, err := v.view.WatchWithContext(ctx, options)
	if err != nil {
		return nil, err
	}
	events := make(chan watch.Event)
	shown := watch.NewProxyWatcher(events)
	go func() {
		for {
			select {
			case e := <-w.ResultChan():
				if cm, ok := e.Object.(*corev1.ConfigMap); ok {
					e.Object = metadataOf(cm)
				}
				select {
				case events <- e:
				case <-shown.StopChan():
				}
			case <-shown.StopChan():
				w.Stop()
				return
			}
		}
	}()
	return shown, nil
}

// withUID adds UIDs to the responses of objects.
type withUID struct{ *objects }

func (o withUID) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := o.objects.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	var cm corev1.ConfigMap
	if err := json.NewDecoder(response.Body).Decode(&cm); err != nil {
		return nil, err
	}
	cm.UID = types.UID("uid-" + cm.Name)
	body, err := json.Marshal(&cm)
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response, err
}

// G9 holds for metadata informers, whose objects do not show their kind.
func TestG9_MetadataInformers(t *testing.T) {
	for _, form := range []string{"metadata", "typed"} {
		t.Run(form, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster, server := shardtest.NewCluster(), newObjects("x", "y", "x1", "x2", "x3", "x4")
				operate := func(pod string) *operator {
					o := &operator{view: server.listWatch(0), adds: map[string][]string{}}
					s, err := shard.New(cluster.Client(pod), shard.Config{Name: "foo", PodName: pod, Namespace: namespace, PodUID: podUID(pod)})
					if err != nil {
						t.Fatal(err)
					}
					o.client.Transport = s.WrapTransport(withUID{server})
					inner := cache.NewSharedIndexInformer(metadataView{o.view}, &metav1.PartialObjectMetadata{}, 0, nil)
					if form == "typed" {
						inner = cache.NewSharedIndexInformer(o.view, &corev1.ConfigMap{}, 0, nil)
					}
					maps := shard.WrapInformer(s, inner)
					if _, err := maps.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) {
						o.mu.Lock()
						defer o.mu.Unlock()
						m := obj.(metav1.Object)
						o.adds[m.GetName()] = append(o.adds[m.GetName()], m.GetResourceVersion())
					}}); err != nil {
						t.Fatal(err)
					}
					o.queue = shard.NewQueue(s, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
					ctx, cancel := context.WithCancel(context.Background())
					o.cancel = cancel
					o.run = sync.WaitGroup{}
					o.run.Go(func() { maps.RunWithContext(ctx) })
					o.member = &member{Sharder: s, done: make(chan error, 1)}
					running, stop := context.WithCancel(context.Background())
					o.stop = stop
					go func() { o.done <- s.Run(running) }()
					return o
				}
				a, b := operate("a"), operate("b")
				time.Sleep(5 * time.Second)
				b.forget()
				name := ""
				for _, n := range []string{"x", "y", "x1", "x2", "x3", "x4"} {
					if a.OwnsKey("default/" + n) {
						name = n
					}
				}
				if name == "" {
					t.Fatal("a owns nothing")
				}
				b.view.hold(true) // the watch of b is late
				last := a.write(t, name, "default", name)
				a.close(t)
				time.Sleep(500 * time.Millisecond)
				if versions := b.added(name); len(versions) > 0 {
					t.Errorf("b works on %s at versions %q; the last write of the former owner is %s", name, versions, last)
				}
				b.view.hold(false)
				time.Sleep(time.Second)
				if versions := b.added(name); !slices.Contains(versions, last) && len(versions) != 1 {
					t.Errorf("b has seen %q", versions)
				}
				b.close(t)
			})
		})
	}
}
