// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shardtest_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// operate is an operator, as its main function runs it. It calls reconcile for each item.
func operate(ctx context.Context, member string, client kubernetes.Interface, reconcile func(cache.ObjectName, *corev1.ConfigMap)) error {
	s, err := shard.New(client, shard.Config{Name: "example", PodName: member, Namespace: "ops", StartupSettle: -1})
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
					reconcile(item, obj.(*corev1.ConfigMap))
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

// rehearse lets one member join and another one stop while objects change, and returns whether two
// pieces of work on one object overlapped, and how many objects did not get their last version
// reconciled. In a test, call it within testing/synctest: then it takes no time.
func rehearse(reconcile func(cm *corev1.ConfigMap, begin func() *shardtest.Work)) (overlaps bool, lost int) {
	cluster, x := shardtest.NewCluster(), new(shardtest.Exclusive)
	start := func(member string) (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() {
			ended <- operate(ctx, member, cluster.Client(member), func(key cache.ObjectName, cm *corev1.ConfigMap) {
				reconcile(cm, func() *shardtest.Work { return x.Begin(member, key.String(), cm.ResourceVersion) })
			})
		}()
		return func() { cancel(); <-ended }
	}
	change := func(version int) { // creates the objects, or changes them
		for i := range 20 {
			cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("cm-", i)}, Data: map[string]string{"v": fmt.Sprint(version)}}
			maps := cluster.Client("user").CoreV1().ConfigMaps("default")
			if _, err := maps.Update(context.Background(), cm, metav1.UpdateOptions{}); err != nil {
				_, _ = maps.Create(context.Background(), cm, metav1.CreateOptions{})
			}
			time.Sleep(time.Millisecond)
		}
	}
	stopFirst := start("op-0")
	change(1)
	stopSecond := start("op-1")
	change(2)
	stopFirst()
	change(3)
	for end := time.Now().Add(20 * time.Second); len(x.Lost(cluster.Versions("configmaps"))) > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	stopSecond()
	return len(x.Overlaps()) > 0, len(x.Lost(cluster.Versions("configmaps")))
}

// Two reconcilers are tested. The second one has a fault that is easy to make: it works on
// after its item was done.
func Example_reconciler() {
	overlaps, lost := rehearse(func(_ *corev1.ConfigMap, begin func() *shardtest.Work) {
		work := begin()
		time.Sleep(5 * time.Millisecond)
		work.End(true)
	})
	fmt.Printf("works until Done: overlaps %v, lost %d\n", overlaps, lost)

	var background sync.WaitGroup
	overlaps, lost = rehearse(func(_ *corev1.ConfigMap, begin func() *shardtest.Work) {
		work := begin()
		background.Go(func() {
			time.Sleep(200 * time.Millisecond)
			work.End(true)
		})
	})
	background.Wait()
	fmt.Printf("works in the background: overlaps %v, lost %d\n", overlaps, lost)
	// Output:
	// works until Done: overlaps false, lost 0
	// works in the background: overlaps true, lost 0
}
