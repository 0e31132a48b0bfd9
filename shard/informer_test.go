// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes/fake"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"github.com/tom-ludwig/operator-scaling/informer"
	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
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
		"InformerFor with no key after Informer": {setUp: func(s *shard.Sharder, factory informers.SharedInformerFactory) {
			factory.Core().V1().ConfigMaps().Lister()
			shard.InformerFor(s, factory, example, coreinformers.NewConfigMapInformer, shard.Key{})
		}, remedy: "before anything calls Informer() or Lister()"},
		"InformerFor with no key": {setUp: func(s *shard.Sharder, factory informers.SharedInformerFactory) {
			shard.InformerFor(s, factory, example, coreinformers.NewConfigMapInformer, shard.Key{})
		}, remedy: "the zero Key is not valid"},
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
		"another key": {setUp: func(s *shard.Sharder, factory informers.SharedInformerFactory) {
			shard.WrapInformer(s, factory.Core().V1().ConfigMaps().Informer(), shard.ByUID)
		}, remedy: "ByFunc", is: ring.ErrOtherKey},
		"the owner's key": {setUp: func(s *shard.Sharder, factory informers.SharedInformerFactory) {
			shard.WrapInformer(s, factory.Core().V1().ConfigMaps().Informer(), shard.ByController)
		}},
		"unfiltered": {setUp: func(s *shard.Sharder, factory informers.SharedInformerFactory) {
			shard.WrapInformer(s, factory.Core().V1().ConfigMaps().Informer(), shard.Unfiltered)
		}},
		"unfiltered twice": {setUp: func(s *shard.Sharder, factory informers.SharedInformerFactory) {
			shard.WrapInformer(s, shard.WrapInformer(s, factory.Core().V1().ConfigMaps().Informer(), shard.Unfiltered), shard.Unfiltered)
		}, remedy: "use it as it is"},
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

// A factory sets its transform on the informer that InformerFor registers, which can therefore check it.
func TestInformerFor_ReportsATransformThatChangesTheKey(t *testing.T) {
	var log bytes.Buffer
	klog.SetLogger(textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&log))))
	defer klog.ClearLogger()
	client := fake.NewClientset(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: "x", Name: "child",
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "parent", UID: "1", Controller: new(true)}},
	}})
	s := shard.NewOrDie(client, shard.Config{Name: "foo", PodName: "a", Namespace: namespace})
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(func(obj any) (any, error) {
		if m, ok := obj.(metav1.Object); ok {
			m.SetOwnerReferences(nil)
		}
		return obj, nil
	}))
	shard.InformerFor(s, factory, &corev1.ConfigMap{}, coreinformers.NewConfigMapInformer, shard.ByController)
	ctx, cancel := context.WithCancel(t.Context())
	factory.StartWithContext(ctx)
	factory.WaitForCacheSync(ctx.Done())
	cancel()
	factory.Shutdown()
	if !strings.Contains(log.String(), "changes the key of objects") {
		t.Errorf("logged: %q", log.String())
	}
}

// oldController has a constructor as client-go's code generator made them always: it takes generated informers.
type oldController struct {
	informer cache.SharedIndexInformer
	lister   corelisters.ConfigMapLister
	queue    clientworkqueue.TypedRateLimitingInterface[cache.ObjectName]
}

func newOldController(maps coreinformers.ConfigMapInformer) *oldController {
	c := &oldController{informer: maps.Informer(), lister: maps.Lister()}
	var withoutIndex cache.SharedInformer = maps.Informer() // all that some constructors take
	c.queue = shard.NewQueueFor(withoutIndex, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
	_, _ = maps.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) {
		c.queue.Add(cache.MetaObjectToName(obj.(*corev1.ConfigMap)))
	}})
	return c
}

// embedding hides an informer in another one, as client-go's typed informers do.
type embedding struct {
	coreinformers.ConfigMapInformer
}

func (e embedding) Informer() cache.SharedIndexInformer {
	return struct{ cache.SharedIndexInformer }{e.ConfigMapInformer.Informer()}
}

func TestWrapGenerated_LetsConstructorsStayAsTheyAre(t *testing.T) {
	for name, test := range map[string]struct {
		wrap    func(*shard.Sharder, coreinformers.ConfigMapInformer) coreinformers.ConfigMapInformer
		sharded bool
	}{
		"sharded": {func(s *shard.Sharder, maps coreinformers.ConfigMapInformer) coreinformers.ConfigMapInformer {
			return shard.WrapGenerated(s, maps)
		}, true},
		"unfiltered": {func(s *shard.Sharder, maps coreinformers.ConfigMapInformer) coreinformers.ConfigMapInformer {
			return shard.WrapGenerated(s, maps, shard.Unfiltered)
		}, true},
		"unfiltered, in a wrapper": {func(s *shard.Sharder, maps coreinformers.ConfigMapInformer) coreinformers.ConfigMapInformer {
			return embedding{shard.WrapGenerated(s, maps, shard.Unfiltered)}
		}, true},
		"a key that cannot be used": {func(s *shard.Sharder, maps coreinformers.ConfigMapInformer) coreinformers.ConfigMapInformer {
			return shard.WrapGenerated(s, maps, shard.ByUID)
		}, true},
		"plain": {func(_ *shard.Sharder, maps coreinformers.ConfigMapInformer) coreinformers.ConfigMapInformer {
			return maps
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			client := shardtest.NewCluster().Client("a", &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "y"}})
			s := shard.NewOrDie(client, shard.Config{Name: "foo", PodName: "a", Namespace: "default"})
			factory := informers.NewSharedInformerFactory(client, 0)
			c := newOldController(test.wrap(s, factory.Core().V1().ConfigMaps()))
			defer c.queue.ShutDown()
			ctx, cancel := context.WithCancel(t.Context())
			factory.StartWithContext(ctx)
			cache.WaitForCacheSync(ctx.Done(), c.informer.HasSynced)
			if _, err := c.lister.ConfigMaps("x").Get("y"); err != nil {
				t.Error(err)
			}
			// This member owns nothing before Run.
			c.queue.Add(cache.ObjectName{Namespace: "x", Name: "y"})
			if n := c.queue.Len(); (n == 0) != test.sharded {
				t.Errorf("%d items are queued", n)
			}
			cancel()
			factory.Shutdown()
		})
	}
}

func TestNewOrDie(t *testing.T) {
	defer func() {
		if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), "Name: is required") {
			t.Errorf("panicked with %v", r)
		}
	}()
	shard.NewOrDie(fake.NewClientset(), shard.Config{})
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

// The log repeats which informers the member waits for.
func TestTheLogNamesInformersThatWereNotStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := shardtest.NewCluster().Client("a")
		to := new(sink)
		m := startLogging(t, client, "b", to, func(s *shard.Sharder) {
			shard.WrapInformer(s, informers.NewSharedInformerFactory(client, 0).Core().V1().ConfigMaps().Informer())
		})
		time.Sleep(35 * time.Second)
		if n := to.count("Waiting for informers to sync before joining the ring"); n != 3 {
			t.Errorf("%d lines in 35 s", n)
		}
		if err := m.Ready(); err == nil || !strings.Contains(err.Error(), "v1.ConfigMap") {
			t.Errorf("ready: %v", err)
		}
		if err := m.end(); err != nil {
			t.Error(err)
		}
	})
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
