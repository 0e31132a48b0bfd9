// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package build compiles the commands of this module, from the checkout that the program itself
// was compiled from. All functions may be called from any goroutine.
package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Root returns the directory of the checkout.
func Root() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	dir := filepath.Dir(filepath.Dir(filepath.Dir(file)))
	if _, err := os.Stat(filepath.Join(dir, "example-controller")); !ok || err != nil {
		return "", fmt.Errorf("the sources of the example controller are not at %s: run from a checkout, in a binary built without -trimpath", dir)
	}
	return dir, nil
}

// Command compiles a command of this module, such as ./cmd/replica. flags are additional flags of
// go build. Its output also goes to log.
func Command(ctx context.Context, binary, command string, log io.Writer, flags ...string) error {
	// The binary must not contain the current commit: it would be linked again after each commit.
	args := append([]string{"build", "-buildvcs=false", "-o", binary}, flags...)
	_, err := run(ctx, log, append(args, command)...)
	return err
}

// List runs go list in this module and returns its output.
func List(ctx context.Context, args ...string) (string, error) {
	return run(ctx, io.Discard, append([]string{"list"}, args...)...)
}

func run(ctx context.Context, log io.Writer, args ...string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(root, "test")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	// go build stops its compilers when it is interrupted, but not when it is killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, io.MultiWriter(&messages, log)
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", args[0], errors.Join(context.Cause(ctx), err), withoutProgress(messages.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// withoutProgress removes the modules that were downloaded and, with -v, the packages that were compiled.
func withoutProgress(output string) (messages string) {
	for line := range strings.Lines(output) {
		if strings.Contains(line, " ") && !strings.HasPrefix(line, "go: downloading ") {
			messages += line
		}
	}
	return messages
}
