// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// request is an item of a type that the library does not know, as in many legacy queues.
type request struct{ namespace, name string }

// Items that show no key belong to no partition, unless the queue has a key function. With Unfiltered,
// each member adds all items.
func TestG1_ItemsWithAKeyFunction(t *testing.T) {
	for name, item := range map[string]func(metav1.Object) any{
		"a type of its own":    func(o metav1.Object) any { return request{o.GetNamespace(), o.GetName()} },
		"kind/namespace/name":  func(o metav1.Object) any { return "configmap/" + o.GetNamespace() + "/" + o.GetName() },
		"a name that is known": func(o metav1.Object) any { return cache.MetaObjectToName(o) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster, objects := shardtest.NewCluster(), newObjects()
				var x shardtest.Exclusive
				var running sync.WaitGroup
				ctx, cancel := context.WithCancel(context.Background())
				var queues []shard.Queue[any]
				var members []*member
				for _, pod := range []string{"a", "b"} {
					members = append(members, startWith(t, cluster.Client(pod), pod, func(s *shard.Sharder) {
						maps := shard.WrapInformer(s, cache.NewSharedIndexInformer(objects.listWatch(0), &corev1.ConfigMap{}, 0, nil), shard.Unfiltered)
						queue := shard.NewQueue(s, clientworkqueue.DefaultTypedControllerRateLimiter[any](), shard.WithItemKey(keyOfItem))
						queues = append(queues, queue)
						if _, err := maps.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) { queue.Add(item(obj.(metav1.Object))) }}); err != nil {
							t.Fatal(err)
						}
						running.Go(func() { maps.RunWithContext(ctx) })
						running.Go(func() {
							for {
								item, work, shutdown := queue.GetWithContext(ctx)
								if shutdown {
									return
								}
								key := keyOfItem(item)
								w := x.Begin(pod, key, "")
								pause(work, time.Second)
								w.End(true)
								queue.Forget(item)
								queue.Done(item)
							}
						})
					}))
				}
				time.Sleep(time.Minute)
				for i := range 10 {
					objects.write(objectName(i))
				}
				time.Sleep(time.Minute)
				if overlaps := x.Overlaps(); len(overlaps) > 0 || x.Total() != 10 {
					t.Errorf("10 new objects, %d pieces of work, %d overlaps: %v", x.Total(), len(overlaps), overlaps[:min(1, len(overlaps))])
				}
				for _, m := range members {
					if err := m.end(); err != nil {
						t.Error(err)
					}
				}
				for _, q := range queues {
					q.ShutDown()
				}
				cancel()
				running.Wait()
			})
		})
	}
}

func keyOfItem(item any) string {
	switch i := item.(type) {
	case request:
		return i.namespace + "/" + i.name
	case cache.ObjectName:
		return i.String()
	case string:
		_, key, _ := strings.Cut(i, "/")
		return key
	}
	return ""
}

// A drain waits for such items.
func TestG3_ItemsWithAKeyFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range 20 {
			names = append(names, objectName(i))
		}
		cluster, objects := shardtest.NewCluster(), newObjects(names...)
		var x shardtest.Exclusive
		var running sync.WaitGroup
		ctx, cancel := context.WithCancel(context.Background())
		var queues []shard.Queue[any]
		var members []*member
		for _, pod := range []string{"a", "b"} {
			members = append(members, startWith(t, cluster.Client(pod), pod, func(s *shard.Sharder) {
				maps := shard.WrapInformer(s, cache.NewSharedIndexInformer(objects.listWatch(0), &corev1.ConfigMap{}, 0, nil))
				queue := shard.NewQueue(s, clientworkqueue.DefaultTypedControllerRateLimiter[any](), shard.WithItemKey(keyOfItem))
				queues = append(queues, queue)
				if _, err := maps.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) {
					o := obj.(metav1.Object)
					queue.Add(request{o.GetNamespace(), o.GetName()})
				}}); err != nil {
					t.Fatal(err)
				}
				running.Go(func() { maps.RunWithContext(ctx) })
				for range len(names) {
					running.Go(func() {
						for {
							item, work, shutdown := queue.GetWithContext(ctx)
							if shutdown {
								return
							}
							w := x.Begin(pod, keyOfItem(item), "")
							pause(work, 4*time.Second) // less than DrainGrace
							w.End(true)
							queue.Forget(item)
							queue.Done(item)
						}
					})
				}
			}))
			time.Sleep(2 * time.Second)
		}
		time.Sleep(time.Minute)
		if overlaps := x.Overlaps(); len(overlaps) > 0 {
			t.Errorf("%d pieces of work, %d overlaps: %v", x.Total(), len(overlaps), overlaps[0])
		}
		for _, m := range members {
			if err := m.end(); err != nil {
				t.Error(err)
			}
		}
		for _, q := range queues {
			q.ShutDown()
		}
		cancel()
		running.Wait()
	})
}
