// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/tom-ludwig/operator-scaling/test/child"
)

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
