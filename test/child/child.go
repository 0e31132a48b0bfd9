// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package child runs processes that, on Linux, do not outlive the process that started them.
// All functions and methods may be called from any goroutine.
package child

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// ErrEnded means that a process cannot be signalled, because it has ended.
var ErrEnded = errors.New("the process has ended")

// Process is one process. Create it with [Start].
type Process struct {
	name   string
	log    string
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended and Wait has returned
}

// Start starts a command whose output is appended to a log file. The name is for messages.
// When the process has ended, ended is called before Exited is closed; nil does nothing.
func Start(name, log string, cmd *exec.Cmd, ended func()) (*Process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer func() { _ = f.Close() }() // the process has a copy
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = f, f, attributes()
	p := &Process{name: name, log: log, cmd: cmd, exited: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The kernel sends the parent-death signal when the thread that forked ends, not
		// the process. The goroutine therefore keeps its thread as long as the child runs.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // see State
			if ended != nil {
				ended()
			}
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited returns a channel that is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Ended reports whether the process has ended, or was never started: p may be nil.
func (p *Process) Ended() bool {
	if p == nil {
		return true
	}
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// State returns how a process that has ended did so.
func (p *Process) State() *os.ProcessState { return p.cmd.ProcessState }

// Signal sends a signal. It returns [ErrEnded] if the process has ended.
func (p *Process) Signal(s syscall.Signal) error {
	err := ErrEnded
	if !p.Ended() {
		err = p.cmd.Process.Signal(s)
	}
	if err != nil {
		return fmt.Errorf("send %s to %s: %w", s, p.name, err)
	}
	return nil
}

// Kill ends the process with SIGKILL, paused or not, and returns when it has ended.
func (p *Process) Kill() {
	if p.Signal(syscall.SIGKILL) == nil {
		<-p.exited
	}
}

// Stop sends SIGTERM and returns when the process has ended. It kills a process that does
// not end in time, and returns an error then, and if the process has ended before.
func (p *Process) Stop(timeout time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(timeout):
		p.Kill()
		return fmt.Errorf("stop %s: still running after %v\nend of its log:\n%s", p.name, timeout, p.Tail(15))
	}
}

// Tail returns the last lines of the process's output.
func (p *Process) Tail(lines int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

var ports struct {
	sync.Mutex
	given map[int]bool
}

// FreePort finds an unused loopback port in a range that it has not returned before. Use a
// range below the ephemeral ports. Otherwise some client could get the port while the process
// that listens on it is stopped.
func FreePort(low, high int) (int, error) {
	const tries = 200
	ports.Lock()
	defer ports.Unlock()
	if ports.given == nil {
		ports.given = map[int]bool{}
	}
	for range tries {
		port := low + rand.IntN(high-low)
		if ports.given[port] {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			ports.given[port] = true
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("no free port between %d and %d on 127.0.0.1", low, high)
}
