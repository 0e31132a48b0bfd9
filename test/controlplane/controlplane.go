// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
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
	// FeatureGates has the feature gates of kube-apiserver, such as ShardedListAndWatch,
	// that differ from their defaults.
	FeatureGates map[string]bool
	// APIServerArgs are additional flags for kube-apiserver. They come last, so they
	// override the flags that this package sets.
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
	ca      *authority
	admin   *rest.Config

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
		if err = c.start(ctx); err == nil {
			return c, nil
		}
		c.Stop()
		if !errors.Is(err, errEnded) || try == tries || ctx.Err() != nil {
			return nil, err
		}
	}
}

func (c *ControlPlane) start(ctx context.Context) error {
	for _, s := range c.servers() {
		if err := s.Start(ctx); err != nil {
			return err
		}
	}
	return nil
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
		fmt.Fprintf(&text, "end of %s (process %d, 0 if not running):\n%s\n", s.log, s.PID(), s.tail())
	}
	return text.String()
}

// StartSecondAPIServer starts an additional API server, as in a highly available control
// plane, and returns when it is ready. To reach it, clients replace the Host of their
// configuration by its URL. etcdURL is the address at which it finds etcd; empty means the
// real one. With the address of a proxy, this server and its watch cache can be made to lag
// behind the first one. Stop stops it too.
func (c *ControlPlane) StartSecondAPIServer(ctx context.Context, etcdURL string) (*Server, error) {
	if etcdURL == "" {
		etcdURL = c.Etcd.url
	}
	c.mu.Lock()
	name := "kube-apiserver-" + strconv.Itoa(len(c.seconds)+2)
	s, err := c.newAPIServer(name, etcdURL)
	if err == nil {
		c.seconds = append(c.seconds, s)
	}
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := s.Start(ctx); err != nil {
		return nil, err
	}
	return s, nil
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
	if err := c.writeCertificates(); err != nil {
		return nil, fmt.Errorf("prepare certificates: %w", err)
	}

	if c.Etcd, err = c.newEtcd(); err != nil {
		return nil, err
	}
	if c.APIServer, err = c.newAPIServer("kube-apiserver", c.Etcd.url); err != nil {
		return nil, err
	}
	if c.admin, err = c.User("admin", "system:masters"); err != nil {
		return nil, err
	}
	c.admin.QPS = -1
	if err := WriteKubeconfig(c.Kubeconfig(), c.admin); err != nil {
		return nil, err
	}
	if options.GarbageCollector {
		c.GarbageCollector = c.newGarbageCollector()
	}
	return c, nil
}

func (c *ControlPlane) writeCertificates() (err error) {
	if c.ca, err = newAuthority(); err != nil {
		return err
	}
	cert, key, err := c.ca.serving()
	if err != nil {
		return err
	}
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	accounts, err := encodeKey(signer)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"ca.crt": c.ca.pem(), "serving.crt": cert, "serving.key": key, "service-account.key": accounts,
	} {
		if err := os.WriteFile(c.path(name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (c *ControlPlane) path(name string) string { return filepath.Join(c.dir, name) }
