// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	foofake "github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned/fake"
	fooscheme "github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned/scheme"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// While replicas join, stop and are cut off, no two of them reconcile one Foo at once, and each Foo is reconciled at its last
// version.
func TestRehearsal(t *testing.T) {
	operate := func(ctx context.Context, m *shardtest.Member) error {
		foos := foofake.NewSimpleClientset()
		m.Cluster.Share(m.Name, &foos.Fake, fooscheme.Scheme)
		o := parse(t, "--http-address=")
		o.Shard = o.Shard.WithPodName(m.Name).WithNamespace("test")
		op, err := New(m.Client, m.Client, foos, o)
		if err != nil {
			return err
		}
		reconcile := op.Controller.SyncHandler
		op.Controller.SyncHandler = func(ctx context.Context, key cache.ObjectName) error {
			foo, err := op.Controller.Foos.Foos(key.Namespace).Get(key.Name)
			if err != nil {
				return err
			}
			work := m.Begin(foo)
			err = reconcile(ctx, key)
			work.End(err == nil)
			return err
		}
		return op.Run(ctx)
	}
	objects := func(version int) (objects []runtime.Object) {
		for i := range 30 {
			objects = append(objects, newFoo(func(f *v1alpha1.Foo) {
				f.Name, f.Spec.DeploymentName = fmt.Sprint("foo-", i), fmt.Sprint("foo-", i)
				f.Generation, *f.Spec.Replicas = int64(version), int32(version)
			}))
		}
		return objects
	}
	synctest.Test(t, func(t *testing.T) {
		if err := (shardtest.Rehearsal{Operate: operate, Objects: objects, Scheme: fooscheme.Scheme}).Run(); err != nil {
			t.Error(err)
		}
	})
}
