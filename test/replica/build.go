// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

// Root returns the directory of the checkout that this package was compiled from.
func Root() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	dir := filepath.Dir(filepath.Dir(filepath.Dir(file)))
	if _, err := os.Stat(filepath.Join(dir, "example-controller")); !ok || err != nil {
		return "", fmt.Errorf("the sources of the example controller are not at %s: run from a checkout, in a binary built without -trimpath", dir)
	}
	return dir, nil
}

// Build compiles the command replica into a directory and returns the path of the
// binary. flags are additional flags for go build, such as -race or -tags.
func Build(ctx context.Context, dir string, flags ...string) (binary string, err error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	binary = filepath.Join(dir, "replica")
	args := append([]string{"build", "-buildvcs=false", "-o", binary}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/replica")...)
	cmd.Dir = filepath.Join(root, "test")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	// go build stops its compilers when it is interrupted, but not when it is killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the replica: %w\n%s", errors.Join(context.Cause(ctx), err), out)
	}
	return binary, nil
}
