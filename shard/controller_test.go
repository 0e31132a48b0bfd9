// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// controller is a member with an informer, a handler and a queue, but no workers.
type controller struct {
	*member
	maps  cache.SharedIndexInformer
	queue shard.Queue[cache.ObjectName]
	halt  context.CancelFunc
	runs  sync.WaitGroup
}

// control starts a controller whose informer syncs late.
func control(t *testing.T, cluster *shardtest.Cluster, objects *objects, pod string, late time.Duration) *controller {
	t.Helper()
	s, err := shard.New(cluster.Client(pod), shard.Config{Name: "foo", PodName: pod, Namespace: namespace, PodUID: t.Name() + pod})
	if err != nil {
		t.Fatal(err)
	}
	c := &controller{
		maps:  shard.NewInformer(s, objects.listWatch(late), &corev1.ConfigMap{}, 0, cache.Indexers{}),
		queue: shard.NewQueue(s, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]()),
	}
	add := func(obj any) {
		if name, err := cache.DeletionHandlingObjectToName(obj); err == nil {
			c.queue.Add(name)
		}
	}
	if _, err := c.maps.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: add, DeleteFunc: add}); err != nil {
		t.Fatal(err)
	}
	ctx, halt := context.WithCancel(context.Background())
	c.halt = halt
	c.runs.Go(func() { c.maps.RunWithContext(ctx) })
	serving, stop := context.WithCancel(context.Background())
	c.member = &member{Sharder: s, stop: stop, done: make(chan error, 1)}
	go func() { c.done <- s.Run(serving) }()
	return c
}

// taken empties the queue and returns its items.
func (c *controller) taken() []string {
	var names []string
	for c.queue.Len() > 0 {
		item, _ := c.queue.Get()
		names = append(names, item.String())
		c.queue.Done(item)
	}
	slices.Sort(names)
	return names
}

func (c *controller) close(t *testing.T) {
	t.Helper()
	if err := c.end(); err != nil {
		t.Error(err)
	}
	c.queue.ShutDown()
	c.halt()
	c.runs.Wait()
}

// predecessor runs a test in a synctest bubble with a hundred objects.
func predecessor(t *testing.T, test func(t *testing.T, cluster *shardtest.Cluster, objects *objects)) {
	synctest.Test(t, func(t *testing.T) {
		objects := newObjects()
		for i := range 100 {
			objects.write(objectName(i))
		}
		test(t, shardtest.NewCluster(), objects)
	})
}

func end(t *testing.T, members ...*member) {
	t.Helper()
	for _, m := range members {
		if err := m.end(); err != nil {
			t.Error(err)
		}
	}
}
