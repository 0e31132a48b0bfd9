// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// Each test in this file covers a weakness of this library's predecessor for
// controller-runtime, and uses only the public API.
// docs/predecessor.md lists them.

func TestP01_GainedObjectsAreEnqueued(t *testing.T) {
	predecessor(t, func(t *testing.T, cluster *shardtest.Cluster, objects *objects) {
		a, b := control(t, cluster, objects, "a", 0), control(t, cluster, objects, "b", 0)
		time.Sleep(5 * time.Second)
		mine, theirs := a.taken(), b.taken()
		if len(mine) == 0 || len(theirs) == 0 || len(mine)+len(theirs) != 100 {
			t.Fatalf("a received %d objects and b %d, want 100 together", len(mine), len(theirs))
		}
		b.close(t)
		time.Sleep(time.Second)
		if gained := a.taken(); !slices.Equal(gained, theirs) {
			t.Errorf("a received %d objects after b had stopped, want b's %d", len(gained), len(theirs))
		}
		a.close(t)
	})
}

func TestP02_RetriesAndTimersEndWithOwnership(t *testing.T) {
	predecessor(t, func(t *testing.T, cluster *shardtest.Cluster, objects *objects) {
		a := control(t, cluster, objects, "a", 0)
		time.Sleep(5 * time.Second)
		for _, key := range a.taken() {
			name, _ := cache.ParseObjectName(key)
			a.queue.AddAfter(name, 10*time.Second)
			a.queue.AddRateLimited(name)
		}
		time.Sleep(time.Second) // the retries wait in the queue
		b := control(t, cluster, objects, "b", 0)
		time.Sleep(14 * time.Second)
		theirs, kept := b.taken(), a.taken()
		if len(theirs) == 0 || len(theirs)+len(kept) != 100 {
			t.Errorf("b received %d objects and a %d, want 100 together", len(theirs), len(kept))
		}
		for _, key := range kept {
			if slices.Contains(theirs, key) {
				t.Fatalf("a received %s, which b owns", key)
			}
		}
		a.close(t)
		b.close(t)
	})
}

func TestP03_WhoCannotRenewStopsBeforeOthersBegin(t *testing.T) {
	predecessor(t, func(t *testing.T, cluster *shardtest.Cluster, objects *objects) {
		a, b := control(t, cluster, objects, "a", 0), control(t, cluster, objects, "b", 0)
		time.Sleep(5 * time.Second)
		item, _ := a.queue.Get()
		ctx := a.queue.Context(context.Background(), item)
		b.taken()
		cluster.Break("a", shardtest.Unreachable)
		for range 300 {
			time.Sleep(100 * time.Millisecond)
			if b.queue.Len() > 0 && ctx.Err() == nil {
				t.Fatal("b received objects of a while a may still work on them")
			}
		}
		if !errors.Is(context.Cause(ctx), workqueue.ErrFenced) || !a.Fenced() || b.queue.Len() == 0 {
			t.Errorf("a's context has ended with %v; a fenced: %v; b has %d objects", context.Cause(ctx), a.Fenced(), b.queue.Len())
		}
		a.queue.Done(item)
		a.close(t)
		b.close(t)
	})
}

func TestP04_NothingIsAdmittedBeforeTheRingIsKnown(t *testing.T) {
	predecessor(t, func(t *testing.T, cluster *shardtest.Cluster, objects *objects) {
		cluster.Break("a", shardtest.Unreachable)
		a := control(t, cluster, objects, "a", 0)
		a.queue.Add(cache.ObjectName{Namespace: "default", Name: "x"})
		time.Sleep(30 * time.Second)
		if n := a.queue.Len(); !a.maps.HasSynced() || n != 0 || a.OwnsKey("default/x") {
			t.Errorf("a member that has seen no Lease has %d objects to work on", n)
		}
		a.close(t)
	})
}

func TestP05_AMemberJoinsWhenItsCachesHaveSynced(t *testing.T) {
	predecessor(t, func(t *testing.T, cluster *shardtest.Cluster, objects *objects) {
		a := control(t, cluster, objects, "a", 0)
		time.Sleep(5 * time.Second)
		b := control(t, cluster, objects, "b", 20*time.Second)
		time.Sleep(15 * time.Second)
		if a.MemberCount() != 1 || b.Ready() == nil || len(a.taken()) != 100 {
			t.Errorf("b is on the ring before its informer has synced: %q", a.Members())
		}
		time.Sleep(10 * time.Second)
		if a.MemberCount() != 2 || b.Ready() != nil || len(b.taken()) == 0 {
			t.Errorf("b is not on the ring: %q, %v", a.Members(), b.Ready())
		}
		a.close(t)
		b.close(t)
	})
}

func TestP06_AnEmptyRingAndALeaseWithoutDurationDoNoHarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		holder := "x_1"
		for n, record := range []map[string]string{nil, {"operator-scaling.tom-ludwig.github.io/protocol": "1"}} {
			cluster.Put(&coordinationv1.Lease{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprint("foo-x", n), Labels: map[string]string{"operator-scaling.tom-ludwig.github.io/ring": "foo"}, Annotations: record},
				Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder},
			})
		}
		a := start(t, cluster.Client("a"), "a")
		if owner, ok := a.Owner("x/y"); ok || a.OwnsKey("x/y") {
			t.Errorf("the owner on an empty ring is %q", owner)
		}
		// No member has seen what the holder of the second one has declared (R46).
		time.Sleep(time.Hour - time.Minute)
		if n := len(owners(a)["default/foo-1"]); n > 0 {
			t.Error("a Lease that may be a member's was ignored")
		}
		time.Sleep(2 * time.Minute)
		oneOwnerEach(t, a)
		end(t, a)
	})
}

func TestP07_LeasesOfOtherNamespacesAreNotSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		elsewhere := func(c *shard.Config) { c.Namespace = "elsewhere" }
		a, b := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")
		c, d := start(t, cluster.Client("c"), "a", elsewhere), start(t, cluster.Client("d"), "d", elsewhere)
		time.Sleep(10 * time.Second)
		oneOwnerEach(t, a, b)
		oneOwnerEach(t, c, d)
		end(t, a, b, c, d)
	})
}

func TestP08_TwoOperatorsInOneNamespaceDoNotMerge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		other := func(c *shard.Config) { c.Name = "bar" }
		a, b := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")
		c, d := start(t, cluster.Client("c"), "a", other), start(t, cluster.Client("d"), "b", other)
		time.Sleep(10 * time.Second)
		oneOwnerEach(t, a, b)
		oneOwnerEach(t, c, d)
		if n := len(cluster.Leases(namespace)); n != 4 {
			t.Errorf("%d Leases, want one for each of 4 members", n)
		}
		end(t, a, b, c, d)
	})
}

// skew changes a Lease as if its member had another clock.
func skew(cluster *shardtest.Cluster, name string, by time.Duration) {
	for _, l := range cluster.Leases(namespace) {
		if l.Name == name {
			renewed := metav1.NewMicroTime(l.Spec.RenewTime.Add(by))
			l.Spec.RenewTime = &renewed
			cluster.Put(&l)
		}
	}
}

func TestP09_ExpiryComparesNoClocksAndWaitsForNoEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a, b := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")
		time.Sleep(5 * time.Second)
		for range 10 { // b's clock is an hour slow
			skew(cluster, "foo-b", -time.Hour)
			time.Sleep(2 * time.Second)
			oneOwnerEach(t, a, b)
		}
		skew(cluster, "foo-b", time.Hour) // and now an hour fast
		cluster.Break("b", shardtest.Unreachable)
		writes := len(cluster.History())
		time.Sleep(17*time.Second + 500*time.Millisecond)
		oneOwnerEach(t, a)
		for _, l := range cluster.History()[writes:] {
			if l.Name != "foo-a" && *l.Spec.HolderIdentity != "" {
				t.Errorf("a Lease event of %s, other than its eviction", l.Name)
			}
		}
		end(t, a, b)
	})
}

func TestP10_AStopReleasesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a, b := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")
		time.Sleep(5 * time.Second)
		end(t, b)
		time.Sleep(250 * time.Millisecond)
		oneOwnerEach(t, a)
		end(t, a)
		if n := len(cluster.Leases(namespace)); n != 0 {
			t.Errorf("the last member has left %d Leases", n)
		}
	})
}

func TestP11_AContainerThatCrashesInALoopKeepsNothing(t *testing.T) {
	predecessor(t, func(t *testing.T, cluster *shardtest.Cluster, objects *objects) {
		a, b := control(t, cluster, objects, "a", 0), control(t, cluster, objects, "b", 0)
		time.Sleep(5 * time.Second)
		for range 3 {
			// It crashes, and is restarted before its Lease has expired.
			cluster.Break("b", shardtest.Unreachable)
			b.close(t)
			cluster.Break("b", shardtest.None)
			b = control(t, cluster, objects, "b", time.Hour)
			time.Sleep(3 * time.Second)
			oneOwnerEach(t, a.member)
		}
		if taken := a.taken(); len(taken) != 100 {
			t.Errorf("a received %d objects, want all", len(taken))
		}
		a.close(t)
		b.close(t)
	})
}

func TestP12_ChildrenGoToTheOwnerOfTheirParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, objects := shardtest.NewCluster(), fake.NewClientset()
		yes := true
		for i := range 50 {
			d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("child-of-", i)}}
			d.OwnerReferences = []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "Foo", Name: objectName(i), UID: "1", Controller: &yes}}
			if _, err := objects.AppsV1().Deployments("default").Create(context.Background(), d, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex
		shown := map[string]string{} // child -> the members whose handlers receive it
		ctx, halt := context.WithCancel(context.Background())
		factory := informers.NewSharedInformerFactory(objects, 0)
		var members []*member
		for _, pod := range []string{"a", "b"} {
			m := start(t, cluster.Client(pod), pod)
			members = append(members, m)
			children := shard.WrapInformer(m.Sharder, factory.Apps().V1().Deployments().Informer(), shard.ByController)
			if _, err := children.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) {
				mu.Lock()
				defer mu.Unlock()
				shown[obj.(metav1.Object).GetName()] += m.PodName()
			}}); err != nil {
				t.Fatal(err)
			}
		}
		factory.Start(ctx.Done())
		time.Sleep(5 * time.Second)
		mu.Lock()
		for i := range 50 {
			if owner, _ := members[0].Owner("default/" + objectName(i)); shown[fmt.Sprint("child-of-", i)] != owner {
				t.Errorf("the child of %s, which %s owns, was shown to %q", objectName(i), owner, shown[fmt.Sprint("child-of-", i)])
			}
		}
		mu.Unlock()
		end(t, members...)
		halt()
		factory.Shutdown()
	})
}

func TestP13_ObjectsOfOneNameInManyNamespacesAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a, b := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")
		time.Sleep(5 * time.Second)
		count := map[string]int{}
		for i := range 100 {
			who, _ := a.OwnerOf(&metav1.ObjectMeta{Namespace: fmt.Sprint("tenant-", i), Name: "default"})
			count[who]++
		}
		if count["a"] < 25 || count["b"] < 25 {
			t.Errorf("a hundred objects with one name are distributed like this: %v", count)
		}
		end(t, a, b)
	})
}

func TestP14_AConflictOfAHeartbeatIsAnsweredAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		client, updates := cluster.Client("a"), 0
		client.PrependReactor("update", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			if updates++; updates%2 == 0 { // another client writes to the Lease just before its member
				for _, l := range cluster.Leases(namespace) {
					cluster.Put(&l)
				}
			}
			return false, nil, nil
		})
		a := start(t, client, "a")
		time.Sleep(5 * time.Second)
		for range 100 {
			time.Sleep(time.Second)
			if a.Fenced() || !a.OwnsKey("x/y") {
				t.Fatal("a has lost what it owns because of a conflict")
			}
		}
		if updates < 40 {
			t.Errorf("only %d heartbeats: too few for the run to prove anything", updates)
		}
		end(t, a)
	})
}

func TestP15_MetricsBelongToTheirSharder(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	for _, name := range []string{"foo", "bar"} {
		s, err := shard.New(fake.NewClientset(), shard.Config{Name: name, PodName: "a", Namespace: namespace})
		if err != nil {
			t.Fatal(err)
		}
		if err := registry.Register(s.Collector()); err != nil {
			t.Errorf("the metrics of ring %s: %v", name, err)
		}
	}
	families, err := registry.Gather()
	if err != nil || len(families) == 0 {
		t.Fatal(len(families), err)
	}
	for _, f := range families {
		if f.GetName() == "sharding_ring_member_count" && len(f.GetMetric()) != 2 {
			t.Errorf("%s has %d values, want one for each ring", f.GetName(), len(f.GetMetric()))
		}
	}
	defaults, _ := prometheus.DefaultGatherer.Gather()
	for _, f := range defaults {
		if f.GetName() == "sharding_ring_member_count" {
			t.Error("the metrics are in the default registry of the process")
		}
	}
}

func TestP16_NoNameComesFromTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in a bubble all of this happens at one instant
		seen := map[string]bool{}
		for range 100 {
			s, err := shard.New(fake.NewClientset(), shard.Config{Name: "foo", PodName: "a", Namespace: namespace})
			if err != nil {
				t.Fatal(err)
			}
			if s.PodName() != "a" || seen[s.Identity()] {
				t.Fatalf("%s, %s: not the Pod's name, or not the first of that identity", s.PodName(), s.Identity())
			}
			seen[s.Identity()] = true
		}
	})
}

func TestPredecessor_TheDocumentNamesEachTest(t *testing.T) {
	text, err := os.ReadFile("../docs/predecessor.md")
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), "predecessor_test.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var tests []string
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && strings.HasPrefix(f.Name.Name, "TestP0") || ok && strings.HasPrefix(f.Name.Name, "TestP1") {
			tests = append(tests, f.Name.Name)
		}
	}
	if named := regexp.MustCompile(`TestP\d\w+`).FindAllString(string(text), -1); !slices.Equal(named, tests) || len(tests) == 0 {
		t.Errorf("docs/predecessor.md names\n%s\nand the tests are\n%s", strings.Join(named, "\n"), strings.Join(tests, "\n"))
	}
}
