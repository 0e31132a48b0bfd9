// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

func TestMain(m *testing.M) {
	// The last of the handlers waits until some time after the last error. Each bubble has a clock
	// of its own: if the last error was in another bubble, the handler would wait for decades.
	utilruntime.ErrorHandlers = utilruntime.ErrorHandlers[:len(utilruntime.ErrorHandlers)-1]
	goleak.VerifyTestMain(m)
}

func get(h http.Handler, url string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, url, nil))
	return w
}

func TestBeforeRun_NothingIsOwned(t *testing.T) {
	s, err := shard.New(fake.NewClientset(), shard.Config{Name: "foo", PodName: "a", Namespace: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if s.OwnsKey("x/y") || s.Owns(&metav1.ObjectMeta{Name: "x"}) || !s.Fenced() {
		t.Error("a member that does not run owns something")
	}
	if _, ok := s.Owner("x/y"); ok || s.MemberCount() != 0 {
		t.Error("an empty ring has an owner")
	}
	if err := s.Ready(); err == nil {
		t.Error("ready before Run")
	}
	if err := s.Healthy(); err != nil {
		t.Error(err)
	}
	if code := get(s.DebugHandler(), "/").Code; code != http.StatusServiceUnavailable {
		t.Errorf("the status page returns %d before Run", code)
	}
}

func TestRun_ReturnsErrorsInTheSetup(t *testing.T) {
	type custom int
	tests := map[string]struct {
		key  shard.Key
		do   func(*shard.Sharder)
		want error
	}{
		"names on a ring by UID": {shard.ByUID, func(s *shard.Sharder) {
			shard.NewQueue(s, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]()).ShutDown()
		}, shard.ErrNoItemKey},
		"items of a type of their own": {shard.ByName, func(s *shard.Sharder) {
			shard.NewQueue(s, clientworkqueue.DefaultTypedControllerRateLimiter[custom]()).ShutDown()
		}, shard.ErrNoItemKey},
		"dependents on a ring by function": {shard.ByFunc("x", func(o metav1.Object) string { return o.GetName() }), func(s *shard.Sharder) {
			shard.WrapInformer(s, informers.NewSharedInformerFactory(fake.NewClientset(), 0).Apps().V1().Deployments().Informer(), shard.ByController)
		}, shard.ErrNoOwnerKey},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s, err := shard.New(shardtest.NewCluster().Client("a"), shard.Config{Name: "foo", PodName: "a", Namespace: "b", Key: test.key})
			if err != nil {
				t.Fatal(err)
			}
			test.do(s)
			if err := s.Run(context.Background()); !errors.Is(err, test.want) {
				t.Errorf("Run returned %v, want %v", err, test.want)
			}
		})
	}
}

func TestRun_NamesTheMissingRule(t *testing.T) {
	client := fake.NewClientset()
	client.PrependReactor("create", "selfsubjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		review := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SelfSubjectAccessReview).DeepCopy()
		review.Status.Allowed = review.Spec.ResourceAttributes.Verb != "delete"
		return true, review, nil
	})
	s, err := shard.New(client, shard.Config{Name: "foo", PodName: "a", Namespace: "b"})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) { err = s.Run(context.Background()) })
	if !errors.Is(err, shard.ErrForbidden) || !strings.Contains(err.Error(), `may not delete leases.coordination.k8s.io in namespace "b"`) {
		t.Errorf("Run returned %v", err)
	}
}

// If access reviews do not show a missing rule, the requests themselves do.
func TestRun_EndsWhenARequestIsForbidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := shardtest.NewCluster().Client("a")
		client.PrependReactor("create", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}, "foo-a", errors.New("no rule"))
		})
		a := start(t, client, "a")
		err := <-a.done
		if !errors.Is(err, shard.ErrForbidden) || !strings.Contains(err.Error(), "may not create leases") {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestRun_AForeignLeaseIsNotChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		holder := "leader"
		cluster.Put(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "foo-a"}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder}})
		a := start(t, cluster.Client("a"), "a")
		if err := <-a.done; !errors.Is(err, shard.ErrForeignLease) {
			t.Errorf("Run returned %v", err)
		}
		if l := cluster.Leases(namespace)[0]; *l.Spec.HolderIdentity != "leader" {
			t.Error("the Lease was changed")
		}
	})
}

func TestG8_GarbageIsIgnoredAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		ringLabel := map[string]string{"operator-scaling.tom-ludwig.github.io/ring": "foo"}
		holder, seconds := "x_1", int32(15)
		put := func(ns, name string, labels, annotations map[string]string, spec coordinationv1.LeaseSpec) {
			cluster.Put(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: labels, Annotations: annotations}, Spec: spec})
		}
		record := map[string]string{"operator-scaling.tom-ludwig.github.io/protocol": "1"}
		put(namespace, "no-record", ringLabel, nil, coordinationv1.LeaseSpec{HolderIdentity: &holder})
		put(namespace, "other-ring", map[string]string{"operator-scaling.tom-ludwig.github.io/ring": "bar"}, record, coordinationv1.LeaseSpec{HolderIdentity: &holder})
		put("elsewhere", "foo-z", ringLabel, record, coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds})
		a := start(t, cluster.Client("a"), "a")
		b := start(t, cluster.Client("b"), "b")
		time.Sleep(5 * time.Second)
		oneOwnerEach(t, a, b)
		if n := testutil.ToFloat64(collected{a.Collector(), "sharding_lease_faults_total", "foreign"}); n == 0 {
			t.Error("foreign Leases were not counted")
		}

		// A Lease that may be a member's but cannot be read blocks the free partitions until it
		// has been silent for its duration. Then it is voided and deleted.
		garbage := coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{
				"operator-scaling.tom-ludwig.github.io/protocol": "1", "operator-scaling.tom-ludwig.github.io/member": "x", "operator-scaling.tom-ludwig.github.io/phase": "active",
				"operator-scaling.tom-ludwig.github.io/claims": "?!", "operator-scaling.tom-ludwig.github.io/seq": "x",
			}},
			Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds},
		}
		garbage.Annotations[inspect.AnnotationChecksum] = inspect.Checksum(&garbage)
		put(namespace, "garbage", ringLabel, garbage.Annotations, garbage.Spec)
		time.Sleep(time.Second)
		c := start(t, cluster.Client("c"), "c")
		time.Sleep(3 * time.Second)
		oneOwnerEachOfKept := owners(a, b, c)
		unowned := 0
		for _, who := range oneOwnerEachOfKept {
			if len(who) > 1 {
				t.Fatalf("a key is owned by %q", who)
			}
			if len(who) == 0 {
				unowned++
			}
		}
		if unowned == 0 {
			t.Error("a Lease that may claim anything did not block a handover")
		}
		time.Sleep(17 * time.Second)
		oneOwnerEach(t, a, b, c)
		if n := testutil.ToFloat64(collected{a.Collector(), "sharding_lease_faults_total", "malformed"}); n == 0 {
			t.Error("a malformed Lease was not counted")
		}
		time.Sleep(20 * time.Second)
		for _, l := range cluster.Leases(namespace) {
			if l.Name == "garbage" {
				t.Errorf("the void Lease is still there: holder %q", *l.Spec.HolderIdentity)
			}
		}
		for _, m := range []*member{a, b, c} {
			if err := m.end(); err != nil {
				t.Error(err)
			}
		}
	})
}

// collected picks one sample of a collector for testutil.ToFloat64.
type collected struct {
	from  prometheus.Collector
	name  string
	label string
}

func (c collected) Describe(out chan<- *prometheus.Desc) { c.from.Describe(out) }

func (c collected) Collect(out chan<- prometheus.Metric) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c.from)
	families, _ := registry.Gather()
	for _, f := range families {
		if f.GetName() != c.name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetValue() == c.label {
					out <- prometheus.MustNewConstMetric(prometheus.NewDesc("x", "", nil, nil), prometheus.UntypedValue, m.GetCounter().GetValue()+m.GetGauge().GetValue())
				}
			}
		}
	}
}

func TestRun_TwoRingsInOneNamespaceDoNotSeeEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		b := start(t, cluster.Client("a"), "a", func(c *shard.Config) { c.Name = "bar" })
		time.Sleep(5 * time.Second)
		for _, m := range []*member{a, b} {
			if m.MemberCount() != 1 || !m.OwnsKey("x/y") {
				t.Errorf("members %v", m.Members())
			}
			if err := m.end(); err != nil {
				t.Error(err)
			}
		}
	})
}

// A Pod that restarts in place takes over its Lease at once. Another process with its
// identity waits and reports that.
func TestRun_RestartAndDuplicate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		time.Sleep(5 * time.Second)

		second := start(t, cluster.Client("second"), "a")
		time.Sleep(10 * time.Second)
		if err := second.Ready(); err == nil || !strings.Contains(err.Error(), "another live process") {
			t.Errorf("the second process of one identity: %v", err)
		}
		if !a.OwnsKey("x/y") || second.OwnsKey("x/y") {
			t.Error("the first process lost what it owns to a second process with the same identity")
		}
		if err := second.end(); err != nil {
			t.Error(err)
		}

		// The process crashes, and the kernel releases its lock.
		cluster.Break("a", shardtest.Unreachable)
		if err := a.end(); err != nil {
			t.Error(err)
		}
		again := start(t, cluster.Client("again"), "a")
		time.Sleep(2500 * time.Millisecond)
		if !again.OwnsKey("x/y") {
			t.Error("a restart in the same Pod has not taken over at once")
		}
		if err := again.end(); err != nil {
			t.Error(err)
		}
	})
}

// Of three processes with one identity, one works at a time: the first to get the lock after
// the one before has ended. None treats another process's Lease as that of the dead process.
func TestRun_ProcessesOfOneIdentityTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		first := start(t, cluster.Client("first"), "a")
		time.Sleep(5 * time.Second)
		waiting := []*member{start(t, cluster.Client("second"), "a")}
		time.Sleep(5 * time.Second)
		cluster.Break("first", shardtest.Unreachable) // it crashes, and its Lease remains
		if err := first.end(); err != nil {
			t.Error(err)
		}
		waiting = append(waiting, start(t, cluster.Client("third"), "a"))
		for len(waiting) > 0 {
			time.Sleep(3 * time.Second) // at once, and not only when the Lease has expired
			ready := slices.IndexFunc(waiting, func(m *member) bool { return m.Ready() == nil })
			if ready < 0 {
				t.Fatal("no process is ready")
			}
			one := waiting[ready]
			identity := one.Identity()
			waiting = slices.Delete(waiting, ready, ready+1)
			time.Sleep(time.Minute)
			if err := one.Ready(); err != nil || one.Identity() != identity {
				t.Errorf("%s has become %s: %v", identity, one.Identity(), err)
			}
			for _, m := range waiting {
				if err := m.Ready(); err == nil || !strings.Contains(err.Error(), "another live process") {
					t.Errorf("a process that waits for the working one: %v", err)
				}
			}
			if err := one.end(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestStatusPagesAndMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		b := start(t, cluster.Client("b"), "b")
		time.Sleep(5 * time.Second)

		page := get(a.DebugHandler(), "/debug/shard").Body.String()
		for _, want := range []string{"Ring foo", a.Identity(), "foo-b"} {
			if !strings.Contains(page, want) {
				t.Errorf("the page does not show %q", want)
			}
		}
		var report inspect.Report
		if err := json.Unmarshal(get(a.DebugHandler(), "/debug/shard?format=json").Body.Bytes(), &report); err != nil {
			t.Fatal(err)
		}
		if len(report.Members) != 2 || len(report.Partitions) != 509 || report.States["active"] == 0 || report.States["pending"] != 0 {
			t.Errorf("report: %d members, %d partitions, %v", len(report.Members), len(report.Partitions), report.States)
		}
		if code := get(a.ReadyHandler(), "/readyz").Code; code != http.StatusOK {
			t.Errorf("readyz returns %d", code)
		}

		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(a.Collector())
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]bool{}
		for _, f := range families {
			have[f.GetName()] = true
			for _, m := range f.GetMetric() {
				if len(m.GetLabel()) == 0 || m.GetLabel()[len(m.GetLabel())-1].GetName() != "ring" && m.GetLabel()[0].GetName() != "ring" && len(m.GetLabel()) < 2 {
					t.Errorf("%s has no label for the ring", f.GetName())
				}
			}
		}
		for _, name := range []string{
			"sharding_ring_member_count", "sharding_ring_members_added_total", "sharding_ring_members_removed_total",
			"sharding_ring_change_events_total", "sharding_partitions_relocated_total", "sharding_last_partitions_relocated",
			"sharding_last_partitions_relocated_percent", "sharding_lease_heartbeats_total", "sharding_lease_heartbeat_failures_total",
			"sharding_partitions", "sharding_objects", "sharding_handover_duration_seconds",
		} {
			if !have[name] {
				t.Errorf("metric %s is missing", name)
			}
		}
		if problems, err := testutil.GatherAndLint(registry); err != nil {
			t.Error(err)
		} else {
			for _, p := range problems {
				t.Logf("promlint: %s: %s", p.Metric, p.Text)
			}
		}
		if n := testutil.ToFloat64(collected{a.Collector(), "sharding_partitions", "active"}) + testutil.ToFloat64(collected{b.Collector(), "sharding_partitions", "active"}); n != 509 {
			t.Errorf("%v partitions are active on the two members, want 509", n)
		}
		for _, m := range []*member{a, b} {
			if err := m.end(); err != nil {
				t.Error(err)
			}
		}
	})
}

type keyed struct{ name string }

func (k keyed) ShardKey() string { return "default/" + k.name }

// The member that owns an object also owns the items that refer to it, of every item type.
func TestNewQueue_ItemsFollowTheirObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		b := start(t, cluster.Client("b"), "b")
		names := shard.NewQueue(a.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
		typed := shard.NewQueue(a.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[types.NamespacedName]())
		text := shard.NewQueue(a.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[string]())
		own := shard.NewQueue(a.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[keyed]())
		byFunc := shard.NewQueue(a.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[int](), shard.WithItemKey(func(int) string { return "default/foo-1" }))
		time.Sleep(5 * time.Second)
		for _, name := range []string{"foo-1", "foo-2", "foo-3", "foo-4", "foo-5", "foo-6"} {
			want := 0
			if a.OwnsKey("default/" + name) {
				want = 1
			}
			names.Add(cache.ObjectName{Namespace: "default", Name: name})
			typed.Add(types.NamespacedName{Namespace: "default", Name: name})
			text.Add("default/" + name)
			own.Add(keyed{name})
			for kind, n := range map[string]int{"ObjectName": names.Len(), "NamespacedName": typed.Len(), "string": text.Len(), "Keyed": own.Len()} {
				if n != want {
					t.Errorf("%s as %s: %d queued, want %d", name, kind, n, want)
				}
			}
			if want == 1 {
				drain(names)
				drain(typed)
				drain(text)
				drain(own)
			}
		}
		byFunc.Add(7)
		if (byFunc.Len() == 1) != a.OwnsKey("default/foo-1") {
			t.Error("the owner of an object does not own its item with a key function")
		}
		for _, q := range []interface{ ShutDown() }{names, typed, text, own, byFunc} {
			q.ShutDown()
		}
		for _, m := range []*member{a, b} {
			if err := m.end(); err != nil {
				t.Error(err)
			}
		}
	})
}

func drain[T comparable](q clientworkqueue.TypedRateLimitingInterface[T]) {
	for q.Len() > 0 {
		item, _ := q.Get()
		q.Done(item)
	}
}
