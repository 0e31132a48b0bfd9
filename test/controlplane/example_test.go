// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane_test

import (
	"context"
	"fmt"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/tom-ludwig/operator-scaling/test/controlplane"
)

func Example() {
	ctx := context.Background()
	binary, err := controlplane.Build(ctx, os.Stderr)
	if err != nil {
		fmt.Println(err)
		return
	}
	cp, err := controlplane.Start(ctx, controlplane.Options{Binary: binary})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cp.Stop()

	client, err := kubernetes.NewForConfig(cp.Admin())
	if err != nil {
		fmt.Println(err)
		return
	}
	namespace, err := client.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(namespace.Name, namespace.Status.Phase)
	// Output: default Active
}
