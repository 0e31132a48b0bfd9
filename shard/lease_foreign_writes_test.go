// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcoordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// labeller acts like a policy engine, or a tool for cost or backup, that sets one more label on
// each Lease. It restores the label some time after it was removed, until the context ends.
func labeller(ctx context.Context, t *testing.T, leases clientcoordinationv1.LeaseInterface, least, most time.Duration) {
	t.Helper()
	const label = "team"
	w, err := leases.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var due sync.Map // names of Leases
	restore := func(name string) {
		due.Delete(name)
		for ctx.Err() == nil {
			l, err := leases.Get(ctx, name, metav1.GetOptions{})
			if err != nil || l.Labels[label] != "" {
				return
			}
			l.Labels[label] = "payments"
			if _, err := leases.Update(ctx, l, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
				return
			}
		}
	}
	go func() {
		defer w.Stop()
		random := rand.New(rand.NewPCG(1, 2))
		for {
			select {
			case e := <-w.ResultChan():
				l, ok := e.Object.(*coordinationv1.Lease)
				if !ok || l.Labels[label] != "" {
					continue
				}
				if _, is := due.LoadOrStore(l.Name, true); !is {
					time.AfterFunc(least+time.Duration(random.Int64N(int64(most-least))), func() { restore(l.Name) })
				}
			case <-ctx.Done():
				return
			}
		}
	}()
}

// Two writers that both restore their own version of a Lease must not do so without a limit.
func TestR42_ForeignWritesAreAnsweredRarely(t *testing.T) {
	heavy(t)
	for _, every := range []struct{ least, most time.Duration }{
		{500 * time.Millisecond, time.Second},
		{50 * time.Millisecond, 100 * time.Millisecond},
		{2 * time.Millisecond, 5 * time.Millisecond},
	} {
		t.Run(fmt.Sprint(every.most), func(t *testing.T) {
			const measured = 15 * time.Second
			var baseline, contested int // requests
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				wireA := newPlannedClient(cluster.Client("a"), fast)
				a, b := start(t, wireA, "a"), start(t, newPlannedClient(cluster.Client("b"), fast), "b")
				time.Sleep(10 * time.Second)
				oneOwnerEach(t, a, b)
				requests := func(during func()) int {
					before := wireA.requests("get", "update")
					during()
					return wireA.requests("get", "update") - before
				}
				baseline = requests(func() { time.Sleep(measured) })

				ctx, stop := context.WithCancel(context.Background())
				labeller(ctx, t, cluster.Client("labeller").CoordinationV1().Leases(namespace), every.least, every.most)
				var g gaps
				contested = requests(func() {
					for range measured / (500 * time.Millisecond) {
						time.Sleep(500 * time.Millisecond)
						if n := g.look(a, b); n > 0 {
							t.Fatalf("%d keys are without an owner", n)
						}
					}
				})

				// A member that starts meanwhile joins.
				c := start(t, newPlannedClient(cluster.Client("c"), fast), "c")
				time.Sleep(5 * time.Second)
				oneOwnerEach(t, a, b, c)
				stop()
				time.Sleep(20 * time.Second)
				oneOwnerEach(t, a, b, c)
				end(t, a, b, c)
			})

			if contested > 3*baseline {
				t.Errorf("%d requests in %v, %d without foreign writes", contested, measured, baseline)
			}
		})
	}
}
