// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
)

var (
	crds    = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	crdName = "foos." + v1alpha1.GroupName
)

// establishTime is how long the API server may take to serve a new resource.
const establishTime = 30 * time.Second

// installCRD creates the CRD of Foo if it does not exist, with the given labels, and
// returns when the API server serves Foos.
func installCRD(ctx context.Context, config *rest.Config, labels map[string]string) error {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	root, err := repository()
	if err != nil {
		return err
	}
	content, err := os.ReadFile(filepath.Join(root, "example-controller", "manifests", "crd.yaml"))
	if err != nil {
		return err
	}
	crd := &unstructured.Unstructured{}
	if err := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096).Decode(crd); err != nil {
		return fmt.Errorf("read crd.yaml: %w", err)
	}
	if len(labels) > 0 {
		crd.SetLabels(labels)
	}
	if _, err := client.Resource(crds).Create(ctx, crd, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("install CRD %s: %w", crdName, err)
	}
	ctx, cancel := context.WithTimeout(ctx, establishTime)
	defer cancel()
	for {
		crd, err := client.Resource(crds).Get(ctx, crdName, metav1.GetOptions{})
		if err == nil && served(crd) {
			return nil
		}
		if err == nil && !declares(crd, v1alpha1.SchemeGroupVersion.Version) {
			return fmt.Errorf("the installed CRD %s has no version %s: it does not belong to the example", crdName, v1alpha1.SchemeGroupVersion.Version)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("CRD %s is not served after %v: %w", crdName, establishTime, cmpErr(err, context.Cause(ctx)))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// served reports whether the API server serves the resource.
func served(crd *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions") // absent: not yet
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == "Established" && c["status"] == "True" {
			return declares(crd, v1alpha1.SchemeGroupVersion.Version)
		}
	}
	return false
}

func declares(crd *unstructured.Unstructured, version string) bool {
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions") // absent: none
	for _, v := range versions {
		if v, ok := v.(map[string]any); ok && v["name"] == version && v["served"] == true {
			return true
		}
	}
	return false
}
