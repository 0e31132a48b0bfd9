// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
)

// newEtcd describes the etcd server.
func (c *ControlPlane) newEtcd() (*Server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := c.newServer("etcd")
	s.url = fmt.Sprintf("http://127.0.0.1:%d", port)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	s.ready = func(ctx context.Context) error { return get(ctx, client, s.url+"/health") }
	s.cmd = []string{c.binary, "etcd", "--data-dir=" + c.path("etcd"), "--client-url=" + s.url}
	return s, nil
}

// newGarbageCollector describes the garbage collector. It has no readiness probe and needs
// none: the objects that it must delete wait for it.
func (c *ControlPlane) newGarbageCollector() *Server {
	s := c.newServer("garbage-collector")
	s.ready = func(context.Context) error { return nil }
	s.cmd = []string{c.binary, "garbage-collector", "--kubeconfig=" + c.Kubeconfig()}
	return s
}

// newAPIServer describes an API server. It is ready when /readyz reports this and the
// namespace "default" exists, which the server creates in the background.
func (c *ControlPlane) newAPIServer(name, etcdURL string) (*Server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	client, err := c.probeClient()
	if err != nil {
		return nil, err
	}
	s := c.newServer(name)
	s.url = fmt.Sprintf("https://127.0.0.1:%d", port)
	s.ready = func(ctx context.Context) error {
		if err := get(ctx, client, s.url+"/readyz"); err != nil {
			return err
		}
		return get(ctx, client, s.url+"/api/v1/namespaces/default")
	}
	s.cmd = []string{
		c.binary, "kube-apiserver",
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
		"--client-ca-file=" + c.path("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + c.path("service-account.key"),
		"--service-account-signing-key-file=" + c.path("service-account.key"),
		"--authorization-mode=RBAC",
		// No controller creates the ServiceAccount that this plugin requires for every Pod.
		"--disable-admission-plugins=ServiceAccount",
		"--profiling=false",
	}
	for _, gate := range slices.Sorted(maps.Keys(c.options.FeatureGates)) {
		s.cmd = append(s.cmd, fmt.Sprintf("--feature-gates=%s=%t", gate, c.options.FeatureGates[gate]))
	}
	s.cmd = append(s.cmd, c.options.APIServerArgs...)
	return s, nil
}

func (c *ControlPlane) newServer(name string) *Server {
	return &Server{name: name, log: c.path(name + ".log")}
}

// probeClient returns a client that may read everything. It opens a connection for each
// request, because a reused one would lead to a server that has ended.
func (c *ControlPlane) probeClient() (*http.Client, error) {
	cert, key, err := c.ca.user("readiness-probe", []string{"system:masters"})
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.ca.cert)
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
	}}, nil
}

// get returns an error unless the status is 200.
func get(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, response.Status)
	}
	return nil
}

// freePort finds an unused loopback port below the ephemeral port range. Otherwise some
// client could get a server's port while that server is stopped.
func freePort() (int, error) {
	const low, high, tries = 20000, 30000, 100
	for range tries {
		port := low + rand.IntN(high-low)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("no free port between %d and %d on 127.0.0.1", low, high)
}
