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

// Build compiles a command with the module in a folder, and returns the path of
// the binary. The binary is kept in the user's cache, under the name: go build
// doesn't link it again if nothing has changed. progress is called with how far the
// build is.
func Build(ctx context.Context, module, pkg, name string, progress func(status string)) (binary string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a place for binaries: %w", err)
	}
	// One for each checkout: two of them may be in use at a time.
	checkout := fnv.New32a()
	checkout.Write([]byte(module))
	binary = filepath.Join(cache, "operator-scaling", fmt.Sprintf("%s-%08x", name, checkout.Sum32()))

	cmd := exec.CommandContext(ctx, "go", "build", "-v", "-buildvcs=false", "-ldflags=-s -w", "-o", binary, pkg)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "GOWORK=off")
	said := &messages{progress: progress}
	cmd.Stderr = said
	// All of its group at once: compilers don't end when go does.
	cmd.SysProcAttr = Attributes()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 5 * time.Second
	runtime.LockOSThread() // see Attributes
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return "", Explain(errors.Join(fmt.Errorf("go build %s: %w", pkg, err), said.errors()))
	}
	return binary, nil
}

// messages takes what go build -v prints: one line for each module that it
// downloads and each package that it compiles, and the complaints of the compiler.
type messages struct {
	progress             func(status string)
	rest                 []byte // a line that is not complete yet
	downloaded, compiled int
	complaints           bytes.Buffer
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
		m.complaints.WriteString(text + "\n")
	default:
		m.compiled++
		m.progress(fmt.Sprintf("packages compiled: %d", m.compiled))
	}
}

// errors returns the complaints, nil if there are none.
func (m *messages) errors() error {
	m.complaints.Write(m.rest)
	if text := strings.TrimSpace(m.complaints.String()); text != "" {
		return errors.New(text)
	}
	return nil
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

// Explain adds what may help to an error of a build.
func Explain(err error) error {
	for _, h := range hints {
		if strings.Contains(err.Error(), h.text) {
			return fmt.Errorf("%w\nhint: %s", err, h.hint)
		}
	}
	return err
}
