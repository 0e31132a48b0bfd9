// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
	certutil "k8s.io/client-go/util/cert"
)

// Options are the options of a control plane. The zero value is a standard API server with
// an empty etcd.
type Options struct {
	// Binary is the path that Build returned. Empty: Start calls Build, and shows its
	// progress on standard error.
	Binary string
	// Dir is the directory for data, certificates and logs. It is created if it does not
	// exist, and Stop keeps it. Empty: a temporary one, which Stop removes.
	Dir string
	// APIServerArgs are additional flags for kube-apiserver, such as
	// --feature-gates=ShardedListAndWatch=true. They come last, so they override the flags
	// that this package sets.
	APIServerArgs []string
	// GarbageCollector runs kube-controller-manager's garbage collector, which deletes
	// dependents whose owner is gone.
	GarbageCollector bool
}

// ControlPlane is a running control plane. Its servers are never nil, except
// GarbageCollector if it was not requested.
type ControlPlane struct {
	Etcd             *Server
	APIServer        *Server
	GarbageCollector *Server

	options Options
	binary  string
	dir     string
	admin   *rest.Config
	probe   *http.Client // for readiness

	mu      sync.Mutex
	seconds []*Server // additional API servers
}

// tries is how often Start tries to start a control plane whose servers end before they are
// ready: another process may have taken a port in the meantime, and on a very slow machine
// kube-apiserver gives up its startup tasks.
const tries = 3

// Start starts a control plane and returns when it is ready. The caller must call Stop. ctx
// limits only the start. After an error, no process or file is left.
func Start(ctx context.Context, options Options) (*ControlPlane, error) {
	for try := 1; ; try++ {
		c, err := prepare(ctx, options)
		if err != nil {
			return nil, err
		}
		for _, s := range c.servers() {
			if err == nil {
				err = s.Start(ctx)
			}
		}
		if err == nil {
			return c, nil
		}
		c.Stop()
		if !errors.Is(err, errEnded) || try == tries || ctx.Err() != nil {
			return nil, err
		}
	}
}

// Stop stops all processes and returns when they have ended. It removes the data unless
// [Options.Dir] was given. Calling it again does nothing.
func (c *ControlPlane) Stop() {
	servers := c.servers()
	slices.Reverse(servers) // clients before what they depend on
	for _, s := range servers {
		if c.options.Dir == "" {
			s.Kill() // the data is removed, so a graceful stop is unnecessary
		} else {
			s.Stop()
		}
	}
	if c.options.Dir == "" {
		_ = os.RemoveAll(c.dir)
	}
}

// Dir returns the directory with the servers' data and logs. While etcd is stopped, its
// subdirectory "etcd" may be copied, or restored to an older state.
func (c *ControlPlane) Dir() string { return c.dir }

// LogEnds returns the last part of each server's log, and which servers are running.
func (c *ControlPlane) LogEnds() string {
	var text strings.Builder
	for _, s := range c.servers() {
		if p := s.current(); p != nil {
			fmt.Fprintf(&text, "end of %s (process %d, 0 if not running):\n%s\n", s.log, s.PID(), p.Tail(tailLines))
		}
	}
	return text.String()
}

// StartSecondAPIServer starts an additional API server, as in a highly available control
// plane, and returns when it is ready. To reach it, clients replace the Host of their
// configuration by its URL. etcdURL is the address at which it finds etcd. With the address
// of a proxy, this server and its watch cache can be made to lag behind the first one. Stop
// stops it too.
func (c *ControlPlane) StartSecondAPIServer(ctx context.Context, etcdURL string) (*Server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	s := c.newAPIServer(fmt.Sprintf("kube-apiserver-%d", len(c.seconds)+2), port, etcdURL)
	c.seconds = append(c.seconds, s)
	c.mu.Unlock()
	return s, s.Start(ctx)
}

// servers returns all servers in the order in which they start.
func (c *ControlPlane) servers() []*Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	servers := append([]*Server{c.Etcd, c.APIServer}, c.seconds...)
	if c.GarbageCollector != nil {
		servers = append(servers, c.GarbageCollector)
	}
	return servers
}

// prepare creates everything that Start needs, without starting a server.
func prepare(ctx context.Context, options Options) (_ *ControlPlane, err error) {
	c := &ControlPlane{options: options, binary: options.Binary, dir: options.Dir}
	if c.binary == "" {
		if c.binary, err = Build(ctx, os.Stderr); err != nil {
			return nil, err
		}
	}
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "control-plane-"); err != nil {
			return nil, err
		}
		defer func() {
			if err != nil {
				_ = os.RemoveAll(c.dir)
			}
		}()
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, err
	}
	if err := c.prepareAdmin(); err != nil {
		return nil, fmt.Errorf("prepare the administrator's credentials: %w", err)
	}
	return c, c.prepareServers()
}

// prepareAdmin writes the API server's certificate and the administrator's token, and
// creates the clients that use them. The administrator acts for all other users.
func (c *ControlPlane) prepareAdmin() error {
	cert, key, err := certutil.GenerateSelfSignedCertKey("127.0.0.1", []net.IP{net.IPv6loopback}, []string{"localhost"})
	if err != nil {
		return err
	}
	c.admin = &rest.Config{BearerToken: rand.Text(), TLSClientConfig: rest.TLSClientConfig{CAData: cert}, QPS: -1}
	for name, content := range map[string][]byte{
		"serving.crt": cert,
		"serving.key": key,
		"tokens.csv":  []byte(c.admin.BearerToken + `,admin,admin,"system:masters"`),
	} {
		if err := os.WriteFile(c.path(name), content, 0o600); err != nil {
			return err
		}
	}
	tls, err := rest.TLSConfigFor(c.admin)
	if err != nil {
		return err
	}
	// A new connection for each request, because a reused one would lead to a server that
	// has ended.
	connections := &http.Transport{TLSClientConfig: tls, DisableKeepAlives: true}
	authenticated, err := rest.HTTPWrappersForConfig(c.admin, connections)
	c.probe = &http.Client{Transport: authenticated}
	return err
}

func (c *ControlPlane) path(name string) string { return filepath.Join(c.dir, name) }
