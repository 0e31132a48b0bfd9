// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
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

// prepareServers describes the servers and writes the administrator's kubeconfig.
func (c *ControlPlane) prepareServers() error {
	etcdPort, err := freePort()
	if err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	url := fmt.Sprintf("http://127.0.0.1:%d", etcdPort)
	c.Etcd = c.newServer("etcd", url, []string{"/health"}, "etcd", c.path("etcd"), url)
	c.APIServer = c.newAPIServer("kube-apiserver", port, url)
	c.admin.Host = c.APIServer.url
	if c.options.GarbageCollector {
		// It needs no readiness probe: the objects that it must delete wait for it.
		c.GarbageCollector = c.newServer("garbage-collector", "", nil, "garbage-collector", c.Kubeconfig())
	}
	return WriteKubeconfig(c.Kubeconfig(), c.admin)
}

// newAPIServer describes an API server. It is ready when /readyz reports this and the
// namespace "default" exists, which the server creates in the background.
func (c *ControlPlane) newAPIServer(name string, port int, etcdURL string) *Server {
	args := []string{
		"kube-apiserver",
		"--etcd-servers=" + etcdURL,
		"--bind-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(port),
		// Otherwise the server looks for the machine's address, and does not start on a
		// machine without a network.
		"--advertise-address=127.0.0.1",
		// Nothing here uses the endpoints of the service "kubernetes", and they must not
		// have a loopback address.
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.0.0.0/24",
		"--tls-cert-file=" + c.path("serving.crt"),
		"--tls-private-key-file=" + c.path("serving.key"),
		"--token-auth-file=" + c.path("tokens.csv"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + c.path("serving.key"),
		"--service-account-signing-key-file=" + c.path("serving.key"),
		"--authorization-mode=RBAC",
		// No controller creates the ServiceAccount that this plugin requires for every Pod.
		"--disable-admission-plugins=ServiceAccount",
		"--profiling=false",
	}
	return c.newServer(name, fmt.Sprintf("https://127.0.0.1:%d", port), []string{"/readyz", "/api/v1/namespaces/default"},
		append(args, c.options.APIServerArgs...)...)
}

func (c *ControlPlane) newServer(name, url string, probes []string, args ...string) *Server {
	return &Server{name: name, url: url, log: c.path(name + ".log"), cmd: append([]string{c.binary}, args...), ready: func(ctx context.Context) error {
		for _, path := range probes {
			if err := c.get(ctx, url+path); err != nil {
				return err
			}
		}
		return nil
	}}
}

// get returns an error unless the status is 200.
func (c *ControlPlane) get(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := c.probe.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, response.Status)
	}
	return nil
}

func freePort() (int, error) { return child.FreePort(20000, 30000) }
