// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"path/filepath"
)

// manifests returns the path of one of the example controller's manifests.
func manifests(name string) string {
	return filepath.Join(shared.root, "example-controller", "manifests", name)
}

// installCRD installs the example's custom resource and waits until it is served.
func installCRD(ctx context.Context) error {
	if _, err := shared.cp.Kubectl(ctx, "apply", "--filename", manifests("crd.yaml")); err != nil {
		return err
	}
	_, err := shared.cp.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=60s", "--filename", manifests("crd.yaml"))
	return err
}
