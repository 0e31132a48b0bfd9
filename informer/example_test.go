// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/informer"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// upperHalf owns the upper half of the hash space once it is switched on.
type upperHalf struct{ on atomic.Bool }

func (o *upperHalf) State(point uint64) ring.State {
	if o.on.Load() && ring.PartitionOf(point, 2) == 1 {
		return ring.Active
	}
	return ring.NotOwned
}

// A handler sees the objects of a partition when the partition becomes active, however long
// ago they were created.
func Example() {
	var objects []runtime.Object
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		objects = append(objects, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, ResourceVersion: "1"}})
	}
	owner := &upperHalf{}
	factory := informers.NewSharedInformerFactory(fake.NewClientset(objects...), 0)
	sharded := informer.Wrap(factory.Core().V1().ConfigMaps().Informer(), informer.Options{
		Ownership: owner,
		Point: func(obj metav1.Object) (uint64, error) {
			return ring.PointOfName(obj.GetNamespace(), obj.GetName()), nil
		},
	})
	var seen atomic.Int32
	all := make(chan struct{})
	registration, _ := sharded.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) {
		if seen.Add(1) == 2 {
			close(all)
		}
	}})

	ctx, cancel := context.WithCancel(context.Background())
	var replay sync.WaitGroup
	replay.Go(func() { _ = sharded.Replay(ctx) }) // shard.Sharder.Run does this
	factory.Start(ctx.Done())
	cache.WaitForCacheSync(ctx.Done(), registration.HasSynced)
	fmt.Println("stored:", len(sharded.GetStore().List()), "shown:", seen.Load())

	owner.on.Store(true) // change the state first, then notify the informer
	upper := ring.NewSet(2)
	upper.Add(1)
	sharded.Activated(upper)
	<-all
	fmt.Println("after the activation, shown:", seen.Load())
	cancel()
	replay.Wait()
	factory.Shutdown()
	// Output:
	// stored: 6 shown: 0
	// after the activation, shown: 2
}
