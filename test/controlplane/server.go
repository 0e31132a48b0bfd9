// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/child"
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
	process *child.Process // the current or last one; nil before the first start
}

// URL returns the address that the server listens on; empty for the garbage
// collector, which has none.
func (s *Server) URL() string { return s.url }

// PID returns the process id, or 0 when the server is not running.
func (s *Server) PID() int {
	if p := s.current(); !p.Ended() {
		return p.PID()
	}
	return 0
}

// Start starts the server and returns when it is ready. If the server or ctx ends before
// that, no process is left running and the error contains the end of the log. It is an
// error if the server is already running.
func (s *Server) Start(ctx context.Context) error {
	p, err := s.spawn()
	if err != nil {
		return err
	}
	if err := s.waitReady(ctx, p); err != nil {
		p.Kill()
		return fmt.Errorf("start %s: %w\nend of %s:\n%s", s.name, err, s.log, p.Tail(tailLines))
	}
	return nil
}

// Stop sends SIGTERM and returns when the server has ended. It kills a server that is
// paused, or that does not end within ten seconds. It does nothing if the server is not
// running.
func (s *Server) Stop() {
	if p := s.current(); p != nil {
		_ = p.Stop(stopTimeout) // it may have ended, or was killed
	}
}

// Kill ends the server with SIGKILL, paused or not, and returns when it has ended.
func (s *Server) Kill() {
	if p := s.current(); p != nil {
		p.Kill()
	}
}

// Pause pauses the server with SIGSTOP: its connections stay open, but it does not respond
// on them.
func (s *Server) Pause() error { return s.signal(syscall.SIGSTOP) }

// Resume resumes a paused server.
func (s *Server) Resume() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) error {
	if p := s.current(); p != nil {
		return p.Signal(sig)
	}
	return fmt.Errorf("%s was never started", s.name)
}

func (s *Server) current() *child.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process
}

func (s *Server) spawn() (*child.Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.process.Ended() {
		return nil, fmt.Errorf("start %s: it is running", s.name)
	}
	cmd := exec.Command(s.cmd[0], s.cmd[1:]...)
	cmd.Env = append(os.Environ(), "CONTROL_PLANE_EXIT_WITH_STDIN=1")
	// Nothing is written to it. When it is closed, the server knows that its parent is
	// gone. cmd.Wait closes it.
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, err
	}
	p, err := child.Start(s.name, s.log, cmd, nil)
	if err == nil {
		s.process = p
	}
	return p, err
}

func (s *Server) waitReady(ctx context.Context, p *child.Process) error {
	for {
		probe, cancel := context.WithTimeout(ctx, probeTimeout)
		err := s.ready(probe)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-p.Exited():
			return fmt.Errorf("%w: %v", errEnded, p.State())
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", errors.Join(context.Cause(ctx), err))
		case <-time.After(probePeriod):
		}
	}
}
