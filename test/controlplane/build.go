// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"

	"github.com/tom-ludwig/operator-scaling/test/build"
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
// seconds.
func Build(ctx context.Context, progress io.Writer) (binary string, err error) {
	version, err := build.List(ctx, "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
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
	locked, err := lock(ctx, filepath.Join(cache, "build.lock"), progress)
	if err != nil {
		return "", err
	}
	defer func() { _ = locked.Close() }()

	var log buildLog
	start := time.Now()
	built := make(chan error)
	go func() { built <- build.Command(ctx, binary, mainPackage, &log, "-v", "-ldflags="+linkFlags(version)) }()
	total := 0
	for wait := quietPeriod; ; wait = progressPeriod {
		select {
		case err := <-built:
			if err != nil {
				return "", fmt.Errorf("build the control plane: %w", err)
			}
			_, packages := log.count()
			if took := time.Since(start); took > quietPeriod && packages > 0 {
				fmt.Fprintf(progress, "control plane: built in %s\n", took.Round(time.Second))
			}
			return binary, nil
		case <-time.After(wait):
		}
		if total == 0 {
			deps, _ := build.List(ctx, "-deps", mainPackage) // the total is optional for progress
			total = strings.Count(deps, "\n") + 1
		}
		fmt.Fprintf(progress, "control plane: %s, after %s\n", log.stage(total), time.Since(start).Round(time.Second))
	}
}

// buildLog receives the output of go build -v: a line for each module that it downloads, one for
// each package that it compiles, and the messages of the compiler.
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

func (l *buildLog) count() (modules, packages int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(string(l.text)) {
		switch {
		case strings.HasPrefix(line, "go: downloading "):
			modules++
		case !strings.Contains(line, " "): // a path has no space
			packages++
		}
	}
	return modules, packages
}

// stage describes the progress of a build of total packages.
func (l *buildLog) stage(total int) string {
	switch modules, packages := l.count(); {
	case packages > 0:
		return fmt.Sprintf("compiled %d of at most %d packages of etcd and Kubernetes (the first time this takes five to eight minutes on two cores)", packages, total)
	case modules > 0:
		return fmt.Sprintf("downloaded %d modules", modules)
	default:
		return "checking for changes"
	}
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

// lock waits until no other process has locked the file, and locks it.
func lock(ctx context.Context, path string, progress io.Writer) (io.Closer, error) {
	slow := time.After(quietPeriod)
	for {
		f, err := fileutil.TryLockFile(path, os.O_CREATE|os.O_RDWR, 0o644)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, fileutil.ErrLocked) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-slow:
			fmt.Fprintln(progress, "control plane: waiting for another process that is building it")
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
