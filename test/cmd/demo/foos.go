// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned"
	client "github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned/typed/samplecontroller/v1alpha1"
)

const (
	// changeTime is how long one change of a Foo may take.
	changeTime = 3 * time.Second
	// tolerated is how many consecutive changes may fail, because an API server may be busy.
	tolerated = 20
)

// foos are the objects that the replicas share.
type foos struct {
	client client.FooInterface
	names  []string
}

func newFoos(config *rest.Config, namespace string, n int) (*foos, error) {
	set, err := versioned.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	f := &foos{client: set.SamplecontrollerV1alpha1().Foos(namespace)}
	for i := range n {
		f.names = append(f.names, fmt.Sprintf("foo-%03d", i))
	}
	return f, nil
}

// create creates all Foos.
func (f *foos) create(ctx context.Context) error {
	for _, name := range f.names {
		replicas := int32(1)
		foo := &v1alpha1.Foo{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.FooSpec{DeploymentName: name, Replicas: &replicas}}
		if _, err := f.client.Create(ctx, foo, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create Foo %s: %w", name, err)
		}
	}
	return nil
}

// change changes random Foos at the given rate until ctx ends. No request is in flight when it returns.
func (f *foos) change(ctx context.Context, perSecond int) error {
	if perSecond == 0 {
		return nil
	}
	ticker := time.NewTicker(time.Second / time.Duration(perSecond))
	defer ticker.Stop()
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		name := f.names[rand.IntN(len(f.names))]
		patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, 1+rand.IntN(9))
		// Not cancelled with ctx, because an abandoned request may still be executed later.
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTime)
		_, err := f.client.Patch(limited, name, types.MergePatchType, patch, metav1.PatchOptions{})
		cancel()
		if err == nil {
			failures = 0
		} else if failures++; failures > tolerated {
			return fmt.Errorf("change Foo %s: %w", name, err)
		}
	}
}

// current waits until each status reflects the last change of the spec, but no longer than atMost. It returns the objects at
// that time, and how many do not reflect it yet.
func (f *foos) current(ctx context.Context, atMost time.Duration) (all []v1alpha1.Foo, behind int, err error) {
	for deadline := time.Now().Add(atMost); err == nil; err = sleep(ctx, 200*time.Millisecond) {
		list, err := f.client.List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, 0, fmt.Errorf("list Foos: %w", err)
		}
		if len(list.Items) < len(f.names) {
			return nil, 0, errors.New("some Foos were deleted, but not by the demo")
		}
		behind = 0
		for _, foo := range list.Items {
			if foo.Status.ObservedGeneration != foo.Generation {
				behind++
			}
		}
		if behind == 0 || time.Now().After(deadline) {
			return list.Items, behind, nil
		}
	}
	return nil, 0, err
}

// versions returns the version of each object under its key, as replicas record it.
func versions(foos []v1alpha1.Foo) map[string]string {
	all := map[string]string{}
	for _, foo := range foos {
		all[foo.Namespace+"/"+foo.Name] = strconv.FormatInt(foo.Generation, 10)
	}
	return all
}
