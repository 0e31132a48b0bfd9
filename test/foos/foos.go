// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package foos has what every test of several replicas does with their objects, the Foos of the
// example controller: install the resource, create Foos, change them at a rate, and find those
// that were not processed. All functions may be called from any goroutine.
package foos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned"
	client "github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned/typed/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/test/build"
)

// serveTime is how long the API server may take to serve a new resource.
const serveTime = time.Minute

// The names of the resource.
var (
	Resource = v1alpha1.SchemeGroupVersion.WithResource("foos")
	CRDs     = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	CRDName  = Resource.GroupResource().String()
)

// Install creates the CRD with some labels, unless it exists, and returns when the API server
// serves Foos.
func Install(ctx context.Context, config *rest.Config, labels map[string]string) error {
	root, err := build.Root()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(root, "example-controller", "manifests", "crd.yaml"))
	if err != nil {
		return err
	}
	crd := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(text, crd); err != nil {
		return err
	}
	crd.SetLabels(labels)
	c, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	if _, err := c.Resource(CRDs).Create(ctx, crd, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create CRD %s: %w", CRDName, err)
	}
	for end := time.Now().Add(serveTime); ; {
		_, err := c.Resource(Resource).List(ctx, metav1.ListOptions{Limit: 1})
		if err == nil {
			return nil
		}
		if time.Now().After(end) || Sleep(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("Foos are not served; does the installed CRD %s belong to the example? %w", CRDName, err)
		}
	}
}

// Foos are the Foos of one namespace.
type Foos struct {
	client.FooInterface
	namespace string
}

// In returns the Foos of a namespace.
func In(namespace string, config *rest.Config) (Foos, error) {
	set, err := versioned.NewForConfig(config)
	if err != nil {
		return Foos{}, err
	}
	return Foos{set.SamplecontrollerV1alpha1().Foos(namespace), namespace}, nil
}

// Add creates a Foo.
func (f Foos) Add(ctx context.Context, name string) error {
	foo := &v1alpha1.Foo{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.FooSpec{DeploymentName: name, Replicas: new(int32(1))},
	}
	_, err := f.Create(ctx, foo, metav1.CreateOptions{})
	return err
}

// Change changes the replicas of a Foo, unconditionally: real clients do not depend on which
// replica of the controller owns an object.
func (f Foos) Change(ctx context.Context, name string, replicas int) error {
	_, err := f.Patch(ctx, name, types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas), metav1.PatchOptions{})
	return err
}

// State returns the version of each Foo as replicas record it, by namespace/name, and the names of those whose status does not
// reflect their last version.
func (f Foos) State(ctx context.Context) (versions map[string]string, behind []string, err error) {
	list, err := f.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("list Foos: %w", err)
	}
	versions = map[string]string{}
	for _, foo := range list.Items {
		versions[f.namespace+"/"+foo.Name] = strconv.FormatInt(foo.Generation, 10)
		if foo.Status.ObservedGeneration != foo.Generation {
			behind = append(behind, foo.Name)
		}
	}
	return versions, behind, nil
}

// Load calls change at a rate, if it keeps up, until the returned function is called. n is the number of the call. That
// function returns the number of successful changes; no change is in progress then.
func Load(ctx context.Context, perSecond float64, change func(ctx context.Context, n int) error) (stop func() int) {
	const concurrency = 4
	ctx, cancel := context.WithCancel(ctx)
	var changes, next atomic.Int64
	var wait sync.WaitGroup
	for range concurrency {
		wait.Go(func() {
			ticker := time.NewTicker(time.Duration(concurrency * float64(time.Second) / perSecond))
			defer ticker.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
				}
				if change(ctx, int(next.Add(1))) == nil {
					changes.Add(1)
				}
			}
		})
	}
	return func() int {
		cancel()
		wait.Wait()
		return int(changes.Load())
	}
}

// Sleep waits. If the context ends first, it returns the cause.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
