// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// Two rings in one process (two operators, say) share a factory. Handlers of the
// informer of the other Sharder would see what this process owns on the other ring.
func TestInformerFor_AFactoryOfAnotherSharder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		sharder := func(ring string) *shard.Sharder {
			s, err := shard.New(cluster.Client("a"), shard.Config{Name: ring, PodName: "a", Namespace: namespace, StartupSettle: -1})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		one, two := sharder("one"), sharder("two")
		factory := informers.NewSharedInformerFactory(cluster.Client("a"), 0)
		first := shard.InformerFor(one, factory, &corev1.ConfigMap{}, coreinformers.NewConfigMapInformer)
		second := shard.InformerFor(two, factory, &corev1.ConfigMap{}, coreinformers.NewConfigMapInformer)
		if first != second {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := two.Run(ctx); err == nil {
			t.Error("the second ring has the informer of the first, and Run returns no error")
		}
	})
}
