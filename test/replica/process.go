// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
	"github.com/tom-ludwig/operator-scaling/test/build"
	"github.com/tom-ludwig/operator-scaling/test/child"
)

// stopTimeout is how long Stop waits before it kills the process.
const stopTimeout = 3 * time.Minute

// ErrEnded means that a process cannot be signalled, because it has ended.
var ErrEnded = child.ErrEnded

// Config configures one replica. Binary, Kubeconfig, Dir, Ring, Namespace and Pod are
// required.
type Config struct {
	Binary     string
	Kubeconfig string
	Dir        string // for logs and records; must exist
	Ring       string // --name
	Namespace  string // POD_NAMESPACE: where the Leases are
	Pod        string // POD_NAME
	PodUID     string // POD_UID; not set if empty
	// Watch is the namespace whose objects the replica works on. Empty: all.
	Watch string
	// Args are additional flags. They come last, so they override the others.
	Args []string
	// Env has additional environment variables, as KEY=value.
	Env []string
}

// Build compiles the command replica into a directory and returns the path of the binary. flags
// are additional flags for go build, such as -race or -tags.
func Build(ctx context.Context, dir string, flags ...string) (binary string, err error) {
	binary = filepath.Join(dir, "replica")
	if err := build.Command(ctx, binary, "./cmd/replica", io.Discard, flags...); err != nil {
		return "", fmt.Errorf("build the replica: %w", err)
	}
	return binary, nil
}

// Process is one replica process. Create it with [Start].
type Process struct {
	*child.Process
	config  Config
	id      string // the Pod's name, and a number that no other process has
	address string

	mu     sync.Mutex
	pauses []worklog.Pause
	death  int64 // set before Exited is closed
}

// started counts the processes, for P1.
var started atomic.Int64

// Start starts a process and returns without waiting until it is ready.
func Start(c Config) (*Process, error) {
	p := &Process{config: c, id: fmt.Sprintf("%s.%03d", c.Pod, started.Add(1))}
	port, err := child.FreePort(30000, 32000) // outside the range of the control plane
	if err != nil {
		return nil, fmt.Errorf("start replica %s: %w", c.Pod, err)
	}
	p.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	cmd := exec.Command(c.Binary, p.args()...)
	cmd.Env = p.environment()
	p.Process, err = child.Start(p.id, p.LogFile(), cmd, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.death = worklog.Now()
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Process) args() []string {
	c := p.config
	args := []string{
		"--kubeconfig=" + c.Kubeconfig,
		"--name=" + c.Ring,
		"--http-address=" + p.address,
		"--record-to=" + p.RecordFile(),
	}
	if c.Watch != "" {
		args = append(args, "--watch-namespace="+c.Watch)
	}
	return append(args, c.Args...)
}

// environment returns this process's environment, without variables that identify a Pod,
// and with the replica's identity.
func (p *Process) environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "POD_") && !strings.HasPrefix(v, "KUBERNETES_") {
			env = append(env, v)
		}
	}
	env = append(env, "POD_NAME="+p.config.Pod, "POD_NAMESPACE="+p.config.Namespace)
	if p.config.PodUID != "" {
		env = append(env, "POD_UID="+p.config.PodUID)
	}
	return append(env, p.config.Env...)
}

// Pod returns the member's name on the ring.
func (p *Process) Pod() string { return p.config.Pod }

// String returns the Pod's name and a number that no other process has.
func (p *Process) String() string { return p.id }

// LogFile returns the path of the file with the output of the process.
func (p *Process) LogFile() string { return filepath.Join(p.config.Dir, p.id+".log") }

// RecordFile returns the path of the file with the process's records. It does not
// exist before the process has opened it.
func (p *Process) RecordFile() string { return filepath.Join(p.config.Dir, p.id+".records") }

// ExitCode returns the exit code of a process that has ended. It returns -1 if a signal
// ended it, or if it has not ended.
func (p *Process) ExitCode() int {
	if !p.Ended() {
		return -1
	}
	return p.State().ExitCode()
}

// Terminate sends SIGTERM and returns.
func (p *Process) Terminate() error { return p.Signal(syscall.SIGTERM) }

// Stop sends SIGTERM and returns when the process has ended. It returns an error if the
// exit code is not 0. It kills a process that does not end in time.
func (p *Process) Stop() error {
	if err := p.Process.Stop(stopTimeout); err != nil {
		return err
	}
	if code := p.ExitCode(); code != 0 {
		return fmt.Errorf("stop %s: exit code %d\nend of its log:\n%s", p, code, p.Tail(15))
	}
	return nil
}

// Pause pauses the process with SIGSTOP. It returns when the process is certainly no longer
// running.
func (p *Process) Pause() error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	if err := p.waitStopped(); err != nil {
		return errors.Join(err, p.Signal(syscall.SIGCONT)) // nothing else would resume it
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pauses = append(p.pauses, worklog.Pause{From: worklog.Now()})
	return nil
}

// Resume resumes a paused process.
func (p *Process) Resume() error {
	p.mu.Lock()
	if n := len(p.pauses); n > 0 && p.pauses[n-1].To == 0 {
		p.pauses[n-1].To = worklog.Now() // before it runs
	}
	p.mu.Unlock()
	return p.Signal(syscall.SIGCONT)
}

// Pauses counts how often the process was paused.
func (p *Process) Pauses() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pauses)
}

// Paused reports whether the process is paused.
func (p *Process) Paused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.pauses)
	return n > 0 && p.pauses[n-1].To == 0
}

// waitStopped waits until the kernel reports that each thread of the process has stopped,
// because the signal takes a moment to reach threads on other processors. On systems
// without /proc, it waits for longer than that takes.
func (p *Process) waitStopped() error {
	pattern := fmt.Sprintf("/proc/%d/task/*/stat", p.PID())
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		threads, err := filepath.Glob(pattern)
		if err != nil || len(threads) == 0 {
			time.Sleep(50 * time.Millisecond)
			return nil
		}
		stopped := true
		for _, thread := range threads {
			text, _ := os.ReadFile(thread)
			// "1234 (name) T ...": the name may contain any characters.
			_, state, _ := bytes.Cut(text[max(0, bytes.LastIndexByte(text, ')')):], []byte(") "))
			stopped = stopped && len(state) > 0 && (state[0] == 'T' || state[0] == 't')
		}
		if stopped {
			return nil
		}
	}
	return fmt.Errorf("pause %s: some threads are still running", p)
}

// History returns the records of the process, its death and its pauses, for
// [worklog.Check].
func (p *Process) History() (worklog.Process, error) {
	p.mu.Lock()
	death, pauses := p.death, append([]worklog.Pause(nil), p.pauses...)
	p.mu.Unlock()
	h, err := worklog.ReadFile(p.RecordFile())
	if errors.Is(err, os.ErrNotExist) {
		h, err = worklog.Process{}, nil // it did not get to open the file
	}
	h.Name, h.Death, h.Pauses = p.id, death, pauses
	return h, err
}
