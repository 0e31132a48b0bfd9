// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// leftover is a Lease whose record was edited, and whose process is gone.
func leftover(name string) *coordinationv1.Lease {
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name: "foo-" + name, Namespace: namespace,
			Labels:      map[string]string{inspect.LabelRing: "foo"},
			Annotations: map[string]string{inspect.AnnotationChecksum: "edited"},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: new(name + "_1")},
	}
}

// One leftover Lease keeps all partitions from each member for an hour. They report it, by name
// and with what helps; and that helps.
func TestR89_ALeftoverLeaseIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		cluster.Put(leftover("old"))
		a := start(t, cluster.Client("a"), "a")
		time.Sleep(45 * time.Second)
		if owned := owners(a); len(owned["default/foo-1"]) > 0 {
			t.Fatal("the leftover Lease blocks nothing")
		}
		for _, report := range []string{errorText(a.Ready()), strings.Join(a.logged(time.Time{}), "\n"), get(a.DebugHandler(), "/?format=json").Body.String()} {
			if !strings.Contains(report, "foo-old") || !strings.Contains(report, "delete lease foo-old") {
				t.Errorf("the Lease is not named: %q", report)
			}
		}
		from := time.Now()
		cluster.Remove(namespace, "foo-old") // with a member that remembers it
		time.Sleep(10 * time.Minute)
		if err := a.Ready(); err == nil || !strings.Contains(err.Error(), "deleted") {
			t.Errorf("the deleted Lease is not reported: %v", err)
		}
		if n := len(a.logged(from)); n < 5 || n > 30 {
			t.Errorf("%d lines in ten minutes", n)
		}
		end(t, a)
		cluster.Remove(namespace, "foo-a") // it keeps what a has remembered
		b := start(t, cluster.Client("b"), "b")
		time.Sleep(10 * time.Second)
		oneOwnerEach(t, b)
		if err := b.Ready(); err != nil {
			t.Error(err)
		}
		end(t, b)
	})
}

// A member that has partitions stays ready; what it cannot gain is logged.
func TestR89_AMemberThatOwnsSomethingStaysReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a, b := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")
		time.Sleep(10 * time.Second)
		oneOwnerEach(t, a, b)
		cluster.Put(leftover("old"))
		time.Sleep(time.Second)
		end(t, b) // a cannot gain what b had
		from := time.Now()
		time.Sleep(2 * time.Minute)
		if err := a.Ready(); err != nil {
			t.Error(err)
		}
		if log := a.logged(from); !contains(log, "foo-old") || len(log) > 10 {
			t.Errorf("%q", log)
		}
		end(t, a)
	})
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// A rolling update adds a kind. The members of both versions stay ready: otherwise it would not
// continue. It is logged and counted until it ends.
func TestR88_ARollingUpdateAddsAKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		var informers sync.WaitGroup
		ctx, stop := context.WithCancel(context.Background())
		operator := func(pod string, kinds ...runtime.Object) *member {
			m := start(t, cluster.Client(pod), pod)
			for _, kind := range kinds {
				objects := newObjects()
				i := shard.NewInformer(m.Sharder, objects.listWatch(0), kind, 0, cache.Indexers{})
				informers.Go(func() { i.RunWithContext(ctx) })
			}
			return m
		}
		old := operator("op-7d9f8c6b5d-x2x4z", &corev1.ConfigMap{})
		replica := operator("op-5c8b7f9d6b-b2b4b", &appsv1.Deployment{}, &corev1.ConfigMap{})
		time.Sleep(15 * time.Minute)
		for _, m := range []*member{old, replica} {
			if err := m.Ready(); err != nil {
				t.Errorf("%s is not ready: %v", m.PodName(), err)
			}
			if n := counted(t, m, "sharding_kinds_differ"); n != 1 {
				t.Errorf("%s counts %v members with other kinds", m.PodName(), n)
			}
			if log := m.logged(time.Time{}); !contains(log, "different kinds") || len(log) > 40 {
				t.Errorf("%d lines: %q", len(log), log)
			}
		}
		end(t, old)
		time.Sleep(10 * time.Second)
		if n := counted(t, replica, "sharding_kinds_differ"); n != 0 {
			t.Errorf("counts %v members with other kinds after the end of the update", n)
		}
		end(t, replica)
		stop()
		informers.Wait()
	})
}
