// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/informer"
	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Informers that would show wrong objects, silently, are errors of Run.
func TestRunRefusesInformersThatShowWrongObjects(t *testing.T) {
	example := &corev1.ConfigMap{}
	for name, test := range map[string]struct {
		setUp  func(s *shard.Sharder, factory informers.SharedInformerFactory)
		remedy string // "": there is no error
		is     error
	}{
		"InformerFor": {setUp: func(s *shard.Sharder, factory informers.SharedInformerFactory) {
			shard.InformerFor(s, factory, example, coreinformers.NewConfigMapInformer)
			shard.InformerFor(s, factory, example, coreinformers.NewConfigMapInformer) // the same one
			if informer.Of(factory.Core().V1().ConfigMaps().Informer()) == nil {
				t.Error("the factory has a plain informer")
			}
		}},
		"InformerFor after Informer": {setUp: func(s *shard.Sharder, factory informers.SharedInformerFactory) {
			factory.Core().V1().ConfigMaps().Lister()
			shard.InformerFor(s, factory, example, coreinformers.NewConfigMapInformer)
		}, remedy: "before anything calls Informer() or Lister()"},
		"InformerFor with two keys": {setUp: func(s *shard.Sharder, factory informers.SharedInformerFactory) {
			shard.InformerFor(s, factory, example, coreinformers.NewConfigMapInformer)
			shard.InformerFor(s, factory, example, coreinformers.NewConfigMapInformer, shard.ByController)
		}, remedy: "create another informer with NewInformer"},
		"InformerFor with Unfiltered": {setUp: func(s *shard.Sharder, factory informers.SharedInformerFactory) {
			for range 2 {
				shard.InformerFor(s, factory, example, coreinformers.NewConfigMapInformer, shard.Unfiltered)
			}
		}},
		"InformerFor with Unfiltered after another key": {setUp: func(s *shard.Sharder, factory informers.SharedInformerFactory) {
			shard.InformerFor(s, factory, example, coreinformers.NewConfigMapInformer)
			shard.InformerFor(s, factory, example, coreinformers.NewConfigMapInformer, shard.Unfiltered)
		}, remedy: "create another informer with NewInformer"},
		"wrapped twice": {setUp: func(s *shard.Sharder, factory informers.SharedInformerFactory) {
			shard.WrapInformer(s, shard.WrapInformer(s, factory.Core().V1().ConfigMaps().Informer()))
		}, remedy: "use it as it is"},
		"wrapped again as a typed informer": {setUp: func(s *shard.Sharder, factory informers.SharedInformerFactory) {
			i := shard.WrapInformer(s, factory.Core().V1().ConfigMaps().Informer())
			shard.WrapInformer(s, cache.NewTypedSharedIndexInformer[*corev1.ConfigMap](i))
		}, remedy: "use it as it is"},
		"another key": {setUp: func(s *shard.Sharder, factory informers.SharedInformerFactory) {
			shard.WrapInformer(s, factory.Core().V1().ConfigMaps().Informer(), shard.ByUID)
		}, remedy: "ByFunc", is: ring.ErrOtherKey},
		"the owner's key": {setUp: func(s *shard.Sharder, factory informers.SharedInformerFactory) {
			shard.WrapInformer(s, factory.Core().V1().ConfigMaps().Informer(), shard.ByController)
		}},
		"unfiltered": {setUp: func(s *shard.Sharder, factory informers.SharedInformerFactory) {
			inner := factory.Core().V1().ConfigMaps().Informer()
			if shard.WrapInformer(s, inner, shard.Unfiltered) != inner {
				t.Error("it is filtered")
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			client := fake.NewClientset()
			s, err := shard.New(client, shard.Config{Name: "foo", PodName: "foo-0", Namespace: "default"})
			if err != nil {
				t.Fatal(err)
			}
			test.setUp(s, informers.NewSharedInformerFactory(client, 0))
			err = s.SetupError()
			if (err != nil) != (test.remedy != "") || err != nil && !strings.Contains(err.Error(), test.remedy) || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("error %v, want one with %q", err, test.remedy)
			}
		})
	}
}

// Ready names the informers that the member waits for.
func TestReadyNamesInformersThatWereNotStarted(t *testing.T) {
	client := fake.NewClientset()
	s, err := shard.New(client, shard.Config{Name: "foo", PodName: "foo-0", Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	shard.WrapInformer(s, informers.NewSharedInformerFactory(client, 0).Core().V1().ConfigMaps().Informer())
	if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "v1.ConfigMap") {
		t.Errorf("not ready: %v", err)
	}
}

// A deletion must outlive the longest handover.
func TestDeletionWindowIsValidated(t *testing.T) {
	for window, ok := range map[time.Duration]bool{0: true, -1: true, time.Second: false, 54 * time.Second: false, 55 * time.Second: true} {
		cfg := shard.Config{Name: "foo", PodName: "foo-0", Namespace: "default", DeletionWindow: window}
		if err := cfg.Validate(); (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "DeletionWindow") {
			t.Errorf("%v: %v", window, err)
		}
	}
	// The default follows a DrainTimeout that is set after the defaults, as all derived times do.
	cfg := shard.DefaultConfig("foo").WithPodName("foo-0").WithNamespace("default")
	cfg.DrainTimeout = time.Hour
	if err := cfg.Validate(); err != nil || cfg.WithDefaults().DeletionWindow <= time.Hour {
		t.Errorf("a long drain: %v, %v", cfg.WithDefaults().DeletionWindow, err)
	}
	if got := shard.DefaultConfig("foo").WithDefaults().DeletionWindow; got != shard.DefaultDeletionWindow {
		t.Errorf("default %v", got)
	}
}
