// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	corev1 "k8s.io/api/core/v1"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// A queue whose key cannot be determined, created while Run is running, must not hand out
// the same item on every member: no Run returns its error any more.
func TestG1_AQueueThatIsCreatedLateWithoutAKeyHandsOutNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type custom int
		cluster := shardtest.NewCluster()
		members := []*member{start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")}
		time.Sleep(5 * time.Second)
		oneOwnerEach(t, members...)
		handedOut := 0
		for _, m := range members {
			q := shard.NewQueue(m.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[custom]())
			defer q.ShutDown()
			q.Add(7)
			go func() {
				if item, shutdown := q.Get(); !shutdown {
					handedOut++
					q.Done(item)
				}
			}()
			synctest.Wait()
		}
		if handedOut > 0 {
			t.Errorf("%d members hand out an item that belongs to no partition", handedOut)
		}
		for _, m := range members {
			select {
			case err := <-m.done:
				t.Logf("Run has returned %v", err)
				m.done <- err
			default:
				t.Logf("Run of %s is still running; logged: %q", m.PodName(), m.logged(time.Now().Add(-time.Second)))
			}
			m.end()
		}
	})
}

// The same for an informer of dependents whose key cannot be used on the ring.
func TestLateWrapInformer_WithAnUnusableKeyIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		key := shard.ByFunc("x", func(o metav1.Object) string { return o.GetName() })
		a := start(t, cluster.Client("a"), "a", func(c *shard.Config) { c.Key = key })
		time.Sleep(5 * time.Second)
		pods := fake.NewClientset(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "y"}})
		i := shard.WrapInformer(a.Sharder, informers.NewSharedInformerFactory(pods, 0).Core().V1().Pods().Informer(), shard.ByController)
		seen := 0
		i.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) { seen++ }})
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); i.RunWithContext(ctx) }()
		time.Sleep(time.Second)
		if seen > 0 {
			t.Errorf("the handler sees %d objects, hashed by a key that is not the one requested", seen)
		}
		stop()
		<-done
		a.end()
	})
}

// A factory that has a plain informer: its handlers would see the objects of all members.
func TestLateInformerFor_OnAPlainInformerShowsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		time.Sleep(5 * time.Second)
		pods := fake.NewClientset(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "y"}})
		factory := informers.NewSharedInformerFactory(pods, 0)
		factory.Core().V1().Pods().Lister()
		i := shard.InformerFor(a.Sharder, factory, &corev1.Pod{}, coreinformers.NewPodInformer)
		seen := 0
		i.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) { seen++ }})
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); i.RunWithContext(ctx) }()
		time.Sleep(time.Second)
		if seen > 0 || len(i.GetStore().List()) != 1 {
			t.Errorf("the handler sees %d objects, the store has %d", seen, len(i.GetStore().List()))
		}
		stop()
		<-done
		a.end()
	})
}

// What a late informer's handlers see first is in the initial list, so FirstReplay must not
// wait for a change of the ring that may never come.
func TestLateWrapInformer_FirstReplayIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		time.Sleep(5 * time.Second)
		pods := fake.NewClientset(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "y"}})
		i := shard.WrapInformer(a.Sharder, informers.NewSharedInformerFactory(pods, 0).Core().V1().Pods().Informer())
		seen := 0
		handle, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) { seen++ }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); i.RunWithContext(ctx) }()
		time.Sleep(time.Minute)
		if !handle.HasSynced() || !cache.IsDone(shard.FirstReplay(handle)) || seen != 1 {
			t.Errorf("after a minute: synced %v, first replay %v, %d objects", handle.HasSynced(), cache.IsDone(shard.FirstReplay(handle)), seen)
		}
		stop()
		<-done
		a.end()
	})
}

// "To remove an informer, stop it": also one that shows everything, and one that never synced.
func TestStoppedInformersAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		time.Sleep(5 * time.Second)
		for _, key := range [][]shard.Key{{shard.Unfiltered}, nil} {
			pods := fake.NewClientset()
			pods.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("no list") })
			i := shard.WrapInformer(a.Sharder, informers.NewSharedInformerFactory(pods, 0).Core().V1().Pods().Informer(), key...)
			ctx, stop := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { defer close(done); i.RunWithContext(ctx) }()
			time.Sleep(time.Second)
			if got := a.Unsynced(); len(got) != 1 {
				t.Errorf("%q have not synced", got)
			}
			stop()
			<-done
			time.Sleep(2 * time.Minute)
			if got := a.Unsynced(); len(got) != 0 {
				t.Errorf("the member still has the stopped informers %q", got)
			}
		}
		a.end()
	})
}

// An informer that is stopped before it has synced keeps no member from joining.
func TestAnInformerThatIsStoppedBeforeTheJoinDoesNotHoldItUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := shard.New(shardtest.NewCluster().Client("a"), shard.Config{Name: "foo", PodName: "a", Namespace: namespace})
		if err != nil {
			t.Fatal(err)
		}
		pods := fake.NewClientset()
		pods.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("no list") })
		i := shard.WrapInformer(s, informers.NewSharedInformerFactory(pods, 0).Core().V1().Pods().Informer())
		ctx, stop := context.WithCancel(t.Context())
		running, stopRunning := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(running) }()
		go func() { i.RunWithContext(ctx) }()
		time.Sleep(5 * time.Second)
		if s.Ready() == nil {
			t.Error("ready although an informer has not synced")
		}
		stop()
		time.Sleep(20 * time.Second)
		if err := s.Ready(); err != nil {
			t.Error(err)
		}
		stopRunning()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Healthy: "nil unless the loop has hung".
func TestHealthy_WhileWorkOfALostLeaseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a", func(c *shard.Config) { c.DrainTimeout = 5 * time.Minute })
		q := newTestQueue(a.Sharder)
		time.Sleep(5 * time.Second)
		begin(q, anItem)
		cluster.Remove(namespace, "foo-a")
		time.Sleep(time.Minute)
		if err := a.Healthy(); err != nil {
			t.Errorf("the loop waits for work, for less than DrainTimeout: %v", err)
		}
		q.Done(anItem)
		time.Sleep(20 * time.Second)
		if err := a.Ready(); err != nil {
			t.Errorf("did not join again: %v", err)
		}
		if err := a.end(); err != nil {
			t.Error(err)
		}
		q.ShutDown()
		time.Sleep(time.Minute)
		if err := a.Healthy(); err != nil {
			t.Errorf("after Run has returned nil: %v", err)
		}
	})
}
