// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/controlplane"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

// shared is what all tests have in common.
var shared struct {
	cp     *controlplane.ControlPlane
	binary string // of the replicas
	root   string // of the checkout
	dir    string // for logs and records
}

func TestMain(m *testing.M) {
	// A signal ends the run in the ordinary way, as a failure: nothing is left running.
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
	if shared.root, err = replica.Root(); err != nil {
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
	plane, err := controlplane.Build(ctx, os.Stderr)
	if err != nil {
		return fail(err)
	}
	starting, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	options := controlplane.Options{Binary: plane, GarbageCollector: true}
	if os.Getenv("E2E_KEEP") != "" {
		options.Dir = filepath.Join(shared.dir, "control-plane")
	}
	if shared.cp, err = controlplane.Start(starting, options); err != nil {
		return fail(err)
	}
	defer shared.cp.Stop()
	// Only the tests that want it start it again: in the others Pods are objects
	// that come and go as a test needs them, and a Lease must not go with them.
	shared.cp.GarbageCollector.Kill()
	if err := installCRD(starting); err != nil {
		return fail(err)
	}

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
