// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// A sharded operator reconciles ConfigMaps. A single replica owns all of them. With more
// replicas, exactly one of them reconciles each ConfigMap.
func Example() {
	client := shardtest.NewCluster().Client("op-0", // kubernetes.NewForConfig in an operator
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "settings", ResourceVersion: "1"}})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// Informers and workers outlive ctx: a drain needs them.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()

	s, err := shard.New(client, shard.DefaultConfig("example").WithPodName("op-0").WithNamespace("default"))
	if err != nil {
		fmt.Println(err)
		return
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	configMaps := shard.WrapInformer(s, factory.Core().V1().ConfigMaps().Informer(), shard.ByName)
	queue := shard.NewQueue(s, workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
	_, _ = configMaps.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { queue.Add(cache.MetaObjectToName(obj.(*corev1.ConfigMap))) },
	})
	worked := make(chan struct{})
	go func() {
		defer close(worked)
		for {
			item, shutdown := queue.Get()
			if shutdown {
				return
			}
			fmt.Println("reconcile", item, "until the context ends:", queue.Context(work, item).Err() == nil)
			queue.Done(item)
			cancel() // one ConfigMap is enough for an example
		}
	}()
	factory.StartWithContext(work)
	fmt.Println("Run returned", s.Run(ctx))
	queue.ShutDown()
	<-worked
	stopWork()
	factory.Shutdown()
	// Output:
	// reconcile default/settings until the context ends: true
	// Run returned <nil>
}

// A loop backs up databases once an hour. All replicas run it, and exactly one of them works on
// each database. No queue is involved.
func ExampleSharder_Acquire() {
	client := shardtest.NewCluster().Client("op-0") // kubernetes.NewForConfig in an operator
	s, err := shard.New(client, shard.DefaultConfig("backups").WithPodName("op-0").WithNamespace("default"))
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	stopped := make(chan error)
	go func() { stopped <- s.Run(ctx) }()

	backUp := func(database string) error {
		work, done, err := s.Acquire(ctx, database) // waits until this member owns it
		if err != nil {
			return err
		}
		defer done() // a handover waits for this
		// Pass work to everything that takes long. It ends when the database must move.
		fmt.Println("backing up", database, "until the context ends:", work.Err() == nil)
		if _, _, err := s.TryAcquire(ctx, database); errors.Is(err, shard.ErrInUse) {
			fmt.Println("no other loop of this process works on it")
		}
		return nil
	}
	fmt.Println(backUp("shop/orders"))
	stop()
	fmt.Println("Run returned", <-stopped)
	_, _, err = s.Acquire(context.Background(), "shop/orders")
	fmt.Println(err)
	// Output:
	// backing up shop/orders until the context ends: true
	// no other loop of this process works on it
	// <nil>
	// Run returned <nil>
	// acquire "shop/orders": the member has stopped
}

func ExampleConfig_Validate() {
	config := shard.DefaultConfig("foo-operator").WithPodName("op-0").WithNamespace("default")
	config.Load = 0.5
	config.RenewPeriod = 8 * time.Second
	fmt.Println(config.Validate())
	// Output:
	// shard: invalid configuration: Load: 0.5 must be a finite number of at least 1, or there is not enough room for all partitions
	// RenewPeriod: 8s must be less than 3/10 of LeaseDuration (15s)
}
