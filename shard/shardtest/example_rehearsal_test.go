// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shardtest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// operate is an operator, as its main function runs it. It calls reconcile for each item.
func operate(ctx context.Context, member string, client kubernetes.Interface, reconcile func(*corev1.ConfigMap)) error {
	s, err := shard.New(client, shard.Config{Name: "example", PodName: member, Namespace: "ops", LeaseDuration: 2 * time.Second})
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	informer := shard.WrapInformer(s, factory.Core().V1().ConfigMaps().Informer())
	queue := shard.NewQueue(s, workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
	enqueue := func(obj any) { queue.Add(cache.MetaObjectToName(obj.(*corev1.ConfigMap))) }
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: enqueue, UpdateFunc: func(_, obj any) { enqueue(obj) }}); err != nil {
		return err
	}
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for item, shutdown := queue.Get(); !shutdown; item, shutdown = queue.Get() {
				if obj, ok, _ := informer.GetStore().GetByKey(item.String()); ok {
					reconcile(obj.(*corev1.ConfigMap))
				}
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

// test is the test: 15 lines. It belongs in a bubble of testing/synctest, where it takes no time.
func test(reconcile func(*corev1.ConfigMap, *shardtest.Work)) error {
	return shardtest.Rehearsal{
		Operate: func(ctx context.Context, m *shardtest.Member) error {
			return operate(ctx, m.Name, m.Client, func(cm *corev1.ConfigMap) { reconcile(cm, m.Begin(cm)) })
		},
		Objects: func(version int) (objects []runtime.Object) {
			for i := range 20 {
				meta := metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("cm-", i)}
				objects = append(objects, &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"v": fmt.Sprint(version)}})
			}
			return objects
		},
	}.Run()
}

// Two reconcilers are tested. The second one has a fault that is easy to make: it continues to
// work after its item was done.
func ExampleRehearsal() {
	err := test(func(_ *corev1.ConfigMap, work *shardtest.Work) {
		time.Sleep(5 * time.Millisecond)
		work.End(true)
	})
	fmt.Println("works until Done:", err)

	var background sync.WaitGroup
	err = test(func(_ *corev1.ConfigMap, work *shardtest.Work) {
		background.Go(func() {
			time.Sleep(200 * time.Millisecond)
			work.End(true)
		})
	})
	background.Wait()
	fmt.Println("works in the background: overlap:", errors.Is(err, shardtest.ErrOverlap))
	// Output:
	// works until Done: <nil>
	// works in the background: overlap: true
}
