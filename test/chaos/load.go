// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
)

func foo(name string) *v1alpha1.Foo {
	replicas := int32(1)
	return &v1alpha1.Foo{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.FooSpec{DeploymentName: name, Replicas: &replicas},
	}
}

// load changes random Foos, and creates and deletes a few, until the returned function
// is called. That function returns the number of changes. As for real clients, the load
// does not depend on which replica owns an object, or on whether a fault is active. A
// failed request is not retried.
func (a *environment) load() (stop func() int) {
	const concurrency = 4
	ctx, cancel := context.WithCancel(a.ctx)
	var changes, next atomic.Int64
	var wait sync.WaitGroup
	for range concurrency {
		wait.Go(func() {
			ticker := time.NewTicker(time.Duration(concurrency * float64(time.Second) / a.options.Rate))
			defer ticker.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
				}
				n := next.Add(1)
				one, cancel := context.WithTimeout(ctx, requestTimeout)
				err := a.change(one, n)
				cancel()
				if err == nil {
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

// change makes the n-th change.
func (a *environment) change(ctx context.Context, n int64) error {
	const lifetime = 20 // changes between the creation of a Foo and its deletion, in tens
	if n%10 == 0 {
		if _, err := a.foos.Create(ctx, foo(fmt.Sprintf("temporary-%d", n/10)), metav1.CreateOptions{}); err != nil {
			return err
		}
		if old := n/10 - lifetime; old > 0 {
			return a.foos.Delete(ctx, fmt.Sprintf("temporary-%d", old), metav1.DeleteOptions{})
		}
		return nil
	}
	name := fmt.Sprintf("foo-%d", a.draw(a.options.Objects))
	patch := fmt.Sprintf(`{"spec":{"replicas":%d}}`, n%100)
	_, err := a.foos.Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}
