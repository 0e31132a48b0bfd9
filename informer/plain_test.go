// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// If the member owns everything, a handler sees exactly what a handler of the inner informer
// sees. See also TestUpstreamSharedInformer.
func TestI7_OwnerOfEverythingSeesWhatThePlainInformerDelivers(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			l := newLive(t, everything(), time.Second)
			defer l.stop()
			if r.IntN(2) == 0 { // complete from the beginning
				l.i.Activated(l.set(ring.Active, 0, 1, 2, 3, 4, 5, 6, 7))
			}
			plain, wrapped := &journal{}, &journal{}
			add := func() {
				period := time.Duration(r.IntN(3)) * time.Second
				if _, err := l.i.SharedIndexInformer.AddEventHandlerWithResyncPeriod(plain, period); err != nil {
					t.Fatal(err)
				}
				if _, err := l.i.AddEventHandlerWithResyncPeriod(wrapped, period); err != nil {
					t.Fatal(err)
				}
			}
			late := r.IntN(2) == 0
			if !late {
				add()
			}
			live := map[string]*corev1.ConfigMap{}
			for range 200 {
				name := fmt.Sprint(r.IntN(10))
				switch old, exists := live[name]; {
				case !exists:
					live[name] = object(name, 0, r.IntN(partitions), fmt.Sprint("uid", r.IntN(1000)))
					l.source.Add(live[name].DeepCopy())
				case r.IntN(3) == 0:
					delete(live, name)
					if r.IntN(3) == 0 {
						l.source.DeleteDropWatch(old) // a relist will find that it is deleted
					} else {
						l.source.Delete(old)
					}
				default:
					old.Labels["p"] = fmt.Sprint(r.IntN(partitions))
					l.source.Modify(old.DeepCopy())
				}
				switch r.IntN(20) {
				case 0:
					l.source.ResetWatch() // forces a relist
					time.Sleep(time.Minute)
				case 1, 2, 3:
					synctest.Wait()
				}
			}
			if late {
				synctest.Wait() // or the two would see different stores
				add()
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			got, want := wrapped.take(), plain.take()
			if late { // two handlers see the store in different orders
				got, want = sorted(got), sorted(want)
			}
			if diff := cmp.Diff(want, got); diff != "" || len(want) == 0 {
				t.Errorf("seed %d: the plain handler saw %d calls, the wrapped one differs (-plain +wrapped):\n%s", seed, len(want), diff)
			}
		})
	}
}

func TestWrapAStartedInformer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLive(t, &owner{}, 0)
		defer l.stop()
		plain := &journal{}
		if _, err := l.i.SharedIndexInformer.AddEventHandler(plain); err != nil {
			t.Fatal(err)
		}
		l.source.Add(object("mine", 0, 0))
		l.source.Add(object("other", 0, 1))
		synctest.Wait()
		l.set(ring.Active, 0)
		i := Wrap(l.i.SharedIndexInformer, Options{Ownership: l.owner, Point: pointOfLabel})
		j := &journal{}
		if _, err := i.AddEventHandler(j); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if diff := cmp.Diff([]string{"add mine@1 initial"}, j.take()); diff != "" {
			t.Error(diff)
		}
		if lines := plain.take(); len(lines) != 2 {
			t.Errorf("the handler of the inner informer saw %v, want both objects", lines)
		}
	})
}

func TestWrapRejectsMissingOptions(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic without Ownership and Point")
		}
	}()
	Wrap(nil, Options{})
}

// A generated factory in which the informer is registered first uses it for everything:
// listers, indexers, transforms, resyncs, Start, WaitForCacheSync, Shutdown.
func TestGeneratedFactory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(object("mine", 1, 0), object("other", 2, 1))
		factory := informers.NewSharedInformerFactory(client, 10*time.Second)
		o := &owner{}
		o.set(ring.Active, 0)
		var i *Informer
		indexers := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
		factory.InformerFor(&corev1.ConfigMap{}, func(c kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
			i = Wrap(coreinformers.NewConfigMapInformer(c, "", resync, indexers), Options{Ownership: o, Point: pointOfLabel})
			return i
		})
		typed := factory.Core().V1().ConfigMaps()
		if err := typed.Informer().SetTransform(func(obj any) (any, error) {
			obj.(*corev1.ConfigMap).Data = map[string]string{"transformed": "yes"}
			return obj, nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := typed.Informer().AddIndexers(cache.Indexers{"p": func(obj any) ([]string, error) {
			return []string{obj.(*corev1.ConfigMap).Labels["p"]}, nil
		}}); err != nil {
			t.Fatal(err)
		}
		j := &journal{}
		handle, err := typed.Informer().AddEventHandler(j) // through a typed one since client-go v0.37
		if err != nil {
			t.Fatal(err)
		}
		if len(i.filters) != 1 {
			t.Fatal("the factory created another informer")
		}

		ctx, cancel := context.WithCancel(t.Context())
		replay := make(chan error, 1)
		go func() { replay <- i.Replay(ctx) }()
		defer func() {
			cancel()
			factory.Shutdown()
			if err := <-replay; err != nil {
				t.Error(err)
			}
		}()
		factory.StartWithContext(ctx)
		if result := factory.WaitForCacheSyncWithContext(ctx); result.AsError() != nil {
			t.Fatal(result.AsError())
		}
		synctest.Wait()
		if !handle.HasSynced() {
			t.Error("the handler has not synced")
		}
		if diff := cmp.Diff([]string{"add mine@1 initial"}, j.take()); diff != "" {
			t.Error(diff)
		}
		all, err := typed.Lister().ConfigMaps("ns").List(labels.Everything())
		if err != nil || len(all) != 2 {
			t.Errorf("the lister has %v (%v), want both objects", all, err)
		}
		if other, err := typed.Lister().ConfigMaps("ns").Get("other"); err != nil || other.Data["transformed"] == "" {
			t.Errorf("the lister has %v (%v), want it to be transformed", other, err)
		}
		if found, err := typed.Informer().GetIndexer().ByIndex("p", "1"); err != nil || len(found) != 1 {
			t.Errorf("the index has %v (%v)", found, err)
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]string{"update mine@1 mine@1"}, j.take()); diff != "" {
			t.Errorf("resync: %s", diff)
		}
		i.Activated(o.set(ring.Active, 1))
		synctest.Wait()
		if diff := cmp.Diff([]string{"add other@2"}, j.take()); diff != "" {
			t.Error(diff)
		}
		if _, err := client.CoreV1().ConfigMaps("ns").Update(ctx, object("other", 3, 1), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := client.CoreV1().ConfigMaps("ns").Delete(ctx, "mine", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if diff := cmp.Diff([]string{"update other@2 other@3", "delete mine@1"}, j.take()); diff != "" {
			t.Error(diff)
		}
	})
}
