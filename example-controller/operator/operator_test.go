// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	kubefake "k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	foofake "github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned/fake"
	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// harness runs replicas on one in-memory cluster, inside a synctest bubble.
type harness struct {
	t     *testing.T
	ring  *shardtest.Cluster
	kube  *kubefake.Clientset
	foos  *foofake.Clientset
	names []string

	mu         sync.Mutex
	reconciles map[string]*reconciles // by Pod
}

// reconciles counts reconciles: those that began, ended, and ended without an error.
type reconciles struct{ began, ended, succeeded int }

func newHarness(t *testing.T, foos int) *harness {
	h := &harness{t: t, ring: shardtest.NewCluster(), kube: kubefake.NewClientset(), foos: foofake.NewSimpleClientset(), reconciles: map[string]*reconciles{}}
	// The fake does not change the resourceVersion, so that an update would look like a resync.
	h.foos.PrependReactor("update", "foos", func(action clienttesting.Action) (bool, runtime.Object, error) {
		foo := action.(clienttesting.UpdateAction).GetObject().(*v1alpha1.Foo)
		foo.ResourceVersion += "1"
		return true, foo, h.foos.Tracker().Update(action.GetResource(), foo, foo.Namespace)
	})
	for i := range foos {
		name := fmt.Sprintf("foo-%02d", i)
		h.names = append(h.names, name)
		if err := h.foos.Tracker().Add(newFoo(func(f *v1alpha1.Foo) {
			f.Name, f.UID, f.Spec.DeploymentName = name, types.UID(name), name
		})); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func (h *harness) add(n *int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*n++
}

// reconcilesOf returns what the replica of the Pod has done.
func (h *harness) reconcilesOf(pod string) reconciles {
	h.mu.Lock()
	defer h.mu.Unlock()
	return *h.reconciles[pod]
}

// start starts a replica. stop requests its stop and returns its error. sync replaces the controller's SyncHandler unless it is
// nil.
func (h *harness) start(pod string, sync func(context.Context, cache.ObjectName) error, flags ...string) (stop func() error) {
	h.t.Helper()
	o := parse(h.t, append([]string{"--http-address="}, flags...)...)
	o.Shard = o.Shard.WithPodName(pod).WithNamespace("test")
	o.Shard.OnOverrun = func(items []string) { h.t.Errorf("%s: still running: %v", pod, items) }
	op, err := New(h.ring.Client(pod), h.kube, h.foos, o)
	if err != nil {
		h.t.Fatal(err)
	}
	count := &reconciles{}
	h.reconciles[pod] = count
	handle := op.Controller.SyncHandler
	if sync != nil {
		handle = sync
	}
	op.Controller.SyncHandler = func(ctx context.Context, key cache.ObjectName) error {
		h.add(&count.began)
		defer h.add(&count.ended)
		err := handle(ctx, key)
		if err == nil {
			h.add(&count.succeeded)
		}
		return err
	}
	ctx, cancel := context.WithCancel(h.t.Context())
	result := make(chan error, 1)
	go func() { result <- op.Run(ctx) }()
	return func() error { cancel(); return <-result }
}

// members counts the Foos by the member in their status.
func (h *harness) members() map[string]int {
	h.t.Helper()
	list, err := h.foos.SamplecontrollerV1alpha1().Foos("").List(h.t.Context(), metav1.ListOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	members := map[string]int{}
	for _, foo := range list.Items {
		members[foo.Status.Member]++
	}
	return members
}

// Tests the whole process except its command line: replicas share the Foos, each Foo is reconciled once, and when a replica
// stops, the others take over its Foos.
func TestReplicasShareFoos(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, 60)
		stop0, stop1 := h.start("op-0", nil), h.start("op-1", nil)
		time.Sleep(10 * time.Second)
		if got := h.members(); got["op-0"] == 0 || got["op-1"] == 0 || got["op-0"]+got["op-1"] != len(h.names) {
			t.Errorf("Foos by member: %v, want all of them with two members", got)
		}
		if a, b := h.reconcilesOf("op-0").began, h.reconcilesOf("op-1").began; a+b != len(h.names) {
			t.Errorf("%d + %d reconciles for %d Foos", a, b, len(h.names))
		}

		if err := stop0(); err != nil {
			t.Errorf("op-0 stopped with %v", err)
		}
		time.Sleep(10 * time.Second)
		if got := h.members(); got["op-1"] != len(h.names) {
			t.Errorf("Foos by member after op-0 stopped: %v", got)
		}
		if err := stop1(); err != nil {
			t.Errorf("op-1 stopped with %v", err)
		}
		if leases := h.ring.Leases("test"); len(leases) != 0 {
			t.Errorf("%d Leases are left", len(leases))
		}
		for _, pod := range []string{"op-0", "op-1"} {
			if did := h.reconcilesOf(pod); did.began != did.ended {
				t.Errorf("%s: %d reconciles began, %d ended before the replica had stopped", pod, did.began, did.ended)
			}
		}
	})
}

// A stop waits for reconciles that respect their context no longer than DrainGrace: then the
// drain cancels them.
func TestStopCancelsReconciles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, 10)
		stop := h.start("op-0", func(ctx context.Context, _ cache.ObjectName) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}, "--workers=3")
		time.Sleep(10 * time.Second)
		begin := time.Now()
		if err := stop(); err != nil {
			t.Errorf("stopped with %v", err)
		}
		if took := time.Since(begin); took > shard.DefaultDrainGrace+time.Second {
			t.Errorf("the stop took %v", took)
		}
		if did := h.reconcilesOf("op-0"); did != (reconciles{began: 3, ended: 3}) {
			t.Errorf("reconciles: %+v, want 3 that were cancelled", did)
		}
		if got := h.members(); got[""] != len(h.names) {
			t.Errorf("cancelled reconciles have written: %v", got)
		}
	})
}

// An error of Run ends the process with that error, even if a piece of work never ends.
func TestStuckReconcileFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, 1)
		// A request that ignores its context.
		stuck := make(chan struct{})
		h.kube.PrependReactor("create", "deployments", func(clienttesting.Action) (bool, runtime.Object, error) {
			<-stuck
			return true, nil, errors.New("too late")
		})
		stop := h.start("op-0", nil, "--drain-timeout=5s")
		time.Sleep(10 * time.Second)
		if err := stop(); !errors.Is(err, shard.ErrDrainTimeout) {
			t.Errorf("stopped with %v, want ErrDrainTimeout", err)
		}
		close(stuck)
		time.Sleep(time.Second)
	})
}

func flagSet() *flag.FlagSet {
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	return flags
}

func parse(t *testing.T, args ...string) (o Options) {
	t.Helper()
	if err := o.Parse(flagSet(), args); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestOptions(t *testing.T) {
	for _, test := range []struct {
		args   string
		faults []string // parts of the error; none: accepted
	}{
		{args: ""},
		{args: "--name=a --workers=1 --resync=0s --http-address= -v=4"},
		{args: "--workers=0 --resync=-1s", faults: []string{"--workers: 0", "--resync: -1s"}},
		{args: "--lease-duration=0s --drain-grace=0s --drain-timeout=-1s --name=", faults: []string{"--lease-duration", "--drain-grace", "--drain-timeout", "--name"}},
		{args: "--kube-api-qps=0 --kube-api-burst=0", faults: []string{"--kube-api-qps", "--kube-api-burst"}},
		{args: "--http-address=8080", faults: []string{"--http-address: address 8080: missing port"}},
		{args: "run", faults: []string{`unexpected argument "run"`}},
		{args: "--wrokers=1", faults: []string{"flag provided but not defined: -wrokers"}},
	} {
		t.Run(test.args, func(t *testing.T) {
			var o Options
			err := o.Parse(flagSet(), strings.Fields(test.args))
			if (err != nil) != (len(test.faults) > 0) {
				t.Fatalf("Parse returned %v", err)
			}
			for _, fault := range test.faults {
				if !strings.Contains(err.Error(), fault) {
					t.Errorf("error %q does not contain %q", err, fault)
				}
			}
		})
	}
}

// Values that the flags do not set follow from those that they set, and shard.New reports invalid values.
func TestShardConfig(t *testing.T) {
	t.Setenv(shard.EnvPodName, "op-0")
	t.Setenv(shard.EnvPodNamespace, "test")
	client := shardtest.NewCluster().Client("op-0")
	o := parse(t, "--lease-duration=5s")
	s, err := shard.New(client, o.Shard)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Config(); got.RenewDeadline != 3*time.Second || got.RenewPeriod != time.Second {
		t.Errorf("renew deadline %v, period %v; want 3s, 1s", got.RenewDeadline, got.RenewPeriod)
	}
	o.Shard.RenewDeadline = 10 * time.Second
	if _, err := New(client, kubefake.NewClientset(), foofake.NewSimpleClientset(), o); err == nil || !strings.Contains(err.Error(), "RenewDeadline") {
		t.Errorf("a renew deadline above the lease duration: %v", err)
	}
}

func TestEndpoints(t *testing.T) {
	o := Options{Shard: shard.Config{Name: "foo-operator", PodName: "op-0", Namespace: "test"}}
	op, err := New(shardtest.NewCluster().Client("op-0"), kubefake.NewClientset(), foofake.NewSimpleClientset(), o)
	if err != nil {
		t.Fatal(err)
	}
	mux := newMux(op.Sharder, newRegistry(op.Sharder, op.metrics))
	for path, want := range map[string]struct {
		code int
		body string
	}{
		"/healthz":     {http.StatusOK, "ok"},
		"/readyz":      {http.StatusServiceUnavailable, "has not joined"},
		"/debug/shard": {http.StatusServiceUnavailable, "not running"},
		"/metrics":     {http.StatusOK, `sharding_ring_member_count{ring="foo-operator"} 0`},
		"/debug/pprof": {http.StatusNotFound, ""},
	} {
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
		if answer.Code != want.code || !strings.Contains(answer.Body.String(), want.body) {
			t.Errorf("GET %s: %d %q, want %d and %q", path, answer.Code, answer.Body, want.code, want.body)
		}
		if path == "/metrics" && !strings.Contains(answer.Body.String(), `workqueue_depth{name="foos"} 0`) {
			t.Error("GET /metrics: the queue's metrics are missing")
		}
	}
}
