// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// workOn calls f with the context and the token of work on the key by a member that owns everything.
func workOn(t *testing.T, key cache.ObjectName, f func(t *testing.T, ctx context.Context, token string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := shard.New(shardtest.NewCluster().Client("a"), shard.DefaultConfig("ring").WithPodName("a").WithNamespace("test"))
		if err != nil {
			t.Fatal(err)
		}
		q := shard.NewQueue(s, workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
		running, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(running) }()
		time.Sleep(5 * time.Second)
		q.Add(key)
		item, _ := q.Get()

		f(t, q.Context(t.Context(), item), s.Token(key.String()))

		q.Done(item)
		q.ShutDown()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// Every write carries the token of its writer, and nothing is written only because of the token.
func TestWritesCarryTheToken(t *testing.T) {
	const earlier = "1"
	stamped := func(d *appsv1.Deployment) {
		d.Annotations = map[string]string{shard.AnnotationToken: earlier, "a": "b"}
	}
	under := func(token string) func(*v1alpha1.Foo) { return func(f *v1alpha1.Foo) { f.Status.Token = token } }
	for _, test := range []struct {
		name       string
		foo        *v1alpha1.Foo
		deployment *appsv1.Deployment
		writes     []string
	}{
		{"create", newFoo(), nil, []string{"create deployments", "update foos/status"}},
		{"repair", newFoo(inStatus("foo-operator-1", 0), under(earlier)), deploymentOf(newFoo(), stamped, withReplicas(7)), []string{"update deployments", "update foos/status"}},
		{"only the token differs", newFoo(inStatus(testMember, 0), under(earlier)), deploymentOf(newFoo(), stamped), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			workOn(t, keyOfFoo, func(t *testing.T, ctx context.Context, token string) {
				f := newFixture(t, test.foo, test.deployment)
				before := test.deployment.DeepCopy()
				if err := f.controller.syncHandler(ctx, keyOfFoo); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.writes, f.writes()); diff != "" {
					t.Errorf("writes (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(before, test.deployment); diff != "" {
					t.Errorf("the object in the cache was changed (-before +after):\n%s", diff)
				}
				foo, err := f.foos.SamplecontrollerV1alpha1().Foos("default").Get(ctx, "a", metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				deployment, err := f.kube.AppsV1().Deployments("default").Get(ctx, "a-deployment", metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				want := token
				if test.writes == nil {
					want = earlier
				}
				if token == "" || foo.Status.Token != want || deployment.Annotations[shard.AnnotationToken] != want {
					t.Errorf("under the token %q the status got %q and the Deployment %v, want %q", token, foo.Status.Token, deployment.Annotations, want)
				}
				if test.deployment != nil && deployment.Annotations["a"] != "b" {
					t.Error("another annotation was lost")
				}
			})
		})
	}
}

// A writer without a token must not keep the token of the previous writer.
func TestWritesWithoutATokenCarryNone(t *testing.T) {
	deployment := deploymentOf(newFoo(), withReplicas(7), func(d *appsv1.Deployment) { d.Annotations = map[string]string{shard.AnnotationToken: "5"} })
	f := newFixture(t, newFoo(func(f *v1alpha1.Foo) { f.Status.Token = "5" }), deployment)
	if err := f.controller.syncHandler(t.Context(), keyOfFoo); err != nil {
		t.Fatal(err)
	}
	foo, err := f.foos.SamplecontrollerV1alpha1().Foos("default").Get(t.Context(), "a", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	deployment, err = f.kube.AppsV1().Deployments("default").Get(t.Context(), "a-deployment", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if token, there := deployment.Annotations[shard.AnnotationToken]; there || foo.Status.Token != "" {
		t.Errorf("the status has the token %q, the Deployment %q", foo.Status.Token, token)
	}
}
