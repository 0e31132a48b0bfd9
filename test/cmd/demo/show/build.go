// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/cmd/demo/process"
	"github.com/tom-ludwig/operator-scaling/test/controlplane"
)

// repository returns the directory of the checkout that this program was built from.
func repository() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	dir := filepath.Clean(filepath.Join(filepath.Dir(file), "..", "..", "..", ".."))
	if _, err := os.Stat(filepath.Join(dir, "example-controller")); !ok || err != nil {
		return "", fmt.Errorf("the source files are not at %s: run the demo with make demo, or with go run from a checkout", dir)
	}
	return dir, nil
}

// buildControlPlane compiles etcd and kube-apiserver, and shows the progress.
func buildControlPlane(ctx context.Context, out output) (binary string, err error) {
	const task = "building etcd and kube-apiserver from source"
	out.Progress(task)
	defer out.Progress("")
	began := time.Now()
	binary, err = controlplane.Build(ctx, &lines{func(l string) {
		out.Progress(task + ": " + strings.TrimPrefix(l, "control plane: "))
	}})
	if err != nil {
		return "", process.Explain(err)
	}
	out.Say(ready(out, "control plane built", time.Since(began)))
	return binary, nil
}

// buildReplica compiles the example controller and copies it into a directory, so that
// replicas that start later use the same build.
func buildReplica(ctx context.Context, out output, dir string) (binary string, err error) {
	const task = "building the example controller"
	out.Progress(task)
	defer out.Progress("")
	began := time.Now()
	root, err := repository()
	if err != nil {
		return "", err
	}
	// Use the module of the control plane, whose build has already compiled most of the
	// packages.
	built, err := process.Build(ctx, filepath.Join(root, "test"), "github.com/tom-ludwig/operator-scaling/test/cmd/replica", "replica", func(status string) {
		out.Progress(task + ": " + status)
	})
	if err != nil {
		return "", err
	}
	content, err := os.ReadFile(built)
	if err != nil {
		return "", err
	}
	binary = filepath.Join(dir, "example-controller")
	if err := os.WriteFile(binary, content, 0o700); err != nil {
		return "", process.Explain(err)
	}
	out.Say(ready(out, "example controller built", time.Since(began)))
	return binary, nil
}

// lines passes on what is written to it, line by line.
type lines struct{ to func(string) }

func (l *lines) Write(p []byte) (int, error) {
	for text := range strings.Lines(string(p)) {
		if text = strings.TrimSpace(text); text != "" {
			l.to(text)
		}
	}
	return len(p), nil
}
