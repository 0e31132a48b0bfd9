// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	kubefake "k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	foofake "github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned/fake"
	"github.com/tom-ludwig/operator-scaling/example-controller/record"
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
	dir   string // for records
}

func newHarness(t *testing.T, foos int) *harness {
	h := &harness{t: t, ring: shardtest.NewCluster(), kube: kubefake.NewClientset(), foos: foofake.NewSimpleClientset(), dir: t.TempDir()}
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

// start starts a replica. stop requests its stop and returns its error.
func (h *harness) start(pod string, flags ...string) (stop func() error) {
	h.t.Helper()
	args := append([]string{"--http-address=", "--record-to=" + filepath.Join(h.dir, pod)}, flags...)
	o, err := parseOptions(args, io.Discard)
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := openRecorder(o.recordTo)
	if err != nil {
		h.t.Fatal(err)
	}
	config := shardConfig(o, func(items []string) { h.t.Errorf("%s: still running: %v", pod, items) }, r)
	s, err := shard.New(h.ring.Client(pod), config.WithPodName(pod).WithNamespace("test"))
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(h.t.Context())
	result := make(chan error, 1)
	go func() { result <- errors.Join(operate(ctx, o, s, h.kube, h.foos, r), r.close()) }()
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

// records returns what a replica has recorded.
func (h *harness) records(pod string) []record.Record {
	h.t.Helper()
	file, err := os.Open(filepath.Join(h.dir, pod))
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var records []record.Record
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var r record.Record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			h.t.Fatalf("%s: %q: %v", pod, lines.Text(), err)
		}
		records = append(records, r)
	}
	return records
}

func count(records []record.Record, event record.Event) int {
	n := 0
	for _, r := range records {
		if r.Event == event {
			n++
		}
	}
	return n
}

// owned returns the number of partitions that were activated and not released.
func owned(records []record.Record) int {
	owned := map[int]bool{}
	for _, r := range records {
		for _, p := range r.Partitions {
			switch r.Event {
			case record.Activate:
				owned[p] = true
			case record.Release:
				delete(owned, p)
			}
		}
	}
	return len(owned)
}

// Tests the whole process except its command line: replicas share the Foos, each Foo is reconciled once, and when a replica
// stops, the others take over its Foos.
func TestReplicasShareFoos(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, 60)
		stop0, stop1 := h.start("op-0"), h.start("op-1")
		time.Sleep(10 * time.Second)
		if got := h.members(); got["op-0"] == 0 || got["op-1"] == 0 || got["op-0"]+got["op-1"] != len(h.names) {
			t.Errorf("Foos by member: %v, want all of them with two members", got)
		}
		if a, b := count(h.records("op-0"), record.Start), count(h.records("op-1"), record.Start); a+b != len(h.names) {
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
			records := h.records(pod)
			if started, ended := count(records, record.Start), count(records, record.End); started != ended {
				t.Errorf("%s: %d reconciles recorded as begun, %d as ended", pod, started, ended)
			}
			if first, last := records[0].Event, records[len(records)-1].Event; first != record.Join || last != record.Leave {
				t.Errorf("%s: the records begin with %s and end with %s", pod, first, last)
			}
			if owned(records) != 0 {
				t.Errorf("%s: %d partitions were activated and not released", pod, owned(records))
			}
			for _, r := range records {
				if work := r.Event == record.Start || r.Event == record.End; !strings.HasPrefix(r.Member, pod+"_") || work && (r.Token == "" || r.Key == "") {
					t.Errorf("%s: record %+v is incomplete", pod, r)
				}
			}
		}
	})
}

// A stop does not wait for reconciles that respect their context: the drain cancels them, and they are recorded as failed.
func TestStopCancelsReconciles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, 10)
		stop := h.start("op-0", "--reconcile-delay=1h", "--workers=3")
		time.Sleep(10 * time.Second)
		begin := time.Now()
		if err := stop(); err != nil {
			t.Errorf("stopped with %v", err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("the stop took %v", took)
		}
		records := h.records("op-0")
		if started, ended := count(records, record.Start), count(records, record.End); started != 3 || ended != 3 {
			t.Errorf("%d reconciles recorded as begun, %d as ended; want 3 and 3", started, ended)
		}
		for _, r := range records {
			if r.Event == record.End && r.Error == "" {
				t.Errorf("%s is recorded as done", r.Key)
			}
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
		stop := h.start("op-0", "--drain-timeout=5s")
		time.Sleep(10 * time.Second)
		if err := stop(); !errors.Is(err, shard.ErrDrainTimeout) {
			t.Errorf("stopped with %v, want ErrDrainTimeout", err)
		}
		close(stuck)
		time.Sleep(time.Second)
	})
}

func TestOptions(t *testing.T) {
	for _, test := range []struct {
		args   string
		faults []string // parts of the error; none: accepted
	}{
		{args: ""},
		{args: "--name=a --workers=1 --resync=0s --http-address= -v=4"},
		{args: "--workers=0 --resync=-1s", faults: []string{"--workers: 0", "--resync: -1s"}},
		{args: "--lease-duration=0s --drain-timeout=-1s --name=", faults: []string{"--lease-duration", "--drain-timeout", "--name"}},
		{args: "--kube-api-qps=0 --kube-api-burst=0 --reconcile-delay=-1s", faults: []string{"--kube-api-qps", "--kube-api-burst", "--reconcile-delay"}},
		{args: "--http-address=8080", faults: []string{"--http-address: address 8080: missing port"}},
		{args: "run", faults: []string{`unexpected argument "run"`}},
		{args: "--wrokers=1", faults: []string{"flag provided but not defined: -wrokers"}},
	} {
		t.Run(test.args, func(t *testing.T) {
			_, err := parseOptions(strings.Fields(test.args), io.Discard)
			if (err != nil) != (len(test.faults) > 0) {
				t.Fatalf("parseOptions returned %v", err)
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
	o, err := parseOptions([]string{"--lease-duration=5s"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	s, err := shard.New(client, shardConfig(o, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Config(); got.RenewDeadline != 3*time.Second || got.RenewPeriod != time.Second {
		t.Errorf("renew deadline %v, period %v; want 3s, 1s", got.RenewDeadline, got.RenewPeriod)
	}
	o.renewDeadline = 10 * time.Second
	if _, err := shard.New(client, shardConfig(o, nil, nil)); err == nil || !strings.Contains(err.Error(), "RenewDeadline") {
		t.Errorf("a renew deadline above the lease duration: %v", err)
	}
}

func TestEndpoints(t *testing.T) {
	s, err := shard.New(shardtest.NewCluster().Client("op-0"), shard.Config{Name: "foo-operator", PodName: "op-0", Namespace: "test"})
	if err != nil {
		t.Fatal(err)
	}
	metrics := newQueueMetrics()
	_ = newSharded(s, kubefake.NewClientset(), foofake.NewSimpleClientset(), "", 0, metrics)
	mux := newMux(s, newRegistry(s, metrics))
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
