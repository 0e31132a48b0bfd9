// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Admin returns a client configuration with all permissions and no rate limit. The caller
// owns it. Set its Host to reach a server other than [ControlPlane.APIServer].
func (c *ControlPlane) Admin() *rest.Config { return rest.CopyConfig(c.admin) }

// User returns a client configuration for an ordinary user, as whom the administrator
// acts. The user has only the permissions that RBAC grants to the name, to one of the groups
// or to system:authenticated. The rate limits are client-go's defaults.
func (c *ControlPlane) User(name string, groups ...string) *rest.Config {
	config := c.Admin()
	config.QPS = 0
	config.Impersonate = rest.ImpersonationConfig{UserName: name, Groups: groups}
	return config
}

// ServiceAccount returns a client configuration that RBAC cannot distinguish from that of a
// Pod which runs under the ServiceAccount. The ServiceAccount need not exist.
func (c *ControlPlane) ServiceAccount(namespace, name string) *rest.Config {
	return c.User("system:serviceaccount:"+namespace+":"+name,
		"system:serviceaccounts", "system:serviceaccounts:"+namespace)
}

// Kubeconfig returns the path of a kubeconfig file for [ControlPlane.Admin].
func (c *ControlPlane) Kubeconfig() string { return filepath.Join(c.dir, "admin.kubeconfig") }

// WriteKubeconfig writes a client configuration, as returned by [ControlPlane.Admin],
// [ControlPlane.User] or [ControlPlane.ServiceAccount], to a self-contained file.
func WriteKubeconfig(path string, config *rest.Config) error {
	const name = "control-plane"
	file := clientcmdapi.NewConfig()
	file.Clusters[name] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	file.AuthInfos[name] = &clientcmdapi.AuthInfo{
		Token: config.BearerToken, Impersonate: config.Impersonate.UserName, ImpersonateGroups: config.Impersonate.Groups,
	}
	file.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	file.CurrentContext = name
	if err := clientcmd.WriteToFile(*file, path); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}

// Kubectl runs kubectl as the administrator and returns its output. The error contains its
// error output.
func (c *ControlPlane) Kubectl(ctx context.Context, args ...string) (string, error) {
	args = append([]string{"kubectl", "--kubeconfig", c.Kubeconfig(), "--cache-dir", filepath.Join(c.dir, "kubectl-cache")}, args...)
	cmd := exec.CommandContext(ctx, c.binary, args...)
	// Ignore the kubectl preferences of the user who runs the test.
	cmd.Env = append(os.Environ(), "KUBERC=off")
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args[5:], " "), err, stderr.String())
	}
	return stdout.String(), nil
}
