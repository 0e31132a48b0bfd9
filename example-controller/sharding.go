// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubeinformers "k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/apis/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned"
	fooinformers "github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/informers/externalversions"
	"github.com/tom-ludwig/operator-scaling/shard"
)

// shardConfig is the ring as the flags want it. What they leave at zero gets the library's defaults, which depend on
// each other; hence not shard.DefaultConfig, which would fill them in before the flags are known.
func shardConfig(o options, stillRunning func(items []string), r *recorder) shard.Config {
	return shard.Config{
		Name:          o.ring,
		LeaseDuration: o.leaseDuration,
		RenewDeadline: o.renewDeadline,
		RenewPeriod:   o.heartbeat,
		DrainTimeout:  o.drainTimeout,
		Partitions:    o.partitions,
		OnOverrun:     stillRunning,
		OnChange:      r.changed,
	}
}

// sharded is a controller's view of the cluster, cut down to what this member may work on.
type sharded struct {
	fooFactory  fooinformers.SharedInformerFactory
	kubeFactory kubeinformers.SharedInformerFactory
	foos        cache.SharedIndexInformer
	deployments cache.SharedIndexInformer
	queue       Queue
}

// newSharded makes the informers and the queue, and starts nothing. An empty namespace stands for all. Each of the
// three calls into package shard takes the place of the plain client-go thing; that is all there is to it.
func newSharded(s *shard.Sharder, kubeClient kubernetes.Interface, fooClient versioned.Interface, namespace string, resync time.Duration, metrics workqueue.MetricsProvider) sharded {
	fooFactory := fooinformers.NewSharedInformerFactoryWithOptions(fooClient, resync, fooinformers.WithNamespace(namespace))
	kubeFactory := kubeinformers.NewSharedInformerFactoryWithOptions(kubeClient, resync, kubeinformers.WithNamespace(namespace))

	// 1. What is reconciled. Registered in the factory before anybody asks it for Foos, so that its Informer() and its
	//    Lister() are those of the sharded informer.
	foos := fooFactory.InformerFor(&v1alpha1.Foo{}, func(client versioned.Interface, resync time.Duration) cache.SharedIndexInformer {
		return shard.NewInformer(s, listFoos(client, namespace), &v1alpha1.Foo{}, resync, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	})

	// 2. What depends on it. A Deployment belongs to the member that owns its Foo.
	deployments := shard.WrapInformer(s, kubeFactory.Apps().V1().Deployments().Informer(), shard.ByController)

	// 3. The queue. It asks again when an item is handed out: an item may have waited, and its Foo may have moved.
	queue := shard.NewQueue(s, workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName](),
		shard.WithQueueConfig(workqueue.TypedRateLimitingQueueConfig[cache.ObjectName]{Name: "foos", MetricsProvider: metrics}))

	return sharded{fooFactory: fooFactory, kubeFactory: kubeFactory, foos: foos, deployments: deployments, queue: queue}
}

// lostOwnership tells whether a request was not sent because its Foo is no longer this member's.
func lostOwnership(err error) bool { return errors.Is(err, shard.ErrLostOwnership) }

// listFoos is what the generated informer would list and watch. The empty namespace stands for all.
func listFoos(client versioned.Interface, namespace string) cache.ListerWatcher {
	foos := client.SamplecontrollerV1alpha1().Foos(namespace)
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return foos.List(ctx, options)
		},
		WatchFuncWithContext: foos.Watch,
	}, client)
}
