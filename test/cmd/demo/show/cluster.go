// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/test/cmd/demo/process"
	"github.com/tom-ludwig/operator-scaling/test/controlplane"
)

// cluster is where the demo runs.
type cluster struct {
	title      string // its name on the screen
	config     *rest.Config
	kubeconfig string // for the replicas
	namespace  string
	// close removes everything. The error names what could not be removed.
	close func(context.Context) error
	// byHand is a command with the same effect.
	byHand string
}

// startLocal starts a local control plane.
func startLocal(ctx context.Context, out output, binary string) (*cluster, error) {
	out.Progress("starting etcd and kube-apiserver")
	defer out.Progress("")
	began := time.Now()
	plane, err := controlplane.Start(ctx, controlplane.Options{Binary: binary})
	if err != nil {
		return nil, process.Explain(fmt.Errorf("start the control plane: %w", err))
	}
	out.Say(ready(out, "control plane started on "+plane.APIServer.URL(), time.Since(began)))
	c := &cluster{
		title:      "a local control plane",
		config:     plane.Admin(),
		kubeconfig: plane.Kubeconfig(),
		namespace:  "demo",
		close:      func(context.Context) error { plane.Stop(); return nil },
		byHand:     "rm -r " + plane.Dir(),
	}
	if err := createNamespace(ctx, c.config, c.namespace, nil); err != nil {
		plane.Stop()
		return nil, err
	}
	if err := installCRD(ctx, c.config, nil); err != nil {
		plane.Stop()
		return nil, err
	}
	return c, nil
}
