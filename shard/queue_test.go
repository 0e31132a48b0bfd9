// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

type nilKeyed struct{ name *string }

func (k nilKeyed) ShardKey() string { return *k.name }

// In a queue of an interface type, each item has the partition that its own type gives it.
func TestNewQueue_OfAnInterfaceType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a, b := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")
		untyped := shard.NewQueue(a.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[any]())
		defer untyped.ShutDown()
		//lint:ignore SA1019 controllers that were not converted use it
		var _ clientworkqueue.RateLimitingInterface = untyped
		keys := shard.NewQueue(a.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[shard.Keyed]())
		defer keys.ShutDown()
		time.Sleep(5 * time.Second)
		owned := 0
		for i := range 20 {
			name, want := fmt.Sprintf("foo-%d", i), 0
			if a.OwnsKey("default/" + name) {
				owned++
				want = 1
			}
			for _, item := range []any{keyed{name}, cache.ObjectName{Namespace: "default", Name: name}, "default/" + name} {
				untyped.Add(item)
				if untyped.Len() != want {
					t.Errorf("%T %v: %d queued, want %d", item, item, untyped.Len(), want)
				}
				drain(untyped)
			}
			keys.Add(keyed{name})
			if keys.Len() != want {
				t.Errorf("%s as Keyed: %d queued, want %d", name, keys.Len(), want)
			}
			drain(keys)
		}
		if owned == 0 || owned == 20 {
			t.Errorf("a owns %d of 20", owned)
		}
		// Items without a key are handed out where they were added, and reported once.
		since := time.Now()
		for _, item := range []any{7, nil, nilKeyed{}, "a/b/c"} {
			untyped.Add(item)
		}
		if untyped.Len() != 4 {
			t.Errorf("%d queued, want all 4 items without a key", untyped.Len())
		}
		drain(untyped)
		keys.Add(nil)
		drain(keys)
		if lines := a.logged(since); len(lines) != 2 || !strings.Contains(lines[0], "item of type int") {
			t.Errorf("logged: %q", lines)
		}
		end(t, a, b)
	})
}

// An item whose key is not the key of its object is dropped by every member. In a stable ring
// that is reported, once for each queue, and counted.
// Nothing can refuse such items before they are added, and to drop them would lose work. They are
// handed out, counted, and the log says what to do.
func TestNewQueue_ReportsItemsWithoutAPartition(t *testing.T) {
	type request struct{ namespace, name string }
	for name, test := range map[string]struct {
		item    any
		options []shard.QueueOption[any]
		want    float64
	}{
		"a type of its own":   {request{"x", "y"}, nil, 2},
		"kind/namespace/name": {"configmap/x/y", nil, 2},
		"a key function":      {request{"x", "y"}, []shard.QueueOption[any]{shard.WithItemKey(func(item any) string { return item.(request).namespace + "/" + item.(request).name })}, 0},
		"a name":              {cache.ObjectName{Namespace: "x", Name: "y"}, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, _ := owner(t)
				q := shard.NewQueue(m.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[any](), test.options...)
				defer q.ShutDown()
				for range 2 {
					q.Add(test.item)
					got, _ := q.Get()
					if got != test.item {
						t.Errorf("got %v", got)
					}
					q.Done(got)
				}
				if n := result(t, m, "malformed"); n != test.want {
					t.Errorf("%v items were counted, want %v", n, test.want)
				}
				n := strings.Count(m.log.String(), "belongs to no partition")
				if n != min(int(test.want), 1) {
					t.Errorf("logged %d times: %s", n, m.log.String())
				}
				if n > 0 && (!strings.Contains(m.log.String(), "WithItemKey") || !strings.Contains(m.log.String(), fmt.Sprintf("type=\"%T\"", test.item))) {
					t.Errorf("the log does not say what to do: %s", m.log.String())
				}
			})
		})
	}
}

func TestNewQueue_ReportsMisroutedItems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a, b := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")
		logs := shard.NewQueueWithConfig(a.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[string](),
			clientworkqueue.TypedRateLimitingQueueConfig[string]{Name: "volumes"})
		defer logs.ShutDown()
		var hooked []string
		calls := shard.NewQueue(a.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[string](),
			shard.WithMisroutedHook(func(item string) { hooked = append(hooked, item) }))
		defer calls.ShutDown()
		var foreign []string
		logs.Add("before") // Run
		time.Sleep(5 * time.Second)
		for i := range 20 {
			if uid := fmt.Sprintf("uid-%d", i); !a.OwnsKey(uid) {
				foreign = append(foreign, uid)
			}
		}
		add := func() []string {
			since := time.Now()
			for _, item := range foreign {
				logs.Add(item)
				calls.Add(item)
				logs.AddAfter(item, 1) // timers may outlive a handover
			}
			synctest.Wait()
			return a.logged(since)
		}
		if lines := add(); len(lines) != 0 || len(hooked) != 0 {
			t.Errorf("soon after a handover: %q, %q", lines, hooked)
		}
		time.Sleep(time.Minute)
		if lines := add(); len(lines) != 1 || !strings.Contains(lines[0], foreign[0]) {
			t.Errorf("in a stable ring: %q", lines)
		}
		time.Sleep(time.Second)
		if lines := add(); len(lines) != 0 {
			t.Errorf("again: %q", lines)
		}
		if len(hooked) != 2*len(foreign) {
			t.Errorf("the hook was called %d times, want %d", len(hooked), 2*len(foreign))
		}
		if n := result(t, a, "misrouted"); n != float64(4*len(foreign)) {
			t.Errorf("%v counted, want %d", n, 4*len(foreign))
		}
		end(t, a, b)
	})
}

// The handlers of an unfiltered informer add the items of all members. These are counted, and no
// warning says that no member works on them.
func TestNewQueue_ItemsOfAnUnfilteredInformerAreExpected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, objects := shardtest.NewCluster(), newObjects()
		a, b := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")
		q := newTestQueue(a.Sharder)
		i := shard.WrapInformer(a.Sharder, cache.NewSharedIndexInformer(objects.listWatch(0), &corev1.ConfigMap{}, 0, nil), shard.Unfiltered)
		if _, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) { q.Add(cache.MetaObjectToName(obj.(*corev1.ConfigMap))) }}); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { i.RunWithContext(ctx) })
		time.Sleep(2 * time.Minute)
		since := time.Now()
		for n := range 20 {
			objects.write(objectName(n))
		}
		time.Sleep(time.Second)
		if n := result(t, a, "misrouted"); n == 0 || n != float64(20-q.Len()) {
			t.Errorf("%v counted as misrouted, %d of 20 queued", n, q.Len())
		}
		if lines := a.logged(since); len(lines) != 0 {
			t.Errorf("logged: %q", lines)
		}
		end(t, a, b)
		q.ShutDown()
		stop()
		run.Wait()
	})
}

// result returns the count of a result in sharding_queue_items_total.
func result(t *testing.T, m *member, label string) float64 {
	t.Helper()
	return testutil.ToFloat64(collected{m.Collector(), "sharding_queue_items_total", label})
}

// A queue of namespaced items gets one without a namespace: probably a key was cut wrong.
func TestNewQueue_ReportsAnItemWithoutANamespace(t *testing.T) {
	for _, key := range []shard.Key{shard.ByName, shard.ByNamespace} {
		synctest.Test(t, func(t *testing.T) {
			a := start(t, shardtest.NewCluster().Client("a"), "a", func(c *shard.Config) { c.Key = key })
			q := shard.NewQueue(a.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[string]())
			defer q.ShutDown()
			clusterScoped := shard.NewQueue(a.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[string]())
			defer clusterScoped.ShutDown()
			time.Sleep(5 * time.Second)
			since := time.Now()
			for _, item := range []string{"default/foo", "foo", "bar"} {
				q.Add(item)
			}
			clusterScoped.Add("foo")
			if lines := a.logged(since); len(lines) != 1 || !strings.Contains(lines[0], "foo") {
				t.Errorf("ring by %s: %q", key.Name(), lines)
			}
			end(t, a)
		})
	}
}

// One controller works with a sharded queue and with client-go's.
func TestWorkContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(t, shardtest.NewCluster().Client("a"), "a")
		sharded := shard.NewQueue(a.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[string]())
		time.Sleep(5 * time.Second)
		plain := clientworkqueue.NewTypedRateLimitingQueue(clientworkqueue.DefaultTypedControllerRateLimiter[string]())
		for _, q := range []clientworkqueue.TypedRateLimitingInterface[string]{sharded, plain} {
			q.Add("default/foo")
			item, _ := q.Get()
			ctx := shard.WorkContext(t.Context(), q, item)
			q.Done(item)
			switch {
			case q == plain && ctx != t.Context():
				t.Error("the context of a plain queue is not the parent")
			case q != plain && !errors.Is(context.Cause(ctx), workqueue.ErrDone):
				t.Errorf("the context of a sharded queue has ended with %v after Done", context.Cause(ctx))
			}
			q.ShutDown()
		}
		end(t, a)
	})
}

func TestNewQueue_WithoutARateLimiter(t *testing.T) {
	s, err := shard.New(shardtest.NewCluster().Client("a"), shard.Config{Name: "foo", PodName: "a", Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	shard.NewQueue[string](s, nil).ShutDown()
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "the rate limiter is nil") {
		t.Errorf("Run returned %v", err)
	}
}

// The ring gives a partition to this member, and its former owner still works on it: an item
// of that partition does not belong to another member.
func TestNewQueue_ItemsOfAPartitionThatIsToComeAreNotMisrouted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		member := func(name string) (*member, shard.Queue[string]) {
			m := start(t, cluster.Client(name), name, func(c *shard.Config) { c.DrainGrace = 10 * time.Minute })
			q := shard.NewQueue(m.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[string]())
			t.Cleanup(q.ShutDown)
			return m, q
		}
		a, atA := member("a")
		time.Sleep(5 * time.Second)
		name, _ := twoOfOnePartition(t, manyKeys, "b")
		item := name.String()
		atA.Add(item)
		atA.Get()
		b, atB := member("b")
		time.Sleep(time.Minute)
		if owner, _ := b.Owner(item); owner != "b" || b.OwnsKey(item) {
			t.Fatalf("the owner of %s is %s", item, owner)
		}
		since := time.Now()
		atB.Add(item)
		if n, lines := result(t, b, "misrouted"), b.logged(since); n != 0 || len(lines) != 0 {
			t.Errorf("%v items are misrouted, logged: %q", n, lines)
		}
		atA.Done(item)
		end(t, a, b)
	})
}
