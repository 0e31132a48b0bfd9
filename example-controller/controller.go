// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes"
	appslisters "k8s.io/client-go/listers/apps/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned"
	foolisters "github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/listers/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/shard"
)

// Queue is what the controller needs of a queue: client-go's interface, and a context for each piece of work.
type Queue interface {
	workqueue.TypedRateLimitingInterface[cache.ObjectName]
	// Context returns a context that ends when this process may no longer work on the item.
	Context(ctx context.Context, item cache.ObjectName) context.Context
}

// Observer watches the controller at work.
type Observer interface {
	// Begin is called before each reconcile: foo is what the lister has for the key, nil if nothing. The function that
	// it returns is called when the reconcile has ended.
	Begin(key cache.ObjectName, foo *v1alpha1.Foo) (ended func(error))
	// Write is called before each request that changes something, with the context of the work.
	Write(ctx context.Context, key cache.ObjectName)
}

type nobody struct{}

func (nobody) Begin(cache.ObjectName, *v1alpha1.Foo) (ended func(error)) { return func(error) {} }
func (nobody) Write(context.Context, cache.ObjectName)                   {}

// Reasons of Events.
const (
	eventNameTaken = "DeploymentNameTaken"
	eventRepaired  = "DeploymentRepaired"
)

// Controller keeps one Deployment for each Foo. Its informers and its queue show it only what it may work on. All that it
// knows of sharding is the token: whatever it writes carries it, so that a server may check it (manifests/fencing.yaml).
type Controller struct {
	kubeClient kubernetes.Interface
	fooClient  versioned.Interface

	foos        foolisters.FooLister
	deployments appslisters.DeploymentLister
	synced      []cache.InformerSynced

	queue  Queue
	events record.EventRecorder

	member  string        // written to each Foo's status
	delay   time.Duration // simulated work
	observe Observer
}

// ControllerConfig is what a [Controller] is made of. Delay and Observe may be left out.
type ControllerConfig struct {
	KubeClient kubernetes.Interface
	FooClient  versioned.Interface
	// Foos and Deployments are run by somebody else.
	Foos, Deployments cache.SharedIndexInformer
	Queue             Queue
	Events            record.EventRecorder
	// Member is the name that goes into each Foo's status.
	Member string
	// Delay is waited for in each reconcile, as if there was work to do.
	Delay   time.Duration
	Observe Observer
}

// NewController registers the event handlers and starts nothing.
func NewController(config ControllerConfig) (*Controller, error) {
	c := &Controller{
		kubeClient:  config.KubeClient,
		fooClient:   config.FooClient,
		foos:        foolisters.NewFooLister(config.Foos.GetIndexer()),
		deployments: appslisters.NewDeploymentLister(config.Deployments.GetIndexer()),
		queue:       config.Queue,
		events:      config.Events,
		member:      config.Member,
		delay:       config.Delay,
		observe:     config.Observe,
	}
	if c.observe == nil {
		c.observe = nobody{}
	}
	foos, err := config.Foos.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    c.enqueue,
		UpdateFunc: c.fooUpdated,
		// A Foo that is gone needs nothing: the garbage collector takes its Deployment.
	})
	if err != nil {
		return nil, fmt.Errorf("handle events of Foos: %w", err)
	}
	deployments, err := config.Deployments.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    c.deploymentAdded,
		UpdateFunc: c.deploymentUpdated,
		DeleteFunc: c.handleObject,
	})
	if err != nil {
		return nil, fmt.Errorf("handle events of Deployments: %w", err)
	}
	c.synced = []cache.InformerSynced{foos.HasSynced, deployments.HasSynced}
	return c, nil
}

// Run works until the queue is shut down, and returns when all workers have ended. The end of ctx ends the waiting for
// caches, nothing else: the queue says when work in hand must stop.
func (c *Controller) Run(ctx context.Context, workers int) {
	logger := klog.FromContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), c.synced...) {
		return // stopped before there was anything to do
	}
	logger.V(2).Info("Workers start", "workers", workers)
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for c.processNextWorkItem(ctx) {
			}
		})
	}
	wait.Wait()
	logger.V(2).Info("Workers have ended")
}

// processNextWorkItem waits for an item and works on it. It returns false once the queue is shut down.
func (c *Controller) processNextWorkItem(ctx context.Context) bool {
	key, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	// Done tells a drain that waits for this item to go on: nothing may come after it.
	defer c.queue.Done(key)
	ctx = c.queue.Context(ctx, key)
	logger := klog.FromContext(ctx).WithValues("object", key)

	switch err := c.reconcile(klog.NewContext(ctx, logger), key); {
	case err == nil:
		logger.V(4).Info("Synced")
		c.queue.Forget(key)
		return true
	case ctx.Err() != nil || lostOwnership(err):
		// On its way to another member, or this one is fenced. Done knows what to do with the item.
		logger.V(2).Info("Stopped in the middle", "cause", context.Cause(ctx), "err", err)
		return true
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		// The cache was behind. That is what preconditions are for.
		logger.V(2).Info("Out of date, will be tried again", "err", err)
	default:
		utilruntime.HandleErrorWithContext(ctx, err, "Sync has failed, will be tried again", "object", key)
	}
	c.queue.AddRateLimited(key)
	return true
}

// reconcile is syncHandler, observed, after the simulated work.
func (c *Controller) reconcile(ctx context.Context, key cache.ObjectName) (err error) {
	foo, err := c.foos.Foos(key.Namespace).Get(key.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read Foo from the cache: %w", err)
	}
	if apierrors.IsNotFound(err) {
		foo = nil
	}
	ended := c.observe.Begin(key, foo)
	defer func() { ended(err) }()

	if c.delay > 0 {
		timer := time.NewTimer(c.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if foo == nil {
		return nil // deleted since it was queued
	}
	return c.syncHandler(ctx, foo)
}

// syncHandler makes the Deployment what the Foo asks for, and the Foo's status what it saw. It writes nothing where
// nothing differs. The Foo belongs to the cache: it must not be changed.
func (c *Controller) syncHandler(ctx context.Context, foo *v1alpha1.Foo) error {
	if foo.DeletionTimestamp != nil {
		return nil
	}
	if foo.Spec.DeploymentName == "" {
		// The CRD refuses this. To try again would not help; the next change of the Foo will come through its event.
		utilruntime.HandleErrorWithContext(ctx, nil, "Foo names no Deployment")
		return nil
	}
	deployment, err := c.deployments.Deployments(foo.Namespace).Get(foo.Spec.DeploymentName)
	if apierrors.IsNotFound(err) {
		create := newDeployment(foo)
		shard.StampToken(ctx, create)
		c.observe.Write(ctx, cache.MetaObjectToName(foo))
		deployment, err = c.kubeClient.AppsV1().Deployments(foo.Namespace).Create(ctx, create, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("create Deployment %s/%s: %w", foo.Namespace, foo.Spec.DeploymentName, err)
		}
	}
	if err != nil {
		return fmt.Errorf("read Deployment %s/%s from the cache: %w", foo.Namespace, foo.Spec.DeploymentName, err)
	}

	if !metav1.IsControlledBy(deployment, foo) {
		return c.nameTaken(ctx, foo)
	}

	if want := replicas(foo); deployment.DeletionTimestamp == nil && (deployment.Spec.Replicas == nil || *deployment.Spec.Replicas != want) {
		// A copy of what was seen, so that the update carries its resourceVersion: whoever has written in the meantime,
		// a human or another member, is not overwritten.
		update := deployment.DeepCopy()
		update.Spec.Replicas = &want
		shard.StampToken(ctx, update)
		c.observe.Write(ctx, cache.MetaObjectToName(foo))
		deployment, err = c.kubeClient.AppsV1().Deployments(foo.Namespace).Update(ctx, update, metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("update Deployment %s/%s: %w", update.Namespace, update.Name, err)
		}
		c.events.Eventf(foo, corev1.EventTypeNormal, eventRepaired, "Deployment %s has %d replicas again", deployment.Name, want)
	}

	_, err = c.updateStatus(ctx, foo, deployment.Status.AvailableReplicas, readiness(foo, deployment))
	return err
}

// nameTaken says on the Foo that somebody else has the Deployment that it names. It returns an error, so that the Foo
// is tried again: the Deployment's events don't lead to this Foo.
func (c *Controller) nameTaken(ctx context.Context, foo *v1alpha1.Foo) error {
	taken := fmt.Errorf("deployment %s/%s exists and is not controlled by this Foo", foo.Namespace, foo.Spec.DeploymentName)
	changed, err := c.updateStatus(ctx, foo, 0, metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonNameTaken, Message: taken.Error(),
	})
	if err != nil {
		return err
	}
	if changed { // not at every try
		c.events.Event(foo, corev1.EventTypeWarning, eventNameTaken, taken.Error())
	}
	return taken
}

// updateStatus writes the status if it differs, on the condition that nobody has written to the Foo since it was read.
func (c *Controller) updateStatus(ctx context.Context, foo *v1alpha1.Foo, available int32, ready metav1.Condition) (changed bool, err error) {
	update := foo.DeepCopy()
	update.Status.AvailableReplicas = available
	update.Status.ObservedGeneration = foo.Generation
	update.Status.Member = c.member
	ready.ObservedGeneration = foo.Generation
	meta.SetStatusCondition(&update.Status.Conditions, ready)
	if equality.Semantic.DeepEqual(foo.Status, update.Status) {
		return false, nil
	}
	// Not before the comparison: another token alone is no reason for a write. It stands in the status because a write
	// to the status changes no annotation. Empty if the claim is gone: another owner's token must not be passed on.
	update.Status.Token, _ = shard.TokenFromContext(ctx)
	c.observe.Write(ctx, cache.MetaObjectToName(foo))
	if _, err := c.fooClient.SamplecontrollerV1alpha1().Foos(foo.Namespace).UpdateStatus(ctx, update, metav1.UpdateOptions{}); err != nil {
		return false, fmt.Errorf("update status of Foo %s/%s: %w", foo.Namespace, foo.Name, err)
	}
	return true, nil
}

func (c *Controller) enqueue(obj any) {
	key, err := cache.ObjectToName(obj)
	if err != nil {
		utilruntime.HandleError(err)
		return
	}
	c.queue.Add(key)
}

// fooUpdated leaves out updates of metadata and status, most of which are this controller's own.
func (c *Controller) fooUpdated(old, new any) {
	before, after := old.(*v1alpha1.Foo), new.(*v1alpha1.Foo)
	resync := before.ResourceVersion == after.ResourceVersion
	if resync || before.UID != after.UID || before.Generation != after.Generation {
		c.enqueue(after)
	}
}

// deploymentAdded leaves out Deployments that are as they should be: those that this controller has just created, and
// those that are listed at the start or gained from another member, whose Foos come with an Add of their own.
func (c *Controller) deploymentAdded(obj any) {
	deployment := obj.(*appsv1.Deployment)
	foo := c.ownerOf(deployment)
	if foo == nil || settled(foo, deployment) {
		return
	}
	c.enqueue(foo)
}

// deploymentUpdated leaves out resyncs and what syncHandler doesn't look at. It compares the event's own two objects
// and nothing else: the Foo in the cache may be older than they are.
func (c *Controller) deploymentUpdated(old, new any) {
	before, after := old.(*appsv1.Deployment), new.(*appsv1.Deployment)
	if reflect.DeepEqual(seen(before), seen(after)) {
		return
	}
	if !reflect.DeepEqual(metav1.GetControllerOf(before), metav1.GetControllerOf(after)) {
		c.handleObject(before) // the former owner has lost it
	}
	c.handleObject(after)
}

// handleObject queues the Foo that controls the object, if there is one. The Foo is found by name and not by UID: the
// Deployment of a Foo that was deleted stands in the way of a new one of the same name until it goes, and then this
// is how the new one hears of it.
func (c *Controller) handleObject(obj any) {
	object, ok := obj.(metav1.Object)
	if !ok {
		deleted, ok := obj.(cache.DeletedFinalStateUnknown)
		if !ok {
			utilruntime.HandleError(fmt.Errorf("event with an object of type %T", obj))
			return
		}
		if object, ok = deleted.Obj.(metav1.Object); !ok {
			utilruntime.HandleError(fmt.Errorf("event of deletion with an object of type %T", deleted.Obj))
			return
		}
	}
	if foo := c.ownerOf(object); foo != nil {
		c.enqueue(foo)
	}
}

// ownerOf returns the Foo that controls the object, from the cache; nil if there is none.
func (c *Controller) ownerOf(object metav1.Object) *v1alpha1.Foo {
	owner := metav1.GetControllerOf(object)
	if owner == nil || owner.Kind != kindFoo.Kind || owner.APIVersion != kindFoo.GroupVersion().String() {
		return nil
	}
	foo, err := c.foos.Foos(object.GetNamespace()).Get(owner.Name)
	if err != nil {
		return nil // an orphan: left to the garbage collector
	}
	return foo
}
