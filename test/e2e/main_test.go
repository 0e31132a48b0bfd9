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

	"github.com/tom-ludwig/operator-scaling/test/controlplane"
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
