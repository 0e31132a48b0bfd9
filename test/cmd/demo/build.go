// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/controlplane"
)

// repository returns the folder of the checkout that this program was built from.
func repository() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	dir := filepath.Clean(filepath.Join(filepath.Dir(file), "..", "..", ".."))
	if _, err := os.Stat(filepath.Join(dir, "example-controller")); !ok || err != nil {
		return "", fmt.Errorf("the sources are not at %s: run the demo with make demo, or with go run from a checkout", dir)
	}
	return dir, nil
}

// buildControlPlane compiles etcd and kube-apiserver, and shows how far it is.
func buildControlPlane(ctx context.Context, out output) (binary string, err error) {
	const task = "building etcd and kube-apiserver from source"
	out.Progress(task)
	defer out.Progress("")
	began := time.Now()
	binary, err = controlplane.Build(ctx, &lines{func(l string) {
		out.Progress(task + ": " + strings.TrimPrefix(l, "control plane: "))
	}})
	if err != nil {
		return "", explain(err)
	}
	out.Say(ready(out, "control plane built", time.Since(began)))
	return binary, nil
}

// buildReplica compiles the example controller into a folder.
func buildReplica(ctx context.Context, out output, dir string) (binary string, err error) {
	out.Progress("building the example controller")
	defer out.Progress("")
	began := time.Now()
	root, err := repository()
	if err != nil {
		return "", err
	}
	binary = filepath.Join(dir, "example-controller")
	// From the module of the control plane and with its settings: most of what is
	// needed has been compiled for that one.
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", binary, "github.com/tom-ludwig/operator-scaling/example-controller")
	cmd.Dir = filepath.Join(root, "test")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	// All of its group at once: compilers don't end when go does.
	cmd.SysProcAttr = processAttributes()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 5 * time.Second
	runtime.LockOSThread() // see startReplica
	defer runtime.UnlockOSThread()
	var messages bytes.Buffer
	cmd.Stderr = &messages
	if err := cmd.Run(); err != nil {
		return "", explain(fmt.Errorf("build the example controller: %w\n%s", errors.Join(context.Cause(ctx), err), messages.String()))
	}
	out.Say(ready(out, "example controller built", time.Since(began)))
	return binary, nil
}

// hints are for the failures that have little to do with the code.
var hints = []struct{ text, hint string }{
	{"no space left on device", "the first build needs about 3 GB in Go's caches (go env GOCACHE GOMODCACHE), later ones little"},
	{"C compiler", "install gcc, or set CGO_ENABLED=0"},
	{`exec: "gcc"`, "install gcc, or set CGO_ENABLED=0"},
	{`exec: "go"`, "install Go and put it on the PATH"},
	{"dial tcp", "the first build downloads Go modules: it needs a way to the Go module proxy (go env GOPROXY)"},
	{"requires go >=", "install that version of Go, or let Go fetch it (GOTOOLCHAIN=auto)"},
	{"signal: killed", "was it the kernel, for want of memory? The first build needs about 4 GB"},
}

// explain adds what may help to an error of a build.
func explain(err error) error {
	for _, h := range hints {
		if strings.Contains(err.Error(), h.text) {
			return fmt.Errorf("%w\nhint: %s", err, h.hint)
		}
	}
	return err
}

// lines hands what is written to it on, line by line.
type lines struct{ to func(string) }

func (l *lines) Write(p []byte) (int, error) {
	for text := range strings.Lines(string(p)) {
		if text = strings.TrimSpace(text); text != "" {
			l.to(text)
		}
	}
	return len(p), nil
}
