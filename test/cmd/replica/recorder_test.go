// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubefake "k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/example-controller/operator"
	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	foofake "github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned/fake"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// work runs one replica on count Foos for ten seconds, stops it, and returns its records. sync replaces the controller's
// SyncHandler.
func work(t *testing.T, count int, r *recorder, sync func(context.Context, cache.ObjectName) error, flags ...string) worklog.Process {
	t.Helper()
	foos := foofake.NewSimpleClientset()
	for i := range count {
		name := fmt.Sprintf("foo-%02d", i)
		if err := foos.Tracker().Add(&v1alpha1.Foo{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name), Generation: 3},
			Spec:       v1alpha1.FooSpec{DeploymentName: name},
		}); err != nil {
			t.Fatal(err)
		}
	}
	var o operator.Options
	if err := o.Parse(flag.NewFlagSet("", flag.ContinueOnError), append([]string{"--http-address="}, flags...)); err != nil {
		t.Fatal(err)
	}
	o.Shard = o.Shard.WithPodName("op-0").WithNamespace("test")
	o.Shard.OnChange = r.changed
	path := filepath.Join(t.TempDir(), "op-0.records")
	var err error
	if r.log, err = worklog.Open(path, func() string { return r.operator.Sharder.Identity() }); err != nil {
		t.Fatal(err)
	}
	op, err := operator.New(shardtest.NewCluster().Client("op-0"), kubefake.NewClientset(), foos, o)
	if err != nil {
		t.Fatal(err)
	}
	op.Controller.SyncHandler = sync
	r.attach(op)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- op.Run(ctx) }()
	time.Sleep(10 * time.Second)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := r.log.Close(); err != nil {
		t.Error(err)
	}
	p, err := worklog.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRecordsAreComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const foos = 20
		p := work(t, foos, &recorder{}, func(context.Context, cache.ObjectName) error { return nil })
		report := worklog.Check([]worklog.Process{p}, worklog.Options{})
		if err := report.Err(); err != nil {
			t.Error(err)
		}
		did := report.Processes[0]
		if did.Reconciles != foos || did.Keys != foos || did.Failed+did.Unfinished != 0 {
			t.Errorf("want one reconcile of each of %d Foos, and no failure: %+v", foos, did)
		}
		if did.Activated == 0 || did.Owns != 0 || did.Ended != worklog.Left {
			t.Errorf("want partitions, all released at the end: %+v", did)
		}
		if first, last := p.Records[0].Event, p.Records[len(p.Records)-1].Event; first != worklog.Join || last != worklog.Leave {
			t.Errorf("the records begin with %s and end with %s", first, last)
		}
		for _, r := range p.Records {
			isWork := r.Event == worklog.Start || r.Event == worklog.End
			if r.Member == "" || isWork && (r.Token == "" || r.Key == "" || r.Version != "3") {
				t.Errorf("record %+v is incomplete", r)
			}
		}
	})
}

// A stop ends the simulated work, which is recorded as failed.
func TestStopEndsSimulatedWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := work(t, 10, &recorder{delay: time.Hour}, nil, "--workers=3")
		report := worklog.Check([]worklog.Process{p}, worklog.Options{})
		did := report.Processes[0]
		if did.Reconciles != 3 || did.Failed != 3 || did.Unfinished != 0 {
			t.Errorf("want 3 reconciles that failed: %+v", did)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A mutating request of work on a Foo is recorded, other requests are not.
func TestWritesAreRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		var sent []string
		transport := r.wrapTransport(roundTrip(func(request *http.Request) (*http.Response, error) {
			sent = append(sent, request.Method)
			return nil, nil
		}))
		send := func(ctx context.Context, method string) {
			request, err := http.NewRequestWithContext(ctx, method, "http://server/", nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = transport.RoundTrip(request)
		}
		p := work(t, 1, r, func(ctx context.Context, _ cache.ObjectName) error {
			send(ctx, http.MethodGet)
			send(context.Background(), http.MethodPost) // not for a Foo, for example an Event
			send(ctx, http.MethodPut)
			return nil
		})
		var recorded []worklog.Event
		for _, record := range p.Records {
			if record.Key != "" {
				recorded = append(recorded, record.Event)
			}
		}
		if want := []worklog.Event{worklog.Start, worklog.Write, worklog.End}; !slices.Equal(recorded, want) || len(sent) != 3 {
			t.Errorf("recorded %v for the requests %v, want %v", recorded, sent, want)
		}
	})
}
