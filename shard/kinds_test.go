// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// R88 promises that a rolling update of one workload that adds a kind continues. The name of
// a member is not always one that a Deployment, ReplicaSet, DaemonSet or StatefulSet generates, and
// then nothing shows whether two members belong to two workloads.
func TestR88_NoRollingUpdateThatAddsAKindIsStuck(t *testing.T) {
	for _, c := range []struct{ name, old, new string }{
		{"a Deployment with generated names", "op-7c9d5b8f6d-x2x4z", "op-5bdcfg7489-b4k9t"},
		{"hostNetwork: the host name is the node's, and Config.PodName defaults to it", "ip-10-0-1-17.ec2.internal", "ip-10-0-2-31.ec2.internal"},
		{"processes outside a cluster", "laptop-of-anna", "laptop-of-ben"},
		{"an OpenShift DeploymentConfig, from version 1 to 2", "op-1-x2x4z", "op-2-b4k9t"},
		{"an indexed Job", "op-0-x2x4z", "op-1-b4k9t"},
		{"a canary of Flagger", "op-primary-7c9d5b8f6d-x2x4z", "op-5bdcfg7489-b4k9t"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				var informers sync.WaitGroup
				ctx, stop := context.WithCancel(context.Background())
				replica := func(pod string, kinds ...runtime.Object) *member {
					m := start(t, cluster.Client(pod), pod)
					for _, kind := range kinds {
						i := shard.NewInformer(m.Sharder, newObjects().listWatch(0), kind, 0, cache.Indexers{})
						informers.Go(func() { i.RunWithContext(ctx) })
					}
					return m
				}
				a := replica(c.old, &corev1.ConfigMap{})
				time.Sleep(10 * time.Second)
				if err := a.Ready(); err != nil {
					t.Fatal(err)
				}
				b := replica(c.new, &corev1.ConfigMap{}, &appsv1.Deployment{}) // maxSurge 1
				time.Sleep(10 * time.Minute)
				if err := b.Ready(); err != nil {
					t.Errorf("the new replica is never ready, and the update never continues: %v", err)
				}
				if err := a.Ready(); err != nil {
					t.Errorf("the old replica, which was ready, is not any more: %v", err)
				}
				end(t, a, b)
				stop()
				informers.Wait()
			})
		})
	}
}
