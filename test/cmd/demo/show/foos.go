// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned"
	client "github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned/typed/samplecontroller/v1alpha1"
)

// foos are the objects that the replicas share.
type foos struct {
	client    client.FooInterface
	namespace string
	names     []string
}

func newFoos(config *rest.Config, namespace string, n int) (*foos, error) {
	set, err := versioned.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	f := &foos{client: set.SamplecontrollerV1alpha1().Foos(namespace), namespace: namespace}
	for i := range n {
		f.names = append(f.names, fmt.Sprintf("foo-%03d", i))
	}
	return f, nil
}

// keys returns the key, namespace/name, of each Foo.
func (f *foos) keys() []string {
	var keys []string
	for _, name := range f.names {
		keys = append(keys, f.namespace+"/"+name)
	}
	return keys
}

// create creates all Foos, and reports to progress how many it has created.
func (f *foos) create(ctx context.Context, progress func(done int)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	names, created := make(chan string), make(chan struct{})
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for name := range names {
				foo := &v1alpha1.Foo{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec(name)}
				if _, err := f.client.Create(ctx, foo, metav1.CreateOptions{}); err != nil {
					cancel(fmt.Errorf("create Foo %s: %w", name, err))
					return
				}
				created <- struct{}{}
			}
		})
	}
	wait.Go(func() {
		defer close(names)
		for _, name := range f.names {
			select {
			case names <- name:
			case <-ctx.Done():
				return
			}
		}
	})
	go func() { wait.Wait(); close(created) }() // ends with the range below
	done := 0
	for range created {
		done++
		progress(done)
	}
	return context.Cause(ctx)
}

func spec(name string) v1alpha1.FooSpec {
	one := int32(1)
	return v1alpha1.FooSpec{DeploymentName: name, Replicas: &one}
}

// tolerated is how many consecutive changes may fail, because an API server may be busy.
const tolerated = 20

// changeTime is how long one change may take.
const changeTime = 3 * time.Second

// change changes random Foos at the given rate until ctx ends. No request is in flight
// when it returns.
func (f *foos) change(ctx context.Context, perSecond int) error {
	if perSecond == 0 {
		return nil
	}
	ticker := time.NewTicker(time.Second / time.Duration(perSecond))
	defer ticker.Stop()
	failures := 0
	for i := int64(0); ; i++ {
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

// current waits until each status reflects the last change of the spec, but no longer
// than atMost. It returns the objects at that time, and how many do not reflect it yet.
func (f *foos) current(ctx context.Context, atMost time.Duration) (all []v1alpha1.Foo, behind int, err error) {
	deadline := time.Now().Add(atMost)
	for {
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
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return nil, 0, err
		}
	}
}
