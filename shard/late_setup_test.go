// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	corev1 "k8s.io/api/core/v1"

	"github.com/tom-ludwig/operator-scaling/informer"
	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
	"github.com/tom-ludwig/operator-scaling/workqueue"
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

// A member of a ring with fewer partitions than members may own none, and is ready. Whoever waits for
// FirstReplay before it starts its workers, or reports that it is ready, must not wait forever.
func TestFirstReplay_OfAMemberThatOwnsNothingIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, objects := shardtest.NewCluster(), newObjects("x", "y")
		var run sync.WaitGroup
		defer run.Wait()
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		nothing := 0
		for _, pod := range []string{"a", "b", "c", "d"} {
			var first cache.DoneChecker
			m := startWith(t, cluster.Client(pod), pod, func(s *shard.Sharder) {
				maps := shard.WrapInformer(s, cache.NewSharedIndexInformer(objects.listWatch(0), &corev1.ConfigMap{}, 0, nil))
				registration, err := maps.AddEventHandler(cache.ResourceEventHandlerFuncs{})
				if err != nil {
					t.Fatal(err)
				}
				first = shard.FirstReplay(registration)
				run.Go(func() { maps.RunWithContext(ctx) })
			}, func(c *shard.Config) { c.Partitions = 2 })
			if synctest.Wait(); cache.IsDone(first) {
				t.Errorf("%s has not joined, and FirstReplay is done", pod)
			}
			time.Sleep(time.Minute)
			if err := m.Ready(); err != nil {
				t.Errorf("%s is not ready: %v", pod, err)
			}
			if !cache.IsDone(first) {
				t.Errorf("%s is ready, and FirstReplay is not done; it owns %d partitions", pod, m.OwnedCount())
			}
			if m.OwnedCount() == 0 {
				nothing++
			}
		}
		if nothing == 0 {
			t.Error("each member owns something")
		}
	})
}

// A member that must wait until members with another key have left is ready, too.
func TestFirstReplay_OfAMemberThatWaitsForAnotherKeyIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, objects := shardtest.NewCluster(), newObjects("x")
		a := start(t, cluster.Client("a"), "a")
		time.Sleep(10 * time.Second)
		ctx, stop := context.WithCancel(context.Background())
		var run sync.WaitGroup
		var first cache.DoneChecker
		var seen []string
		b := startWith(t, cluster.Client("b"), "b", func(s *shard.Sharder) {
			maps := shard.WrapInformer(s, cache.NewSharedIndexInformer(objects.listWatch(0), &corev1.ConfigMap{}, 0, nil))
			registration, err := maps.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) {
				seen = append(seen, obj.(*corev1.ConfigMap).Name)
			}})
			if err != nil {
				t.Fatal(err)
			}
			first = shard.FirstReplay(registration)
			run.Go(func() { maps.RunWithContext(ctx) })
		}, func(c *shard.Config) { c.Key = shard.ByNamespace })
		time.Sleep(10 * time.Second)
		if err := b.Ready(); err != nil || !cache.IsDone(first) || b.OwnedCount() > 0 {
			t.Errorf("ready: %v; first replay done: %v; %d partitions", err, cache.IsDone(first), b.OwnedCount())
		}
		if err := a.end(); err != nil {
			t.Error(err)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if len(seen) != 1 {
			t.Errorf("the handler has seen %q after the other member has left", seen)
		}
		stop()
		run.Wait()
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

// Controllers come and go while the ring is stable and nothing is written. Neither the stores of their informers nor their
// queues stay in memory.
func TestStoppedInformersAreFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(t, shardtest.NewCluster().Client("a"), "a")
		time.Sleep(5 * time.Second)
		var gone []weak.Pointer[informer.Informer]
		var shutDown []weak.Pointer[workqueue.Queue[cache.ObjectName]]
		for range 5 {
			i := shard.WrapInformer(a.Sharder, cache.NewSharedIndexInformer(newObjects("x").listWatch(0), &corev1.ConfigMap{}, 0, nil))
			queue := shard.NewQueueFor(i, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
			if _, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{}); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { defer close(done); i.RunWithContext(ctx) }()
			time.Sleep(time.Second)
			stop()
			<-done
			queue.ShutDown()
			gone = append(gone, weak.Make(i.(*informer.Informer)))
			shutDown = append(shutDown, weak.Make(queue.(*workqueue.Queue[cache.ObjectName])))
		}
		time.Sleep(2 * time.Minute) // the member forgets them
		synctest.Wait()
		goruntime.GC()
		goruntime.GC()
		for n := range gone {
			if gone[n].Value() != nil || shutDown[n].Value() != nil {
				t.Errorf("number %d is still in memory: the informer %t, the queue %t", n, gone[n].Value() != nil, shutDown[n].Value() != nil)
			}
		}
		a.end()
	})
}

// labelled is a wrapper of an informer that is passed as a value, and cannot be compared.
type labelled struct {
	cache.SharedIndexInformer
	labels map[string]string
}

// WrapInformer is for any cache.SharedIndexInformer. A member looks for an informer when it forgets it.
func TestWrapInformer_OfAValueThatCannotBeCompared(t *testing.T) {
	for name, key := range map[string]shard.Key{"ByName": shard.ByName, "Unfiltered": shard.Unfiltered} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := labelled{cache.NewSharedIndexInformer(newObjects("x").listWatch(0), &corev1.ConfigMap{}, 0, nil), map[string]string{"team": "red"}}
				ctx, stop := context.WithCancel(context.Background())
				var maps cache.SharedIndexInformer
				a := startWith(t, shardtest.NewCluster().Client("a"), "a", func(s *shard.Sharder) { maps = shard.WrapInformer(s, inner, key) })
				go maps.RunWithContext(ctx)
				time.Sleep(time.Minute)
				stop()
				time.Sleep(3 * time.Minute) // the member forgets it
				if n, _ := a.Registered(); n != 0 {
					t.Errorf("the member has %d informers", n)
				}
				if err := a.end(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A factory may have such an informer, too.
func TestInformerFor_AfterAValueThatCannotBeCompared(t *testing.T) {
	client := fake.NewClientset()
	s := shard.NewOrDie(client, shard.Config{Name: "foo", PodName: "a", Namespace: namespace})
	factory := informers.NewSharedInformerFactory(client, 0)
	factory.InformerFor(&corev1.Pod{}, func(client kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
		return labelled{coreinformers.NewPodInformer(client, metav1.NamespaceAll, resync, cache.Indexers{}), map[string]string{}}
	})
	shard.InformerFor(s, factory, &corev1.Pod{}, coreinformers.NewPodInformer)
	if err := s.SetupError(); err == nil || !strings.Contains(err.Error(), "plain informer") {
		t.Errorf("error %v, want one about a plain informer", err)
	}
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
