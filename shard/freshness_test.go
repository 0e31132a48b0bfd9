// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// operator is a member that works on ConfigMaps.
type operator struct {
	*member
	view   *view
	queue  shard.Queue[cache.ObjectName]
	client http.Client
	cancel context.CancelFunc
	run    sync.WaitGroup

	mu   sync.Mutex
	adds map[string][]string // versions that were delivered as Adds, by name
}

func (c *objects) operator(t *testing.T, cluster *shardtest.Cluster, pod string, view *view, wraps bool, wait time.Duration) *operator {
	t.Helper()
	o := &operator{view: view, adds: map[string][]string{}}
	cfg := shard.Config{Name: "foo", PodName: pod, Namespace: namespace, PodUID: podUID(pod), CacheSyncTimeout: wait}
	s, err := shard.New(cluster.Client(pod), cfg)
	if err != nil {
		t.Fatal(err)
	}
	o.client.Transport = s.WrapTransport(c)
	var maps cache.SharedIndexInformer
	if wraps {
		maps = shard.WrapInformer(s, cache.NewSharedIndexInformer(view, &corev1.ConfigMap{}, 0, nil), shard.ByName)
	} else {
		maps = shard.NewInformer(s, view, &corev1.ConfigMap{}, 0, nil)
	}
	if _, err := maps.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) {
		o.mu.Lock()
		defer o.mu.Unlock()
		cm := obj.(*corev1.ConfigMap)
		o.adds[cm.Name] = append(o.adds[cm.Name], cm.ResourceVersion)
	}}); err != nil {
		t.Fatal(err)
	}
	o.queue = shard.NewQueue(s, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
	ctx, cancel := context.WithCancel(context.Background())
	o.cancel = cancel
	o.run.Go(func() { maps.RunWithContext(ctx) })
	o.member = &member{Sharder: s, done: make(chan error, 1)}
	running, stop := context.WithCancel(context.Background())
	o.stop = stop
	go func() { o.done <- s.Run(running) }()
	return o
}

// close ends everything.
func (o *operator) close(t *testing.T) {
	t.Helper()
	if err := o.end(); err != nil {
		t.Error(err)
	}
	o.queue.ShutDown()
	o.cancel()
	o.run.Wait()
}

// write makes the work on an object write another object, and returns its new version.
func (o *operator) write(t *testing.T, item, namespace, name string) string {
	t.Helper()
	o.queue.Add(cache.ObjectName{Namespace: "default", Name: item})
	got, _ := o.queue.Get()
	defer o.queue.Done(got)
	r, err := http.NewRequestWithContext(o.queue.Context(context.Background(), got), http.MethodPut, "http://127.0.0.1/api/v1/namespaces/"+namespace+"/configmaps/"+name, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := o.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer corev1.ConfigMap
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer.ResourceVersion
}

func (o *operator) added(name string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.adds[name])
}

// forget forgets what was delivered: which of two members joins first is left to chance, and
// the first one is shown everything.
func (o *operator) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.adds)
}

func (o *operator) wantWaits(t *testing.T, outcome string, some bool) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(o.Collector())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "sharding_cache_waits_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			if m.GetLabel()[0].GetValue() == outcome {
				if n := m.GetCounter().GetValue(); (n > 0) != some {
					t.Errorf("%v waits that ended as %q, want some: %v", n, outcome, some)
				}
				return
			}
		}
	}
	t.Errorf("there is no metric for waits that ended as %q", outcome)
}

// pair returns two members a and b, where a works on the object with the given name and is
// about to leave.
func pair(t *testing.T, wraps bool, wait time.Duration) (server *objects, a, b *operator, name string) {
	t.Helper()
	var names []string
	for i := range 50 {
		names = append(names, fmt.Sprintf("cm-%d", i))
	}
	cluster := shardtest.NewCluster()
	server = newObjects(names...)
	a = server.operator(t, cluster, "a", server.listWatch(0), wraps, wait)
	b = server.operator(t, cluster, "b", server.listWatch(0), wraps, wait)
	time.Sleep(5 * time.Second)
	b.forget()
	for _, name := range names {
		if a.OwnsKey("default/" + name) {
			return server, a, b, name
		}
	}
	t.Fatal("a owns nothing")
	return nil, nil, nil, ""
}

// A member gains an object whose last version its informer has not shown yet. It does not
// begin work with the version before it.
func TestCacheSyncTimeout_NoWorkFromACacheThatIsOlderThanTheLastWrite(t *testing.T) {
	for _, wraps := range []bool{false, true} {
		t.Run(fmt.Sprintf("wraps=%v", wraps), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, a, b, name := pair(t, wraps, 0)
				own := owners(b.member)
				b.view.hold(true)
				last := a.write(t, name, "default", name)
				a.close(t)
				time.Sleep(500 * time.Millisecond)
				if b.OwnsKey("default/"+name) || len(b.added(name)) > 0 {
					t.Errorf("b works on %s, at versions %q; the last is %s", name, b.added(name), last)
				}
				for key, who := range own {
					if len(who) > 0 && !b.OwnsKey(key) {
						t.Fatalf("b owned %s all the time, and has lost it", key)
					}
				}
				b.view.hold(false)
				time.Sleep(50 * time.Millisecond)
				if versions := b.added(name); !b.OwnsKey("default/"+name) || !slices.Equal(versions, []string{last}) {
					t.Errorf("b began with %q; the last is %s", versions, last)
				}
				b.wantWaits(t, "reached", true)
				b.wantWaits(t, "gave_up", false)
				b.close(t)
			})
		})
	}
}

// The same run without the rule, to show that the test above can fail.
func TestCacheSyncTimeout_WithoutItWorkBeginsWithAnOldVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b, name := pair(t, false, time.Millisecond)
		b.view.hold(true)
		last := a.write(t, name, "default", name)
		a.close(t)
		time.Sleep(500 * time.Millisecond)
		if versions := b.added(name); len(versions) != 1 || versions[0] == last {
			t.Errorf("b began with %q; the last is %s", versions, last)
		}
		b.view.hold(false)
		b.close(t)
	})
}

// An informer that has stopped must not block the operator forever.
func TestCacheSyncTimeout_IsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b, name := pair(t, false, 0)
		b.view.hold(true)
		a.write(t, name, "default", name)
		a.close(t)
		time.Sleep(shard.DefaultCacheSyncTimeout + 200*time.Millisecond)
		if !b.OwnsKey("default/" + name) {
			t.Error("b still waits")
		}
		b.wantWaits(t, "reached", false)
		b.wantWaits(t, "gave_up", true)
		b.view.hold(false)
		b.close(t)
	})
}

func TestCacheSyncTimeout_NoWaitForCachesThatAreUpToDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b, name := pair(t, true, 0)
		last := a.write(t, name, "default", name)
		a.close(t)
		time.Sleep(100 * time.Millisecond)
		if versions := b.added(name); !slices.Equal(versions, []string{last}) {
			t.Errorf("b began with %q; the last is %s", versions, last)
		}
		b.wantWaits(t, "reached", false)
		b.wantWaits(t, "gave_up", false)
		b.close(t)
	})
}

// A write of an object that the informers do not select causes no wait: neither of an object
// that they never show, nor of one that was created a while ago.
func TestCacheSyncTimeout_NoWaitForObjectsThatNoInformerSelects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		server := newObjects("x", "y", "x1", "x2")
		narrow := func() *view { v := server.listWatch(0); v.without = "other"; return v }
		a := server.operator(t, cluster, "a", narrow(), false, 0)
		b := server.operator(t, cluster, "b", narrow(), false, 0)
		time.Sleep(5 * time.Second)
		b.forget()
		name := map[bool]string{true: "x", false: "y"}[a.OwnsKey("default/x")]
		if !a.OwnsKey("default/" + name) {
			t.Fatal("a owns neither")
		}
		last := a.write(t, name, "default", name)
		a.write(t, name, "other", "z") // created
		time.Sleep(2 * time.Second)
		a.write(t, name, "other", "z") // updated
		a.write(t, name, "other", "w") // created just now, like z, which was never shown
		a.close(t)
		time.Sleep(100 * time.Millisecond)
		if versions := b.added(name); !slices.Equal(versions, []string{last}) {
			t.Errorf("b began with %q; the last is %s", versions, last)
		}
		b.wantWaits(t, "reached", false)
		b.wantWaits(t, "gave_up", false)
		b.close(t)
	})
}
