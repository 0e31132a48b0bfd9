// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	kubeinformers "k8s.io/client-go/informers"
	kubefake "k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	foofake "github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned/fake"
	fooinformers "github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/informers/externalversions"
)

const testMember = "foo-operator-0"

// plainQueue is client-go's queue with the context of a process that owns everything, or that has just lost everything.
type plainQueue struct {
	workqueue.TypedRateLimitingInterface[cache.ObjectName]
	lost error
}

func (q *plainQueue) Context(ctx context.Context, _ cache.ObjectName) context.Context {
	if q.lost == nil {
		return ctx
	}
	ctx, cancel := context.WithCancelCause(ctx)
	cancel(q.lost)
	return ctx
}

// fixture is a controller on fake clients. Its caches hold what a test adds; they do not follow the clients.
type fixture struct {
	controller *Controller
	config     ControllerConfig
	queue      *plainQueue
	kube       *kubefake.Clientset
	foos       *foofake.Clientset
	events     *record.FakeRecorder
}

func newFixture(t *testing.T, foo *v1alpha1.Foo, deployment *appsv1.Deployment) *fixture {
	t.Helper()
	var kubeObjects, fooObjects []runtime.Object
	if foo != nil {
		fooObjects = append(fooObjects, foo)
	}
	if deployment != nil {
		kubeObjects = append(kubeObjects, deployment)
	}
	f := &fixture{
		queue: &plainQueue{TypedRateLimitingInterface: workqueue.NewTypedRateLimitingQueue(
			workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())},
		kube:   kubefake.NewClientset(kubeObjects...),
		foos:   foofake.NewSimpleClientset(fooObjects...),
		events: record.NewFakeRecorder(10),
	}
	t.Cleanup(f.queue.ShutDown)
	f.config = ControllerConfig{
		KubeClient:  f.kube,
		FooClient:   f.foos,
		Foos:        fooinformers.NewSharedInformerFactory(f.foos, 0).Samplecontroller().V1alpha1().Foos().Informer(),
		Deployments: kubeinformers.NewSharedInformerFactory(f.kube, 0).Apps().V1().Deployments().Informer(),
		Queue:       f.queue,
		Member:      testMember,
	}
	var err error
	if f.controller, err = NewController(f.config); err != nil {
		t.Fatal(err)
	}
	f.controller.Events = f.events
	if foo != nil {
		if err := f.config.Foos.GetStore().Add(foo); err != nil {
			t.Fatal(err)
		}
	}
	if deployment != nil {
		if err := f.config.Deployments.GetStore().Add(deployment); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// observe calls ended after each reconcile.
func (f *fixture) observe(ended func(key cache.ObjectName, err error)) {
	sync := f.controller.SyncHandler
	f.controller.SyncHandler = func(ctx context.Context, key cache.ObjectName) error {
		err := sync(ctx, key)
		ended(key, err)
		return err
	}
}

// writes returns the requests to the API server that change something, as "verb resource/subresource".
func (f *fixture) writes() []string {
	var writes []string
	for _, action := range append(f.kube.Actions(), f.foos.Actions()...) {
		if verb := action.GetVerb(); !slices.Contains([]string{"get", "list", "watch"}, verb) {
			resource := action.GetResource().Resource
			if sub := action.GetSubresource(); sub != "" {
				resource += "/" + sub
			}
			writes = append(writes, verb+" "+resource)
		}
	}
	return writes
}

// queued removes all items from the queue and returns them.
func (f *fixture) queued() []string {
	var keys []string
	for f.queue.Len() > 0 {
		key, _ := f.queue.Get()
		keys = append(keys, key.String())
		f.queue.Done(key)
	}
	return keys
}

// keyOfFoo is the key of newFoo's Foo.
var keyOfFoo = cache.ObjectName{Namespace: "default", Name: "a"}

func newFoo(change ...func(*v1alpha1.Foo)) *v1alpha1.Foo {
	count := int32(2)
	foo := &v1alpha1.Foo{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a", UID: "uid-a", Generation: 3, ResourceVersion: "10"},
		Spec:       v1alpha1.FooSpec{DeploymentName: "a-deployment", Replicas: &count},
	}
	for _, f := range change {
		f(foo)
	}
	return foo
}

// deploymentOf returns the correct Deployment of the Foo, with no replica available.
func deploymentOf(foo *v1alpha1.Foo, change ...func(*appsv1.Deployment)) *appsv1.Deployment {
	deployment := newDeployment(foo)
	deployment.ResourceVersion = "20"
	for _, f := range change {
		f(deployment)
	}
	return deployment
}

func withReplicas(n int32) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { d.Spec.Replicas = &n }
}

func withAvailable(n int32) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { d.Status.AvailableReplicas = n }
}

func withoutController(d *appsv1.Deployment) { d.OwnerReferences = nil }

// inStatus sets the status after a reconcile by the member, with the given number of available replicas.
func inStatus(member string, available int32) func(*v1alpha1.Foo) {
	return func(foo *v1alpha1.Foo) {
		ready := readiness(foo, deploymentOf(foo, withAvailable(available)))
		ready.ObservedGeneration = foo.Generation
		foo.Status = v1alpha1.FooStatus{
			AvailableReplicas: available, ObservedGeneration: foo.Generation, Member: member,
			Conditions: []metav1.Condition{ready},
		}
	}
}

func deleting(foo *v1alpha1.Foo) {
	now := metav1.Now()
	foo.DeletionTimestamp, foo.Finalizers = &now, []string{"example.com/wait"}
}

func TestSyncHandler(t *testing.T) {
	ready := func(status metav1.ConditionStatus, reason, message string) []metav1.Condition {
		return []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: status, Reason: reason, Message: message, ObservedGeneration: 3}}
	}
	progressing := ready(metav1.ConditionFalse, v1alpha1.ReasonProgressing, "0 of 2 replicas are available")

	for _, test := range []struct {
		name       string
		foo        *v1alpha1.Foo
		deployment *appsv1.Deployment
		writes     []string
		status     *v1alpha1.FooStatus // nil: not checked
		replicas   *int32              // of the Deployment afterwards; nil: not checked
		events     int
		fails      bool
	}{
		{
			name:     "new Foo",
			foo:      newFoo(),
			writes:   []string{"create deployments", "update foos/status"},
			status:   &v1alpha1.FooStatus{ObservedGeneration: 3, Member: testMember, Conditions: progressing},
			replicas: new(int32(2)),
		},
		{
			name:     "replicas default to one",
			foo:      newFoo(func(f *v1alpha1.Foo) { f.Spec.Replicas = nil }),
			writes:   []string{"create deployments", "update foos/status"},
			replicas: new(int32(1)),
		},
		{
			name:       "nothing to do",
			foo:        newFoo(inStatus(testMember, 0)),
			deployment: deploymentOf(newFoo()),
		},
		{
			name:       "taken over from another member",
			foo:        newFoo(inStatus("foo-operator-1", 0)),
			deployment: deploymentOf(newFoo()),
			writes:     []string{"update foos/status"},
			status:     &v1alpha1.FooStatus{ObservedGeneration: 3, Member: testMember, Conditions: progressing},
		},
		{
			name:       "the Deployment was scaled",
			foo:        newFoo(inStatus(testMember, 0)),
			deployment: deploymentOf(newFoo(), withReplicas(7)),
			writes:     []string{"update deployments"},
			replicas:   new(int32(2)),
			events:     1,
		},
		{
			name:       "replicas became available",
			foo:        newFoo(inStatus(testMember, 0)),
			deployment: deploymentOf(newFoo(), withAvailable(2)),
			writes:     []string{"update foos/status"},
			status: &v1alpha1.FooStatus{
				AvailableReplicas: 2, ObservedGeneration: 3, Member: testMember,
				Conditions: ready(metav1.ConditionTrue, v1alpha1.ReasonAvailable, "2 replicas are available"),
			},
		},
		{
			name:       "the Foo does not control the Deployment",
			foo:        newFoo(),
			deployment: deploymentOf(newFoo(), withoutController),
			writes:     []string{"update foos/status"},
			status: &v1alpha1.FooStatus{
				ObservedGeneration: 3, Member: testMember,
				Conditions: ready(metav1.ConditionFalse, v1alpha1.ReasonNameTaken, "deployment default/a-deployment exists and is not controlled by this Foo"),
			},
			events: 1,
			fails:  true,
		},
		{
			name:       "the Deployment belongs to an earlier Foo of the same name",
			foo:        newFoo(),
			deployment: deploymentOf(newFoo(func(f *v1alpha1.Foo) { f.UID = "uid-before" })),
			writes:     []string{"update foos/status"},
			events:     1,
			fails:      true,
		},
		{
			name: "the Foo is being deleted",
			foo:  newFoo(deleting),
		},
		{
			name: "no Deployment name",
			foo:  newFoo(func(f *v1alpha1.Foo) { f.Spec.DeploymentName = "" }),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, test.foo, test.deployment)
			before := test.foo.DeepCopy()

			err := f.controller.syncHandler(t.Context(), keyOfFoo)
			if (err != nil) != test.fails {
				t.Errorf("syncHandler returned %v, want an error: %v", err, test.fails)
			}
			if diff := cmp.Diff(test.writes, f.writes()); diff != "" {
				t.Errorf("writes (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, test.foo); diff != "" {
				t.Errorf("the object in the cache was changed (-before +after):\n%s", diff)
			}
			if got := len(f.events.Events); got != test.events {
				t.Errorf("%d Events, want %d", got, test.events)
			}
			if test.status != nil {
				foo, err := f.foos.SamplecontrollerV1alpha1().Foos("default").Get(t.Context(), "a", metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(*test.status, foo.Status, cmpopts.IgnoreTypes(metav1.Time{})); diff != "" {
					t.Errorf("status (-want +got):\n%s", diff)
				}
			}
			if test.replicas != nil {
				deployment, err := f.kube.AppsV1().Deployments("default").Get(t.Context(), "a-deployment", metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if !metav1.IsControlledBy(deployment, test.foo) {
					t.Error("the Deployment has no controller reference to the Foo")
				}
				if diff := cmp.Diff(test.replicas, deployment.Spec.Replicas); diff != "" {
					t.Errorf("replicas (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// A second reconcile after the first one's writes writes nothing and creates no second Event.
func TestSyncHandlerIsIdempotent(t *testing.T) {
	for name, deployment := range map[string]*appsv1.Deployment{
		"created":    nil,
		"repaired":   deploymentOf(newFoo(), withReplicas(7)),
		"name taken": deploymentOf(newFoo(), withoutController),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, newFoo(), deployment)
			_ = f.controller.syncHandler(t.Context(), keyOfFoo) // TestSyncHandler checks its error
			events := len(f.events.Events)

			foo, err := f.foos.SamplecontrollerV1alpha1().Foos("default").Get(t.Context(), "a", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			current, err := f.kube.AppsV1().Deployments("default").Get(t.Context(), "a-deployment", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if err := f.config.Deployments.GetStore().Add(current); err != nil {
				t.Fatal(err)
			}
			if err := f.config.Foos.GetStore().Add(foo); err != nil {
				t.Fatal(err)
			}
			f.kube.ClearActions()
			f.foos.ClearActions()
			_ = f.controller.syncHandler(t.Context(), keyOfFoo)
			if writes := f.writes(); writes != nil {
				t.Errorf("the second reconcile wrote %v", writes)
			}
			if got := len(f.events.Events); got != events {
				t.Errorf("the second reconcile created %d Events", got-events)
			}
		})
	}
}

// Every update carries the resourceVersion of the observed object.
func TestUpdatesAreConditional(t *testing.T) {
	f := newFixture(t, newFoo(), deploymentOf(newFoo(), withReplicas(7)))
	if err := f.controller.syncHandler(t.Context(), keyOfFoo); err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, action := range append(f.kube.Actions(), f.foos.Actions()...) {
		if update, ok := action.(clienttesting.UpdateAction); ok {
			versions[action.GetResource().Resource] = update.GetObject().(metav1.Object).GetResourceVersion()
		}
	}
	if diff := cmp.Diff(map[string]string{"deployments": "20", "foos": "10"}, versions); diff != "" {
		t.Errorf("resourceVersions of updates (-want +got):\n%s", diff)
	}
}

func TestFooEvents(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*v1alpha1.Foo)
		queued []string
	}{
		{"resync", func(*v1alpha1.Foo) {}, []string{"default/a"}},
		{"new spec", func(f *v1alpha1.Foo) { f.ResourceVersion, f.Generation = "11", 4 }, []string{"default/a"}},
		{"deleted and created anew", func(f *v1alpha1.Foo) { f.ResourceVersion, f.UID = "11", "uid-b" }, []string{"default/a"}},
		{"new status", func(f *v1alpha1.Foo) { f.ResourceVersion, f.Status.Member = "11", "m" }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, newFoo(), nil)
			f.controller.fooUpdated(newFoo(), newFoo(test.change))
			if diff := cmp.Diff(test.queued, f.queued()); diff != "" {
				t.Errorf("queued (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDeploymentEvents(t *testing.T) {
	foo := newFoo(inStatus(testMember, 0))
	other := newFoo(func(f *v1alpha1.Foo) { f.Name, f.UID = "b", "uid-b" })
	base := deploymentOf(foo)
	const queued, ignored = true, false
	for _, test := range []struct {
		name  string
		event func(*Controller)
		want  bool
	}{
		{"added as it should be", func(c *Controller) { c.deploymentAdded(base) }, ignored},
		{"added with other replicas", func(c *Controller) { c.deploymentAdded(deploymentOf(foo, withReplicas(7))) }, queued},
		{"added with replicas available", func(c *Controller) { c.deploymentAdded(deploymentOf(foo, withAvailable(1))) }, queued},
		{"added without controller", func(c *Controller) { c.deploymentAdded(deploymentOf(foo, withoutController)) }, ignored},
		{"resync", func(c *Controller) { c.deploymentUpdated(base, base) }, ignored},
		{"scaled", func(c *Controller) { c.deploymentUpdated(base, deploymentOf(foo, withReplicas(7))) }, queued},
		{"available", func(c *Controller) { c.deploymentUpdated(base, deploymentOf(foo, withAvailable(1))) }, queued},
		{"annotated", func(c *Controller) {
			c.deploymentUpdated(base, deploymentOf(foo, func(d *appsv1.Deployment) { d.Annotations = map[string]string{"a": "b"} }))
		}, ignored},
		{"released by the Foo", func(c *Controller) { c.deploymentUpdated(base, deploymentOf(foo, withoutController)) }, queued},
		{"given to the Foo", func(c *Controller) { c.deploymentUpdated(deploymentOf(other), base) }, queued},
		{"deleted", func(c *Controller) { c.handleObject(base) }, queued},
		{"deleted, missed by the watch", func(c *Controller) {
			c.handleObject(cache.DeletedFinalStateUnknown{Key: "default/a-deployment", Obj: base})
		}, queued},
		{"deleted, of an unknown Foo", func(c *Controller) { c.handleObject(deploymentOf(other)) }, ignored},
		{"deleted, of an earlier Foo of the name", func(c *Controller) {
			c.handleObject(deploymentOf(newFoo(func(f *v1alpha1.Foo) { f.UID = types.UID("uid-before") })))
		}, queued},
		{"deleted, controlled by another kind", func(c *Controller) {
			c.handleObject(deploymentOf(foo, func(d *appsv1.Deployment) { d.OwnerReferences[0].Kind = "Bar" }))
		}, ignored},
		{"deleted, controlled by a Foo of another group", func(c *Controller) {
			c.handleObject(deploymentOf(foo, func(d *appsv1.Deployment) { d.OwnerReferences[0].APIVersion = "example.com/v1" }))
		}, ignored},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, foo, nil)
			test.event(f.controller)
			var want []string
			if test.want == queued {
				want = []string{"default/a"}
			}
			if diff := cmp.Diff(want, f.queued()); diff != "" {
				t.Errorf("queued (-want +got):\n%s", diff)
			}
		})
	}
}

// What happens to an item after each outcome of its reconcile.
func TestProcessNextWorkItem(t *testing.T) {
	lost := errors.New("the partition goes to another member")
	conflict := func(f *fixture) {
		f.foos.PrependReactor("update", "foos", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewConflict(v1alpha1.Resource("foos"), "a", errors.New("stale"))
		})
	}
	interrupted := func(f *fixture) {
		f.queue.lost = lost
		f.controller.SyncHandler = func(ctx context.Context, _ cache.ObjectName) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}
	}
	for _, test := range []struct {
		name    string
		foo     *v1alpha1.Foo
		prepare func(*fixture)
		retries int
		fails   bool // whether the reconcile returns an error
	}{
		{name: "synced", foo: newFoo(), prepare: func(*fixture) {}},
		{name: "deleted", prepare: func(*fixture) {}},
		{name: "conflict", foo: newFoo(), prepare: conflict, retries: 1, fails: true},
		{name: "lost during the reconcile", foo: newFoo(), prepare: interrupted, fails: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, test.foo, nil)
			test.prepare(f)
			reconciles := 0
			f.observe(func(key cache.ObjectName, err error) {
				reconciles++
				if key != keyOfFoo || (err != nil) != test.fails {
					t.Errorf("the reconcile of %s returned %v", key, err)
				}
				if test.name == "lost during the reconcile" && !errors.Is(err, lost) {
					t.Errorf("the reconcile returned %v, want the cause of the loss", err)
				}
			})
			f.queue.Add(keyOfFoo)
			if !f.controller.processNextWorkItem(t.Context()) {
				t.Fatal("the queue is not shut down")
			}
			if reconciles != 1 {
				t.Errorf("%d reconciles, want 1", reconciles)
			}
			if got := f.queue.NumRequeues(keyOfFoo); got != test.retries {
				t.Errorf("%d retries, want %d", got, test.retries)
			}
		})
	}
}

// With running informers, each Foo is reconciled once, although each reconcile causes two events.
func TestNoReconcileIsCausedByOwnWrites(t *testing.T) {
	const foos = 100
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, nil)
		for i := range foos {
			foo := newFoo(func(f *v1alpha1.Foo) {
				f.Name = string(rune('a'+i/10)) + string(rune('a'+i%10))
				f.UID, f.Spec.DeploymentName = types.UID(f.Name), f.Name
			})
			if err := f.foos.Tracker().Add(foo); err != nil {
				t.Fatal(err)
			}
		}
		// The fake does not change the resourceVersion, so that an update would look like a resync.
		f.foos.PrependReactor("update", "foos", func(action clienttesting.Action) (bool, runtime.Object, error) {
			foo := action.(clienttesting.UpdateAction).GetObject().(*v1alpha1.Foo)
			foo.ResourceVersion += "1"
			return true, foo, f.foos.Tracker().Update(action.GetResource(), foo, foo.Namespace)
		})
		reconciles := 0
		f.observe(func(cache.ObjectName, error) { reconciles++ })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{}, 3)
		for _, run := range []func(){
			func() { f.config.Foos.RunWithContext(ctx) },
			func() { f.config.Deployments.RunWithContext(ctx) },
			func() { f.controller.Run(ctx, 1) },
		} {
			go func() { run(); ended <- struct{}{} }()
		}
		time.Sleep(time.Minute)
		synctest.Wait()

		deployments, err := f.kube.AppsV1().Deployments("default").List(ctx, metav1.ListOptions{})
		if err != nil || len(deployments.Items) != foos {
			t.Errorf("%d Deployments (%v), want %d", len(deployments.Items), err, foos)
		}
		if reconciles != foos {
			t.Errorf("%d reconciles for %d Foos", reconciles, foos)
		}
		f.queue.ShutDown()
		cancel()
		for range 3 {
			<-ended
		}
	})
}
