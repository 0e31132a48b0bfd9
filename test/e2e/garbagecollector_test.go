// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"sync"
	"testing"
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
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
)

// collectGarbage runs kube-controller-manager's garbage collector until the test ends: the same
// package, set up as kube-controller-manager does.
func collectGarbage(t testing.TB, config *rest.Config) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	t.Cleanup(func() { cancel(); wait.Wait() })
	if err := startGarbageCollector(ctx, config, &wait); err != nil {
		t.Fatal(err)
	}
}

func startGarbageCollector(ctx context.Context, config *rest.Config, wait *sync.WaitGroup) error {
	const workers = 5
	// The default period for looking for new resource types is 30 s, during which the
	// objects of a new custom resource are not collected. That is too long for a test.
	const period = 2 * time.Second
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

	wait.Go(func() { collector.Run(ctx, workers, 30*time.Second) })
	wait.Go(func() { collector.Sync(ctx, client.Discovery(), period) })
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
