// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const (
	stopTimeout  = 10 * time.Second      // from SIGTERM to SIGKILL
	probePeriod  = 25 * time.Millisecond // between two probes of a starting server
	probeTimeout = 10 * time.Second      // for one probe
	tailLines    = 15                    // lines of the log that are shown when a server fails
)

// errEnded means that a server ended before it was ready.
var errEnded = errors.New("ended before it was ready")

// Server is one process of a control plane. It keeps its address and its data
// when it is stopped and started again.
//
//	          Start               Pause
//	stopped --------> running ------------> paused
//	        <--------         <------------
//	        Stop, Kill            Resume
//	        <------------------------------
//	                 Stop, Kill
type Server struct {
	name  string
	url   string
	log   string
	cmd   []string // the binary and its arguments
	ready func(context.Context) error

	mu      sync.Mutex
	current *process // the current or last one; nil before the first start
}

// process is one run of a server.
type process struct {
	*os.Process
	exited chan struct{} // closed when the process has ended and Wait has returned
	err    error         // how it ended; set before exited is closed
}

// URL returns the address that the server listens on; empty for the garbage
// collector, which has none.
func (s *Server) URL() string { return s.url }

// PID returns the process id, or 0 when the server is not running.
func (s *Server) PID() int {
	if p := s.running(); p != nil {
		return p.Pid
	}
	return 0
}

// Start starts the server and returns when it is ready. If the server or ctx ends before
// that, no process is left running and the error contains the end of the log. It is an
// error if the server is already running.
func (s *Server) Start(ctx context.Context) error {
	p, err := s.spawn()
	if err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	if err := s.waitReady(ctx, p); err != nil {
		_ = p.Signal(syscall.SIGKILL) // it may have ended on its own
		<-p.exited
		return fmt.Errorf("start %s: %w\nend of %s:\n%s", s.name, err, s.log, s.tail())
	}
	return nil
}

// Stop sends SIGTERM and returns when the server has ended. It kills a server that is
// paused, or that does not end within ten seconds. It does nothing if the server is not
// running.
func (s *Server) Stop() {
	p := s.running()
	if p == nil {
		return
	}
	_ = p.Signal(syscall.SIGTERM) // it may have ended on its own
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		s.Kill()
	}
}

// Kill ends the server with SIGKILL, paused or not, and returns when it has ended.
func (s *Server) Kill() {
	if p := s.running(); p != nil {
		_ = p.Signal(syscall.SIGKILL) // it may have ended on its own
		<-p.exited
	}
}

// Pause pauses the server with SIGSTOP: its connections stay open, but it does not respond
// on them.
func (s *Server) Pause() error { return s.signal(syscall.SIGSTOP) }

// Resume resumes a paused server.
func (s *Server) Resume() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig os.Signal) error {
	err := os.ErrProcessDone
	if p := s.running(); p != nil {
		err = p.Signal(sig)
	}
	if err != nil {
		return fmt.Errorf("send %s to %s: %w", sig, s.name, err)
	}
	return nil
}

// running returns the running process, or nil.
func (s *Server) running() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current.ended() {
		return nil
	}
	return s.current
}

func (p *process) ended() bool {
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

// spawn starts the process and the goroutine that waits for its end.
func (s *Server) spawn() (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.current.ended() {
		return nil, errors.New("it is running")
	}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has a copy
	cmd := exec.Command(s.cmd[0], s.cmd[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = processAttributes()
	cmd.Env = append(os.Environ(), "CONTROL_PLANE_EXIT_WITH_STDIN=1")
	// Nothing is written to it. When it is closed, the server knows that its parent is
	// gone. cmd.Wait closes it.
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, err
	}

	started := make(chan error, 1)
	p := &process{exited: make(chan struct{})}
	go func() {
		// The kernel sends the parent-death signal when the thread that forked ends, not
		// the process. The goroutine therefore keeps its thread as long as the child runs.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		p.Process = cmd.Process
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	s.current = p
	return p, nil
}

func (s *Server) waitReady(ctx context.Context, p *process) error {
	for {
		probe, cancel := context.WithTimeout(ctx, probeTimeout)
		err := s.ready(probe)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return errors.Join(errEnded, p.err)
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", errors.Join(context.Cause(ctx), err))
		case <-time.After(probePeriod):
		}
	}
}

// tail returns the last lines of the log.
func (s *Server) tail() string {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-tailLines):], []byte("\n")))
}
