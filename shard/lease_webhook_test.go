// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// webhook changes the Leases that a client writes before they are stored, like a mutating
// admission webhook, while it is on.
type webhook struct {
	on     atomic.Bool
	change func(*coordinationv1.Lease)
}

func (h *webhook) admit(client *fake.Clientset) *fake.Clientset {
	inner := client.ReactionChain[0]
	client.PrependReactor("*", "leases", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if a, ok := action.(clienttesting.UpdateAction); ok && h.on.Load() { // a CreateAction has the same methods
			h.change(a.GetObject().(*coordinationv1.Lease))
		}
		return inner.React(action)
	})
	return client
}

// A webhook that adds something of its own to each Lease changes nothing.
func TestR42_AWebhookThatAddsALabel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		h := webhook{change: func(l *coordinationv1.Lease) {
			l.Labels["team"] = "payments"
			if l.Annotations == nil {
				l.Annotations = map[string]string{}
			}
			l.Annotations["policies.example.com/scanned"] = fmt.Sprint(time.Now())
		}}
		wire := newPlannedClient(h.admit(cluster.Client("a")), fast)
		a, b := start(t, wire, "a"), start(t, h.admit(cluster.Client("b")), "b")
		time.Sleep(10 * time.Second)
		before := oneOwnerEach(t, a, b)
		sent := wire.requests("get", "update")
		time.Sleep(time.Minute)
		usual := wire.requests("get", "update") - sent
		h.on.Store(true)
		from, sent := time.Now(), wire.requests("get", "update")
		time.Sleep(time.Minute)
		if n := wire.requests("get", "update") - sent; n > usual+2 {
			t.Errorf("%d requests in a minute instead of %d", n, usual)
		}
		if log := a.logged(from); len(log) > 0 || a.Ready() != nil {
			t.Errorf("it is reported: %v, %q", a.Ready(), log)
		}
		c := start(t, h.admit(cluster.Client("c")), "c")
		time.Sleep(5 * time.Second)
		oneOwnerEach(t, a, b, c)
		end(t, c)
		time.Sleep(5 * time.Second)
		if after := oneOwnerEach(t, a, b); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Error("keys have moved")
		}
		end(t, a, b)
	})
}

// A webhook that changes what members read of each other's Leases stops the members whose Leases
// it changes. They report it. No key has two owners, and all members resume when it is gone.
func TestR87_AWebhookThatChangesTheRecord(t *testing.T) {
	heavy(t)
	seconds := func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = new(int32(60)) }
	strip := func(l *coordinationv1.Lease) { l.Annotations = nil }
	held := func(change func(*coordinationv1.Lease)) func(*coordinationv1.Lease) {
		return func(l *coordinationv1.Lease) {
			if l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity != "" {
				change(l)
			}
		}
	}
	for name, test := range map[string]struct {
		change func(*coordinationv1.Lease)
		names  string
		only   bool // the Lease of b
	}{
		"all":                          {seconds, "leaseDurationSeconds", false},
		"one":                          {seconds, "leaseDurationSeconds", true},
		"one, while it is held":        {held(seconds), "leaseDurationSeconds", true},
		"no annotations, all":          {strip, "annotation", false},
		"no annotations, one":          {held(strip), "annotation", true},
		"the label of the ring":        {func(l *coordinationv1.Lease) { l.Labels = nil }, "label", false},
		"the label of the ring of one": {func(l *coordinationv1.Lease) { l.Labels = nil }, "label", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				h := webhook{change: func(l *coordinationv1.Lease) {
					if !test.only || l.Name == "foo-b" {
						test.change(l)
					}
				}}
				wire := newPlannedClient(h.admit(cluster.Client("b")), fast)
				a, b := start(t, h.admit(cluster.Client("a")), "a"), start(t, wire, "b")
				time.Sleep(10 * time.Second)
				oneOwnerEach(t, a, b)
				h.on.Store(true)
				wire.delay(2 * time.Second) // b learns late that it was evicted
				from, sent := time.Now(), wire.requests("get", "update")
				double := 0
				for range 2 * 60 * 20 {
					time.Sleep(50 * time.Millisecond)
					for _, key := range manyKeys {
						if a.OwnsKey(key) && b.OwnsKey(key) && !a.Fenced() && !b.Fenced() {
							double++
							break
						}
					}
				}
				if double > 0 {
					t.Errorf("keys had two owners at %d moments", double)
				}
				if n := wire.requests("get", "update") - sent; n > 400 {
					t.Errorf("b has sent %d requests in two minutes", n)
				}
				if err := b.Ready(); err == nil || !strings.Contains(err.Error(), "webhook") || !strings.Contains(err.Error(), test.names) {
					t.Errorf("Ready does not name the cause: %v", err)
				}
				if log := b.logged(from); !contains(log, "webhook") || len(log) > 40 {
					t.Errorf("%d lines are logged: %q", len(log), log)
				}
				if test.only && a.Ready() != nil {
					t.Errorf("a is not ready: %v", a.Ready())
				}
				h.on.Store(false)
				wire.delay(0)
				time.Sleep(40 * time.Second)
				oneOwnerEach(t, a, b)
				end(t, a, b)
			})
		})
	}
}
