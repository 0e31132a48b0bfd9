// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
)

// garbageCollector runs kube-controller-manager's garbage collector: the same package, set
// up as kube-controller-manager does. The other controllers are left out, because compiling
// them takes longer than everything else together.
func garbageCollector(ctx context.Context, kubeconfig string) error {
	const workers = 5
	// The default period for looking for new resource types is 30 s, during which the
	// objects of a new custom resource are not collected. That is too long for a test.
	const period = 2 * time.Second
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	// High limits, because some tests delete hundreds of owners.
	config.QPS, config.Burst = 200, 400
	config = rest.AddUserAgent(config, "generic-garbage-collector")
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	metadataClient, err := metadata.NewForConfig(config)
	if err != nil {
		return err
	}
	// The collector resets the mapper's discovery client, so the mapper needs its own.
	mapperDiscovery, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return err
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(mapperDiscovery))

	started := make(chan struct{})
	collector, err := garbagecollector.NewGarbageCollector(ctx, client, metadataClient, mapper,
		garbagecollector.DefaultIgnoredResources(),
		metadataInformers{metadatainformer.NewSharedInformerFactory(metadataClient, 0)}, started)
	if err != nil {
		return err
	}
	close(started)

	var wg sync.WaitGroup
	wg.Go(func() { collector.Run(ctx, workers, 30*time.Second) })
	wg.Go(func() { collector.Sync(ctx, client.Discovery(), period) })
	wg.Wait()
	return nil
}

// metadataInformers serves every resource from its metadata. kube-controller-manager shares
// typed informers with its other controllers, which do not exist here.
type metadataInformers struct {
	metadatainformer.SharedInformerFactory
}

func (f metadataInformers) ForResource(resource schema.GroupVersionResource) (informers.GenericInformer, error) {
	return f.SharedInformerFactory.ForResource(resource), nil
}
