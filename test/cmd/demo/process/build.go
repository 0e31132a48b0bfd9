// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Build compiles a command with the module in a directory, and returns the path of the
// binary. The binary stays in the user's cache under the given name, so that go build
// does not link it again if nothing has changed. Build calls progress with the status of
// the build.
func Build(ctx context.Context, module, pkg, name string, progress func(status string)) (binary string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory for binaries: %w", err)
	}
	// One binary for each checkout, because two may be in use at the same time.
	checkout := fnv.New32a()
	checkout.Write([]byte(module))
	binary = filepath.Join(cache, "operator-scaling", fmt.Sprintf("%s-%08x", name, checkout.Sum32()))

	cmd := exec.CommandContext(ctx, "go", "build", "-v", "-buildvcs=false", "-ldflags=-s -w", "-o", binary, pkg)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "GOWORK=off")
	output := &messages{progress: progress}
	cmd.Stderr = output
	// Signal the whole process group, because the compilers do not end with go.
	cmd.SysProcAttr = Attributes()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 5 * time.Second
	runtime.LockOSThread() // see Attributes
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return "", Explain(errors.Join(fmt.Errorf("go build %s: %w", pkg, err), output.errors()))
	}
	return binary, nil
}

// messages receives the output of go build -v: one line for each module that it downloads
// and each package that it compiles, and the errors of the compiler.
type messages struct {
	progress             func(status string)
	rest                 []byte // an incomplete line
	downloaded, compiled int
	failures             bytes.Buffer
}

func (m *messages) Write(p []byte) (int, error) {
	m.rest = append(m.rest, p...)
	for {
		text, rest, complete := bytes.Cut(m.rest, []byte("\n"))
		if !complete {
			return len(p), nil
		}
		m.rest = rest
		m.line(string(text))
	}
}

func (m *messages) line(text string) {
	switch module, download := strings.CutPrefix(text, "go: downloading "); {
	case download:
		m.downloaded++
		m.progress(fmt.Sprintf("modules downloaded: %d, now %s", m.downloaded-1, module))
	case strings.ContainsAny(text, " #"):
		m.failures.WriteString(text + "\n")
	default:
		m.compiled++
		m.progress(fmt.Sprintf("packages compiled: %d", m.compiled))
	}
}

// errors returns the compiler's errors, nil if there are none.
func (m *messages) errors() error {
	m.failures.Write(m.rest)
	if text := strings.TrimSpace(m.failures.String()); text != "" {
		return errors.New(text)
	}
	return nil
}

// hints has advice for failures that are not caused by the code.
var hints = []struct{ text, hint string }{
	{"no space left on device", "the first build needs about 3 GB in Go's caches (go env GOCACHE GOMODCACHE), later ones little"},
	{"C compiler", "install gcc, or set CGO_ENABLED=0"},
	{`exec: "gcc"`, "install gcc, or set CGO_ENABLED=0"},
	{`exec: "go"`, "install Go and put it on the PATH"},
	{"dial tcp", "the first build downloads Go modules and must be able to reach the Go module proxy (go env GOPROXY)"},
	{"requires go >=", "install that version of Go, or let Go fetch it (GOTOOLCHAIN=auto)"},
	{"signal: killed", "the kernel may have killed it because memory ran out; the first build needs about 4 GB"},
}

// Explain adds a hint to a build error, if there is one.
func Explain(err error) error {
	for _, h := range hints {
		if strings.Contains(err.Error(), h.text) {
			return fmt.Errorf("%w\nhint: %s", err, h.hint)
		}
	}
	return err
}
