// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
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

// unfilteredControl is a controller whose only informer is Unfiltered: it shows the objects that
// are reconciled. It records the work on them.
type unfilteredControl struct {
	*member
	registration cache.ResourceEventHandlerRegistration

	mu   sync.Mutex
	done []string // names
}

// worked returns the names of the objects that were worked on since its last call, sorted.
func (c *unfilteredControl) worked() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	done := slices.Compact(slices.Sorted(slices.Values(c.done)))
	c.done = nil
	return done
}

func (c *unfilteredControl) record(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = append(c.done, name)
}

// controlUnfiltered starts a controller with a queue of this library, or with a queue of client-go
// and TryAcquire.
func controlUnfiltered(t *testing.T, cluster *shardtest.Cluster, objects *objects, pod string, acquires bool) *unfilteredControl {
	t.Helper()
	c := &unfilteredControl{}
	c.member = startWith(t, cluster.Client(pod), pod, func(s *shard.Sharder) {
		maps := shard.WrapInformer(s, cache.NewSharedIndexInformer(objects.listWatch(0), &corev1.ConfigMap{}, 0, nil), shard.Unfiltered)
		var queue clientworkqueue.TypedRateLimitingInterface[cache.ObjectName]
		if limiter := clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName](); acquires {
			queue = clientworkqueue.NewTypedRateLimitingQueue(limiter)
		} else {
			queue = shard.NewQueueFor(maps, limiter)
		}
		enqueue := func(obj any) {
			if name, err := cache.DeletionHandlingObjectToName(obj); err == nil {
				queue.Add(name)
			}
		}
		var err error
		c.registration, err = maps.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: enqueue, UpdateFunc: func(_, obj any) { enqueue(obj) }, DeleteFunc: enqueue})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { maps.RunWithContext(ctx) })
		running.Go(func() {
			for item, shutdown := queue.Get(); !shutdown; item, shutdown = queue.Get() {
				c.work(s, queue, item, acquires)
				queue.Done(item)
			}
		})
		t.Cleanup(func() { queue.ShutDown(); cancel(); running.Wait() })
	})
	return c
}

func (c *unfilteredControl) work(s *shard.Sharder, queue clientworkqueue.TypedRateLimitingInterface[cache.ObjectName], item cache.ObjectName, acquires bool) {
	if acquires {
		_, end, err := s.TryAcquire(context.Background(), item.String())
		switch {
		case errors.Is(err, shard.ErrNotOwned):
			queue.Forget(item) // the handlers of its owner see the object
			return
		case err != nil:
			queue.AddRateLimited(item)
			return
		}
		defer end()
	}
	c.record(item.Name)
	queue.Forget(item)
}

// The handlers see the initial list before the member owns anything, and the events of other
// members' objects. Whoever works on the objects drops those. They are shown again when the member gains them.
func TestUnfiltered_GainedObjectsAreWorkedOn(t *testing.T) {
	for name, acquires := range map[string]bool{"queue": false, "TryAcquire": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				var all []string
				for n := range 20 {
					all = append(all, objectName(n))
				}
				slices.Sort(all)
				objects := newObjects(all...)
				a := controlUnfiltered(t, cluster, objects, "a", acquires)
				time.Sleep(10 * time.Second)
				if !cache.IsDone(shard.FirstReplay(a.registration)) {
					t.Error("the first replay is not done")
				}
				if done := a.worked(); !slices.Equal(done, all) {
					t.Errorf("the only member has worked on %q; log: %q", done, a.logged(time.Time{}))
				}
				b := controlUnfiltered(t, cluster, objects, "b", acquires)
				time.Sleep(10 * time.Second)
				var theirs []string
				for _, name := range all {
					if b.OwnsKey("default/" + name) {
						theirs = append(theirs, name)
					}
				}
				if done := b.worked(); !slices.Equal(done, theirs) || len(theirs) == 0 {
					t.Errorf("a member that has gained %q has worked on %q", theirs, done)
				}
				// a sees the events of b's objects, and must not have lost them when it gains these objects.
				gone := theirs[0]
				objects.remove(gone)
				objects.write(theirs[1])
				time.Sleep(time.Second)
				if done := a.worked(); len(done) != 0 {
					t.Errorf("a has worked on %q without owning them", done)
				}
				if err := b.end(); err != nil {
					t.Error(err)
				}
				time.Sleep(10 * time.Second)
				if done := a.worked(); !slices.Equal(done, theirs) {
					t.Errorf("a has gained %q, of which %s is deleted, and has worked on %q", theirs, gone, done)
				}
			})
		})
	}
}

// The handlers of each member see all objects, as those of the informer inside it do.
func TestUnfiltered_AllMembersSeeAllObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, objects := shardtest.NewCluster(), newObjects("x", "y", "z")
		ctx, stop := context.WithCancel(context.Background())
		var run sync.WaitGroup
		var members []*member
		seen := map[string][]string{}
		var mu sync.Mutex
		for _, pod := range []string{"a", "b"} {
			members = append(members, startWith(t, cluster.Client(pod), pod, func(s *shard.Sharder) {
				maps := shard.WrapInformer(s, cache.NewSharedIndexInformer(objects.listWatch(0), &corev1.ConfigMap{}, 0, nil), shard.Unfiltered)
				see := func(obj any) {
					name, _ := cache.DeletionHandlingObjectToName(obj)
					mu.Lock()
					defer mu.Unlock()
					seen[pod] = append(seen[pod], name.Name)
				}
				// A GainedFunc keeps gained objects apart: they can wait for live ones (AddGained).
				if _, err := maps.AddEventHandler(shard.HandlerFuncs{AddFunc: see, DeleteFunc: see, GainedFunc: func(any) {}, ReleasedFunc: see}); err != nil {
					t.Fatal(err)
				}
				run.Go(func() { maps.RunWithContext(ctx) })
			}))
			time.Sleep(10 * time.Second)
		}
		objects.write("new")
		time.Sleep(time.Second)
		objects.remove("x")
		time.Sleep(time.Second)
		mu.Lock()
		for pod, names := range seen {
			slices.Sort(names)
			if !slices.Equal(names, []string{"new", "x", "x", "y", "z"}) {
				t.Errorf("the handler of %s has seen %q", pod, names)
			}
		}
		if len(seen) != 2 {
			t.Errorf("the handlers of %d members have seen something", len(seen))
		}
		mu.Unlock()
		end(t, members...) // the last one gains the other's objects, and sees deletions again
		stop()
		run.Wait()
	})
}
