// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"fmt"
	"reflect"
	"sync"

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

// Queue is the interface that the controller needs: client-go's, and a context for each piece of work.
type Queue interface {
	workqueue.TypedRateLimitingInterface[cache.ObjectName]
	// Context returns a context that ends when this process may no longer work on the item.
	Context(ctx context.Context, item cache.ObjectName) context.Context
}

// Reasons of Events.
const (
	eventNameTaken = "DeploymentNameTaken"
	eventRepaired  = "DeploymentRepaired"
)

// Controller keeps one Deployment for each Foo. Its informers and its queue show it only what it may work on. The token is
// all that it knows about sharding: every write carries it, so that the API server can check it (manifests/fencing.yaml).
type Controller struct {
	// SyncHandler brings one Foo and its Deployment to the state that the Foo specifies. A program may wrap it before Run.
	SyncHandler func(ctx context.Context, key cache.ObjectName) error
	// Foos reads from the cache of the informer.
	Foos foolisters.FooLister
	// Events must be set before Run.
	Events record.EventRecorder

	kubeClient  kubernetes.Interface
	fooClient   versioned.Interface
	deployments appslisters.DeploymentLister
	synced      []cache.InformerSynced

	queue  Queue
	member string // written to each Foo's status
}

// ControllerConfig holds the parts of a [Controller].
type ControllerConfig struct {
	KubeClient kubernetes.Interface
	FooClient  versioned.Interface
	// Foos and Deployments are the informers. The caller runs them.
	Foos, Deployments cache.SharedIndexInformer
	Queue             Queue
	// Member is the name that is written to each Foo's status.
	Member string
}

// NewController registers the event handlers and starts nothing.
func NewController(config ControllerConfig) (*Controller, error) {
	c := &Controller{
		kubeClient:  config.KubeClient,
		fooClient:   config.FooClient,
		Foos:        foolisters.NewFooLister(config.Foos.GetIndexer()),
		deployments: appslisters.NewDeploymentLister(config.Deployments.GetIndexer()),
		queue:       config.Queue,
		member:      config.Member,
	}
	c.SyncHandler = c.syncHandler
	foos, err := config.Foos.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    c.enqueue,
		UpdateFunc: c.fooUpdated,
		// A deleted Foo needs no work: the garbage collector deletes its Deployment.
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

// Run processes items until the queue is shut down, and returns when all workers have ended. The end of ctx only ends the
// wait for the caches: the queue's contexts end work in flight.
func (c *Controller) Run(ctx context.Context, workers int) {
	logger := klog.FromContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), c.synced...) {
		return // stopped before the caches had synced
	}
	logger.V(2).Info("Starting workers", "workers", workers)
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for c.processNextWorkItem(ctx) {
			}
		})
	}
	wait.Wait()
	logger.V(2).Info("Workers have stopped")
}

// processNextWorkItem waits for an item and works on it. It returns false once the queue is shut down.
func (c *Controller) processNextWorkItem(ctx context.Context) bool {
	key, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	// Done ends the wait of a drain for this item: nothing may be done for the item after it.
	defer c.queue.Done(key)
	ctx = c.queue.Context(ctx, key)
	logger := klog.FromContext(ctx).WithValues("object", key)

	switch err := c.SyncHandler(klog.NewContext(ctx, logger), key); {
	case err == nil:
		logger.V(4).Info("Synced")
		c.queue.Forget(key)
		return true
	case ctx.Err() != nil || lostOwnership(err):
		// The Foo is being handed over, or this member is fenced. Done adds the item again if necessary.
		logger.V(2).Info("Reconcile interrupted", "cause", context.Cause(ctx), "err", err)
		return true
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		// The cache was behind: the precondition has prevented a wrong write.
		logger.V(2).Info("Cache was out of date, retrying", "err", err)
	default:
		utilruntime.HandleErrorWithContext(ctx, err, "Sync failed, retrying", "object", key)
	}
	c.queue.AddRateLimited(key)
	return true
}

// syncHandler makes the Deployment match the Foo's spec, and writes what it observed to the Foo's status. It writes only
// differences.
func (c *Controller) syncHandler(ctx context.Context, key cache.ObjectName) error {
	// The Foo belongs to the cache: it must not be changed.
	foo, err := c.Foos.Foos(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return nil // deleted since it was queued
	}
	if err != nil {
		return fmt.Errorf("read Foo from the cache: %w", err)
	}
	if foo.DeletionTimestamp != nil {
		return nil
	}
	if foo.Spec.DeploymentName == "" {
		// The CRD rejects this. A retry would not help; the next change of the Foo causes an event.
		utilruntime.HandleErrorWithContext(ctx, nil, "Foo does not name a Deployment")
		return nil
	}
	deployment, err := c.deployments.Deployments(foo.Namespace).Get(foo.Spec.DeploymentName)
	if apierrors.IsNotFound(err) {
		create := newDeployment(foo)
		shard.StampToken(ctx, create)
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
		// A copy of the observed object, so that the update carries its resourceVersion and cannot overwrite what a
		// user or another member has written in the meantime.
		update := deployment.DeepCopy()
		update.Spec.Replicas = &want
		shard.StampToken(ctx, update)
		deployment, err = c.kubeClient.AppsV1().Deployments(foo.Namespace).Update(ctx, update, metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("update Deployment %s/%s: %w", update.Namespace, update.Name, err)
		}
		c.Events.Eventf(foo, corev1.EventTypeNormal, eventRepaired, "Deployment %s has %d replicas again", deployment.Name, want)
	}

	_, err = c.updateStatus(ctx, foo, deployment.Status.AvailableReplicas, readiness(foo, deployment))
	return err
}

// nameTaken reports in the Foo's status that the Foo does not control the Deployment that it names. It returns an error, so
// that the Foo is retried: the Deployment's events do not lead to this Foo.
func (c *Controller) nameTaken(ctx context.Context, foo *v1alpha1.Foo) error {
	taken := fmt.Errorf("deployment %s/%s exists and is not controlled by this Foo", foo.Namespace, foo.Spec.DeploymentName)
	changed, err := c.updateStatus(ctx, foo, 0, metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonNameTaken, Message: taken.Error(),
	})
	if err != nil {
		return err
	}
	if changed { // not on every retry
		c.Events.Event(foo, corev1.EventTypeWarning, eventNameTaken, taken.Error())
	}
	return taken
}

// updateStatus writes the status if it differs, on the condition that the Foo has not changed since it was read.
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
	// Set the token after the comparison: a different token alone is not a reason to write. The token is in the status
	// because a write to the status cannot change annotations. It is empty if the claim is gone: another owner's token must
	// not be kept.
	update.Status.Token, _ = shard.TokenFromContext(ctx)
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

// fooUpdated ignores updates of metadata and status, most of which this controller causes itself.
func (c *Controller) fooUpdated(old, new any) {
	before, after := old.(*v1alpha1.Foo), new.(*v1alpha1.Foo)
	resync := before.ResourceVersion == after.ResourceVersion
	if resync || before.UID != after.UID || before.Generation != after.Generation {
		c.enqueue(after)
	}
}

// deploymentAdded ignores Deployments that already match their Foo: those that this controller has just created, and those
// that are listed at the start or gained from another member, whose Foos cause their own Add.
func (c *Controller) deploymentAdded(obj any) {
	deployment := obj.(*appsv1.Deployment)
	foo := c.ownerOf(deployment)
	if foo == nil || settled(foo, deployment) {
		return
	}
	c.enqueue(foo)
}

// deploymentUpdated ignores resyncs and changes that syncHandler does not use. It compares only the event's two objects: the
// Foo in the cache may be older than they are.
func (c *Controller) deploymentUpdated(old, new any) {
	before, after := old.(*appsv1.Deployment), new.(*appsv1.Deployment)
	if reflect.DeepEqual(observe(before), observe(after)) {
		return
	}
	if !reflect.DeepEqual(metav1.GetControllerOf(before), metav1.GetControllerOf(after)) {
		c.handleObject(before) // the previous owner has lost it
	}
	c.handleObject(after)
}

// handleObject queues the Foo that controls the object, if there is one. It finds the Foo by name and not by UID: the
// Deployment of a deleted Foo blocks a new Foo of the same name until it is deleted, and its deletion must then queue the
// new Foo.
func (c *Controller) handleObject(obj any) {
	object, ok := obj.(metav1.Object)
	if !ok {
		deleted, ok := obj.(cache.DeletedFinalStateUnknown)
		if !ok {
			utilruntime.HandleError(fmt.Errorf("event has an object of type %T", obj))
			return
		}
		if object, ok = deleted.Obj.(metav1.Object); !ok {
			utilruntime.HandleError(fmt.Errorf("deletion event has an object of type %T", deleted.Obj))
			return
		}
	}
	if foo := c.ownerOf(object); foo != nil {
		c.enqueue(foo)
	}
}

// ownerOf returns the Foo that controls the object, from the cache, or nil if there is none.
func (c *Controller) ownerOf(object metav1.Object) *v1alpha1.Foo {
	owner := metav1.GetControllerOf(object)
	if owner == nil || owner.Kind != kindFoo.Kind || owner.APIVersion != kindFoo.GroupVersion().String() {
		return nil
	}
	foo, err := c.Foos.Foos(object.GetNamespace()).Get(owner.Name)
	if err != nil {
		return nil // the Foo is gone: the garbage collector deletes the object
	}
	return foo
}
