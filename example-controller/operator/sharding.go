// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"errors"
	"time"

	kubeinformers "k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned"
	fooinformers "github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/informers/externalversions"
	"github.com/tom-ludwig/operator-scaling/shard"
)

// sharded holds the controller's informers and queue, limited to what this member may work on.
type sharded struct {
	fooFactory  fooinformers.SharedInformerFactory
	kubeFactory kubeinformers.SharedInformerFactory
	foos        cache.SharedIndexInformer
	deployments cache.SharedIndexInformer
	queue       Queue
}

// newSharded creates the informers and the queue, and starts nothing. An empty namespace means all namespaces. Each of the
// three calls of package shard replaces one of plain client-go; nothing else changes.
func newSharded(s *shard.Sharder, kubeClient kubernetes.Interface, fooClient versioned.Interface, namespace string, resync time.Duration, metrics workqueue.MetricsProvider) sharded {
	fooFactory := fooinformers.NewSharedInformerFactoryWithOptions(fooClient, resync, fooinformers.WithNamespace(namespace))
	kubeFactory := kubeinformers.NewSharedInformerFactoryWithOptions(kubeClient, resync, kubeinformers.WithNamespace(namespace))

	// 1. The objects that are reconciled.
	foos := shard.WrapInformer(s, fooFactory.Samplecontroller().V1alpha1().Foos().Informer())

	// 2. The dependents. The member that owns a Foo also gets its Deployment's events.
	deployments := shard.WrapInformer(s, kubeFactory.Apps().V1().Deployments().Informer(), shard.ByController)

	// 3. The queue. It checks the ownership again when it hands out an item: while the item waited, its Foo may have moved.
	queue := shard.NewQueue(s, workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName](),
		shard.WithQueueConfig(workqueue.TypedRateLimitingQueueConfig[cache.ObjectName]{Name: "foos", MetricsProvider: metrics}))

	return sharded{fooFactory: fooFactory, kubeFactory: kubeFactory, foos: foos, deployments: deployments, queue: queue}
}

// lostOwnership reports whether a request was not sent because this member no longer owns the Foo.
func lostOwnership(err error) bool { return errors.Is(err, shard.ErrLostOwnership) }
