// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bufio"
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
	"sync/atomic"
	"syscall"
	"time"
)

const (
	quietPeriod    = 3 * time.Second  // a build that takes less has nothing to say
	progressPeriod = 10 * time.Second // between two lines of progress
)

// Build compiles the control plane and returns the path of the binary, in the
// user's cache folder. It is go build that decides what has to be compiled, so
// calling Build again costs a second or two. The first build takes minutes:
// Build writes a line to progress every ten seconds then, and nothing when there
// was nothing to do. A nil progress is silent.
func Build(ctx context.Context, progress io.Writer) (binary string, err error) {
	if progress == nil {
		progress = io.Discard
	}
	module, err := moduleDir()
	if err != nil {
		return "", err
	}
	version, err := output(ctx, module, "go", "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a place for the control plane's binary: %w", err)
	}
	cache = filepath.Join(cache, "operator-scaling")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	binary = filepath.Join(cache, "control-plane-"+version)

	// Two test processes that start together would compile everything twice.
	unlock, err := lock(filepath.Join(cache, "build.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()

	cmd := exec.CommandContext(ctx, "go", "build", "-v", "-o", binary, "-ldflags", linkFlags(version), "./controlplane/cmd/control-plane")
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "GOWORK=off")
	// go build ends its compilers when it is interrupted, and not when it is killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var compiled packageCounter
	cmd.Stderr = &compiled

	start := time.Now()
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("build the control plane: %w", err)
	}
	stopReport := report(progress, version, start, &compiled)
	err = cmd.Wait()
	stopReport()
	if err != nil {
		return "", fmt.Errorf("build the control plane: %w\n%s", errors.Join(context.Cause(ctx), err), compiled.messages())
	}
	if took := time.Since(start); took > quietPeriod {
		fmt.Fprintf(progress, "control plane: built in %s\n", took.Round(time.Second))
	}
	return binary, nil
}

// report writes how far the build is until the function that it returns is called.
func report(progress io.Writer, version string, start time.Time, compiled *packageCounter) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		wait := quietPeriod
		for {
			select {
			case <-quit:
				return
			case <-time.After(wait):
			}
			if wait == quietPeriod {
				fmt.Fprintf(progress, "control plane: compiling etcd and kube-apiserver %s; the first time this takes about five minutes on two cores\n", version)
				wait = progressPeriod - quietPeriod
				continue
			}
			fmt.Fprintf(progress, "control plane: %d packages compiled, %s elapsed\n", compiled.count.Load(), time.Since(start).Round(time.Second))
			wait = progressPeriod
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

// packageCounter takes what go build -v prints: one line for each package that
// it compiles, and the messages of the compiler.
type packageCounter struct {
	count atomic.Int64
	text  bytes.Buffer // written by the one goroutine that copies the output
}

func (c *packageCounter) Write(p []byte) (int, error) {
	c.count.Add(int64(bytes.Count(p, []byte("\n"))))
	return c.text.Write(p)
}

// messages returns the output without the names of packages.
func (c *packageCounter) messages() string {
	var b strings.Builder
	for lines := bufio.NewScanner(&c.text); lines.Scan(); {
		if strings.ContainsAny(lines.Text(), " #") {
			b.WriteString(lines.Text() + "\n")
		}
	}
	return b.String()
}

// linkFlags sets what Kubernetes' own build sets by -ldflags: without a version
// kubectl complains about the server.
func linkFlags(version string) string {
	major, rest, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	const pkg = "k8s.io/component-base/version"
	// -s -w: no debugging symbols, so a smaller binary and a shorter link.
	return fmt.Sprintf("-s -w -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s -X %[1]s.gitTreeState=clean",
		pkg, version, major, minor)
}

// moduleDir is the folder of the module that holds this package, where the
// versions of Kubernetes and etcd are pinned.
func moduleDir() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	dir := filepath.Dir(filepath.Dir(file))
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); !ok || err != nil {
		return "", fmt.Errorf("the sources of the control plane are not at %s: run from a checkout, in a binary built without -trimpath", dir)
	}
	return dir, nil
}

func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// lock waits until no other process holds the file.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil // closing unlocks
}
