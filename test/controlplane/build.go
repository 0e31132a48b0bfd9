// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

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
	"sync"
	"syscall"
	"time"
)

const (
	mainPackage = "./controlplane/cmd/control-plane"

	quietPeriod    = 3 * time.Second // a shorter build reports no progress
	progressPeriod = 5 * time.Second // between two lines of progress
)

// Build compiles the control plane and returns the path of the binary, in the user's cache
// directory. go build decides what must be compiled, so calling Build again takes only a
// second or two. The first build takes minutes. During a long build, Build writes a line
// to progress every few seconds; it writes nothing if the build takes less than three
// seconds. progress may be nil.
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
		return "", fmt.Errorf("find the cache directory for the control plane's binary: %w", err)
	}
	cache = filepath.Join(cache, "operator-scaling")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	binary = filepath.Join(cache, "control-plane-"+version)

	// Two test processes that start at the same time would compile everything twice.
	unlock, err := lock(ctx, filepath.Join(cache, "build.lock"), progress)
	if err != nil {
		return "", err
	}
	defer unlock()

	// The binary must not contain the current commit: it would be linked again after each
	// commit.
	cmd := exec.CommandContext(ctx, "go", "build", "-v", "-buildvcs=false", "-o", binary, "-ldflags", linkFlags(version), mainPackage)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "GOWORK=off")
	// go build stops its compilers when it is interrupted, but not when it is killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var log buildLog
	cmd.Stderr = &log

	start := time.Now()
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("build the control plane: %w", err)
	}
	stopReport := report(ctx, progress, module, start, &log)
	err = cmd.Wait()
	stopReport()
	if err != nil {
		return "", fmt.Errorf("build the control plane: %w\n%s", errors.Join(context.Cause(ctx), err), log.messages())
	}
	if took := time.Since(start); took > quietPeriod && log.compiled() {
		fmt.Fprintf(progress, "control plane: built in %s\n", took.Round(time.Second))
	}
	return binary, nil
}

// report writes the progress of the build until the returned function is called.
func report(ctx context.Context, progress io.Writer, module string, start time.Time, log *buildLog) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		total := 0
		for wait := quietPeriod; ; wait = progressPeriod {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			if total == 0 {
				deps, _ := output(ctx, module, "go", "list", "-deps", mainPackage) // the total is optional for progress
				total = strings.Count(deps, "\n") + 1
			}
			fmt.Fprintf(progress, "control plane: %s, after %s\n", log.stage(total), time.Since(start).Round(time.Second))
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// buildLog receives the output of go build -v: a line for each module that it downloads,
// one for each package that it compiles, and the messages of the compiler.
type buildLog struct {
	mu   sync.Mutex
	text []byte
}

func (l *buildLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	return len(p), nil
}

// stage describes the progress of a build of total packages.
func (l *buildLog) stage(total int) string {
	modules, packages, _ := l.parse()
	switch {
	case packages > 0:
		return fmt.Sprintf("compiled %d of at most %d packages of etcd and Kubernetes (the first time this takes five to eight minutes on two cores)", packages, total)
	case modules > 0:
		return fmt.Sprintf("downloaded %d modules", modules)
	default:
		return "checking for changes"
	}
}

// compiled reports whether anything was compiled.
func (l *buildLog) compiled() bool {
	_, packages, _ := l.parse()
	return packages > 0
}

// messages returns the lines that are for neither a module nor a package.
func (l *buildLog) messages() string {
	_, _, messages := l.parse()
	return messages
}

func (l *buildLog) parse() (modules, packages int, messages string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(string(l.text)) {
		switch {
		case strings.HasPrefix(line, "go: downloading "):
			modules++
		case strings.Contains(line, " "):
			messages += line
		default: // a path has no space
			packages++
		}
	}
	return modules, packages, messages
}

// linkFlags sets the same variables as the -ldflags of Kubernetes' own build. Without a
// version, kubectl warns about the server.
func linkFlags(version string) string {
	major, rest, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	const pkg = "k8s.io/component-base/version"
	// -s -w: no debugging symbols, for a smaller binary and faster linking.
	return fmt.Sprintf("-s -w -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s -X %[1]s.gitTreeState=clean",
		pkg, version, major, minor)
}

// moduleDir returns the directory of the module that contains this package, which pins the
// versions of Kubernetes and etcd.
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

// lock waits until no other process holds the lock on the file, and takes it.
func lock(ctx context.Context, path string, progress io.Writer) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	slow := time.After(quietPeriod)
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing unlocks
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			break
		}
		select {
		case <-slow:
			fmt.Fprintln(progress, "control plane: waiting for another process that is building it")
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			_ = f.Close()
			return nil, context.Cause(ctx)
		}
	}
	_ = f.Close()
	return nil, fmt.Errorf("lock %s: %w", path, err)
}
