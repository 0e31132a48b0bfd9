// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// TestChildren hands over ConfigMaps, each with a Secret, between members that share one store
// of objects. The Secrets are deleted all the time. At the end each ConfigMap must have its Secret.
func TestChildren(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, x := shardtest.NewCluster(), new(shardtest.Exclusive)
		user := cluster.Client("user")
		const parents = 60
		for i := range parents {
			cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: fmt.Sprint("cm-", i)}}
			if _, err := user.CoreV1().ConfigMaps("x").Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		join := func(pod string) (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- parentController(ctx, pod, cluster.Client(pod), x) }()
			return func() {
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		}
		remove := func() {
			for i := range parents {
				if err := user.CoreV1().Secrets("x").Delete(t.Context(), fmt.Sprint("secret-of-cm-", i), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
					t.Error(err)
				}
				time.Sleep(30 * time.Millisecond)
			}
		}
		stopA := join("a")
		time.Sleep(3 * time.Second)
		remove()
		stopB := join("b")
		remove()
		stopC := join("c")
		remove()
		go stopA()
		remove()
		cluster.Break("b", shardtest.Unreachable)
		remove()
		cluster.Break("b", shardtest.None)
		time.Sleep(time.Minute)
		if got := len(cluster.Versions("secrets")); got != parents {
			t.Errorf("%d of %d ConfigMaps have their Secrets", got, parents)
		}
		if overlaps := x.Overlaps(); len(overlaps) > 0 || x.Total() < 5*parents {
			t.Errorf("overlaps in %d pieces of work: %v", x.Total(), overlaps)
		}
		stopB()
		stopC()
	})
}

// parentController creates the Secrets of ConfigMaps that have none.
func parentController(ctx context.Context, pod string, client kubernetes.Interface, x *shardtest.Exclusive) error {
	s, err := shard.New(client, shard.Config{Name: "foo", PodName: pod, Namespace: namespace, PodUID: podUID(pod)})
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	maps := shard.WrapInformer(s, factory.Core().V1().ConfigMaps().Informer())
	secrets := shard.WrapInformer(s, factory.Core().V1().Secrets().Informer(), shard.ByController)
	queue := newTestQueue(s)
	const prefix = "secret-of-"
	enqueue := func(obj any) {
		if name, err := cache.DeletionHandlingObjectToName(obj); err == nil {
			queue.Add(cache.ObjectName{Namespace: name.Namespace, Name: strings.TrimPrefix(name.Name, prefix)})
		}
	}
	for _, i := range []cache.SharedIndexInformer{maps, secrets} {
		if _, err := i.AddEventHandler(shard.HandlerFuncs{AddFunc: enqueue, DeleteFunc: enqueue}); err != nil {
			return err
		}
	}
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for item, work, shutdown := queue.GetWithContext(ctx); !shutdown; item, work, shutdown = queue.GetWithContext(ctx) {
				w := x.Begin(pod, item.String(), "")
				pause(work, 20*time.Millisecond)
				secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: item.Namespace, Name: prefix + item.Name, OwnerReferences: []metav1.OwnerReference{
					{APIVersion: "v1", Kind: "ConfigMap", Name: item.Name, UID: "u", Controller: new(true)},
				}}}
				if _, err := client.CoreV1().Secrets(item.Namespace).Create(work, secret, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
					queue.AddRateLimited(item)
				} else {
					queue.Forget(item)
				}
				w.End(true)
				queue.Done(item)
			}
		})
	}
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	factory.StartWithContext(work)
	err = s.Run(ctx)
	queue.ShutDown()
	workers.Wait()
	stopWork()
	factory.Shutdown()
	return err
}

func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var active []int
		m, _ := owner(t, func(c *shard.Config) {
			c.Partitions = 61
			c.OnChange = func(change shard.Change) {
				mu.Lock()
				defer mu.Unlock()
				if change.Kind == shard.Activated {
					active = append(active, change.Partitions...)
				}
			}
		})
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		seen := map[int]bool{}
		for _, key := range manyKeys {
			p := m.Partition(key)
			if !slices.Contains(active, p) {
				t.Errorf("partition %d of %s was not activated", p, key)
			}
			seen[p] = true
		}
		if len(seen) < 30 || len(active) != 61 {
			t.Errorf("%d keys are in %d partitions, %d partitions are active", len(manyKeys), len(seen), len(active))
		}
	})
}
