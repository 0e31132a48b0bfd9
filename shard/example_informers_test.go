// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic/dynamicinformer"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/scheme"
	metadatafake "k8s.io/client-go/metadata/fake"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// A dynamic informer, for kinds without generated code, is wrapped like any other.
func ExampleWrapInformer_dynamic() {
	widget := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"namespace": "default", "name": "settings"},
		"data":     map[string]any{"color": "blue"},
	}}
	client := dynamicfake.NewSimpleDynamicClient(scheme.Scheme, widget)
	factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
	resource := corev1.SchemeGroupVersion.WithResource("configmaps")

	s := shard.NewOrDie(shardtest.NewCluster().Client("op-0"), exampleConfig())
	widgets := shard.WrapInformer(s, factory.ForResource(resource).Informer())
	seen := make(chan string)
	_, _ = widgets.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) {
		color, _, _ := unstructured.NestedString(obj.(*unstructured.Unstructured).Object, "data", "color")
		seen <- color
	}})
	informing, halt := context.WithCancel(context.Background())
	factory.Start(informing.Done())
	stop := runExample(s)
	fmt.Println(<-seen)
	stop()
	halt()
	factory.Shutdown()
	// Output: blue
}

// A metadata informer keeps only the metadata of objects in memory.
func ExampleWrapInformer_metadata() {
	metadataScheme := metadatafake.NewTestScheme()
	_ = metav1.AddMetaToScheme(metadataScheme)
	client := metadatafake.NewSimpleMetadataClient(metadataScheme, &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "settings", Labels: map[string]string{"team": "red"}},
	})
	factory := metadatainformer.NewSharedInformerFactory(client, 0)
	resource := corev1.SchemeGroupVersion.WithResource("configmaps")

	s := shard.NewOrDie(shardtest.NewCluster().Client("op-0"), exampleConfig())
	maps := shard.WrapInformer(s, factory.ForResource(resource).Informer())
	seen := make(chan string)
	_, _ = maps.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) {
		seen <- obj.(*metav1.PartialObjectMetadata).Labels["team"]
	}})
	informing, halt := context.WithCancel(context.Background())
	factory.Start(informing.Done())
	stop := runExample(s)
	fmt.Println(<-seen)
	stop()
	halt()
	factory.Shutdown()
	// Output: red
}

// Controllers come and go while the member runs, for instance one for each custom resource that
// users define. Each has its own informer and queue. To end one, stop its informer and shut down
// its queue: the member forgets both.
func ExampleWrapInformer_controllersThatComeAndGo() {
	client := shardtest.NewCluster().Client("op-0",
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "settings"}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "password"}})
	s := shard.NewOrDie(client, exampleConfig())
	stop := runExample(s)

	control := func(kind string, inner func(informers.SharedInformerFactory) cache.SharedIndexInformer) {
		ctx, cancel := context.WithCancel(context.Background())
		factory := informers.NewSharedInformerFactory(client, 0)
		informer := shard.WrapInformer(s, inner(factory))
		queue := shard.NewQueue(s, workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
		_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) {
			if name, err := cache.ObjectToName(obj); err == nil {
				queue.Add(name)
			}
		}})
		factory.StartWithContext(ctx)
		item, work, _ := queue.GetWithContext(ctx)
		fmt.Println(kind, item, work.Err() == nil)
		queue.Done(item)
		// The kind is not needed any more.
		queue.ShutDown()
		cancel()
		factory.Shutdown()
	}
	control("ConfigMap", func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
		return f.Core().V1().ConfigMaps().Informer()
	})
	control("Secret", func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
		return f.Core().V1().Secrets().Informer()
	})
	stop()
	// Output:
	// ConfigMap default/settings true
	// Secret default/password true
}

// exampleConfig is the configuration of a single member that does not wait for others.
func exampleConfig() shard.Config {
	return shard.Config{Name: "example", PodName: "op-0", Namespace: "default", StartupSettle: -1}
}

// runExample runs a member until stop is called.
func runExample(s *shard.Sharder) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			fmt.Println(err)
		}
	})
	return func() { cancel(); running.Wait() }
}
