// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/tom-ludwig/operator-scaling/test/build"
	"github.com/tom-ludwig/operator-scaling/test/controlplane"
	"github.com/tom-ludwig/operator-scaling/test/foos"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

// shared is what all tests share. No test stops or pauses one of its servers.
var shared struct {
	*plane
	server string // the binary of control planes
	binary string // of the replicas
	root   string // of the checkout
	dir    string // for logs and records
}

func TestMain(m *testing.M) {
	// A signal ends the run gracefully, as a failure: no process is left running.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, m)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, m *testing.M) (code int) {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	var err error
	if shared.root, err = build.Root(); err != nil {
		return fail(err)
	}
	shared.dir = os.Getenv("E2E_KEEP")
	if shared.dir == "" {
		if shared.dir, err = os.MkdirTemp("", "e2e-"); err != nil {
			return fail(err)
		}
		defer func() { _ = os.RemoveAll(shared.dir) }()
	} else if shared.dir, err = filepath.Abs(shared.dir); err != nil {
		return fail(err)
	} else if err := os.MkdirAll(shared.dir, 0o755); err != nil {
		return fail(err)
	}

	flags := strings.Fields(os.Getenv("E2E_BUILDFLAGS"))
	if shared.binary, err = replica.Build(ctx, shared.dir, flags...); err != nil {
		return fail(err)
	}
	if shared.server, err = controlplane.Build(ctx, os.Stderr); err != nil {
		return fail(err)
	}
	options := controlplane.Options{Binary: shared.server}
	if os.Getenv("E2E_KEEP") != "" {
		options.Dir = filepath.Join(shared.dir, "control-plane")
	}
	if shared.plane, err = startPlane(ctx, options); err != nil {
		return fail(err)
	}
	defer shared.stop()

	done := make(chan int)
	go func() { done <- m.Run() }()
	select {
	case code = <-done:
	case <-ctx.Done():
		return fail(context.Cause(ctx)) // the replicas die with this process
	}
	figures.print()
	return code
}

// soak skips a test that takes too long for make test.
func soak(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("not with -short: make soak runs it")
	}
}

// apiServer is the name of the API server in the heartbeats.
const apiServer = "the API server"

// plane is a control plane, and the heartbeats of what runs on it.
type plane struct {
	cp   *controlplane.ControlPlane
	beat monitor
	down atomic.Bool // the test has stopped a server

	ctx    context.Context // of the heartbeats
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

// startPlane starts a control plane with the example's custom resource.
func startPlane(ctx context.Context, options controlplane.Options) (*plane, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	p := &plane{}
	var err error
	if p.cp, err = controlplane.Start(ctx, options); err != nil {
		return nil, err
	}
	if err := foos.Install(ctx, p.cp.Admin(), nil); err != nil {
		p.cp.Stop()
		return nil, fmt.Errorf("%w\n%s", err, p.cp.LogEnds())
	}
	config := p.cp.Admin()
	config.Timeout = 2 * time.Second
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		p.cp.Stop()
		return nil, err
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.watch(apiServer, func(ctx context.Context) (bool, error) {
		// A read that needs a response of etcd.
		_, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{})
		if p.down.Load() {
			err = errNoneExpected
		}
		return true, err
	})
	return p, nil
}

func (p *plane) watch(what string, ask func(context.Context) (bool, error)) {
	p.wait.Go(func() { p.beat.watch(p.ctx, what, ask) })
}

func (p *plane) stop() {
	p.cancel()
	p.wait.Wait()
	p.cp.Stop()
}

// ownPlane starts a control plane for one attempt, if the test stops servers, or needs a
// garbage collector, which would delete the objects of other tests.
func ownPlane(t *attempt, options controlplane.Options) *plane {
	t.Helper()
	options.Binary = shared.server
	if os.Getenv("E2E_KEEP") != "" {
		options.Dir = filepath.Join(shared.dir, namespaceFor(t)+"-control-plane")
	}
	p, err := startPlane(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	return p
}

// steady is how long nothing may stall before a test starts over.
const steady = 5 * time.Second

// waitSteady waits until the shared control plane responds in time again.
func (p *plane) waitSteady(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(30 * time.Minute); ; {
		since := time.Now()
		if err := foos.Sleep(t.Context(), steady); err != nil {
			t.Fatal(err)
		}
		if len(p.beat.gapsSince(since, longestGap)) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the machine keeps stalling\n%s", p.cp.LogEnds())
		}
	}
}

// eventually calls f until it returns nil, at most for patience. Time in which the API
// server does not respond does not count.
func (p *plane) eventually(ctx context.Context, f func(context.Context) error) error {
	began := p.beat.beatsOf(apiServer)
	beats, responded := began, time.Now()
	for pause := poll; ; pause = min(pause+poll, 5*poll) {
		one, cancel := context.WithTimeout(ctx, patience)
		err := f(one)
		cancel()
		if err == nil {
			return nil
		}
		if waitErr := foos.Sleep(ctx, pause); waitErr != nil {
			return errors.Join(waitErr, err)
		}
		if n := p.beat.beatsOf(apiServer); n != beats {
			beats, responded = n, time.Now()
		}
		switch {
		case time.Since(responded) > silence:
			return fmt.Errorf("the API server has not responded for %v: %w", silence, err)
		case beats-began > int(patience/beatPeriod):
			return fmt.Errorf("not within %v: %w", patience, err)
		}
	}
}

// manifests returns the path of one of the example controller's manifests.
func manifests(name string) string {
	return filepath.Join(shared.root, "example-controller", "manifests", name)
}
