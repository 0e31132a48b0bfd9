// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// These tests check what a member reports about itself while it fails: in its log at the default
// verbosity, in Ready and in its metrics.

// failing makes all requests for Leases fail from now on; with nil they succeed again.
func failing(w *faultyClient, err error) {
	w.replan(func(verb string) trip {
		way := fast(verb)
		way.err = err
		return way
	})
}

// reported contains what a member has reported about a failure, shortly before the failure ends.
type reported struct {
	lasted   time.Duration
	log      []string
	ready    error
	failures float64
}

// report waits until a failure has lasted for the given time, and returns what was reported.
func report(t *testing.T, m *member, began time.Time, lasted time.Duration) reported {
	t.Helper()
	time.Sleep(lasted - time.Since(began))
	return reported{lasted, m.logged(began), m.Ready(), counted(t, m, "sharding_request_failures_total")}
}

// names fails unless the reports contain the cause of the failure.
func (r reported) names(t *testing.T, cause error) {
	t.Helper()
	causes, minutes := 0, int(r.lasted/time.Minute)
	for _, line := range r.log {
		if strings.Contains(line, cause.Error()) {
			causes++
		}
	}
	if causes < minutes/2 {
		t.Errorf("the log names the cause %d times in %d minutes: %q", causes, minutes, cause)
	}
	if len(r.log) > 6*minutes {
		t.Errorf("%d lines were logged in %d minutes", len(r.log), minutes)
	}
	if r.ready == nil || !strings.Contains(r.ready.Error(), cause.Error()) {
		t.Errorf("Ready does not name the cause %q: %v", cause, r.ready)
	}
	if int(r.failures) < minutes {
		t.Errorf("%v failures were counted in %d minutes", r.failures, minutes)
	}
}

// A process starts with a wrong token, address or name server.
func TestReport_NothingWorksFromTheStart(t *testing.T) {
	for name, cause := range map[string]error{
		"unauthorized": apierrors.NewUnauthorized("Unauthorized"),
		"no DNS":       errors.New("dial tcp: lookup kubernetes.default.svc: no such host"),
	} {
		t.Run(name, func(t *testing.T) {
			var r reported
			synctest.Test(t, func(t *testing.T) {
				w := newPlannedClient(shardtest.NewCluster().Client("a"), fast)
				failing(w, cause)
				a := start(t, w, "a")
				r = report(t, a, time.Now(), 10*time.Minute)
				failing(w, nil)
				works(t, a, 30*time.Second)
				end(t, a)
			})

			r.names(t, cause)
		})
	}
}

// A working member is cut off for an hour, alone or together with its whole fleet.
func TestReport_CutOffForAnHour(t *testing.T) {
	for name, test := range map[string]struct {
		cause error
		peer  bool
	}{
		"with a peer": {apierrors.NewUnauthorized("Unauthorized"), true},
		"alone":       {errors.New("x509: certificate has expired or is not yet valid"), false},
	} {
		t.Run(name, func(t *testing.T) {
			var r reported
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				w := newPlannedClient(cluster.Client("a"), fast)
				members := []*member{start(t, w, "a")}
				if test.peer {
					members = append(members, start(t, cluster.Client("b"), "b"))
				}
				time.Sleep(10 * time.Second)
				oneOwnerEach(t, members...)
				failing(w, test.cause)
				began := time.Now()
				time.Sleep(afterCrash)
				if !members[0].Fenced() {
					t.Error("the member is not fenced")
				}
				if test.peer {
					oneOwnerEach(t, members[1])
				}
				r = report(t, members[0], began, time.Hour)
				failing(w, nil)
				time.Sleep(30 * time.Second)
				oneOwnerEach(t, members...)
				end(t, members...)
			})

			r.names(t, test.cause)
		})
	}
}

// Two Pods with different UIDs have the same name, and the second waits.
func TestReport_AWaitingDuplicateNamesTheOtherProcess(t *testing.T) {
	var log, holder string
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		as := func(uid string) func(*shard.Config) {
			return func(c *shard.Config) { c.PodUID = podUID(uid) }
		}
		a := start(t, cluster.Client("a"), "operator", as("1"))
		time.Sleep(5 * time.Second)
		b := start(t, cluster.Client("b"), "operator", as("2"))
		time.Sleep(10 * time.Minute)
		if err := b.Ready(); err == nil || !strings.Contains(err.Error(), a.Identity()) {
			t.Errorf("Ready does not name %s: %v", a.Identity(), err)
		}
		log, holder = strings.Join(b.logged(time.Time{}), "\n"), a.Identity()
		end(t, a, b)
	})

	if !strings.Contains(log, holder) {
		t.Errorf("the log does not name %s:\n%s", holder, log)
	}
}

// A member logs that someone has applied an old record of its own again.
func TestReport_AnOldRecordOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		time.Sleep(5 * time.Second)
		old := cluster.Leases(namespace)[0]
		time.Sleep(4 * time.Second)
		edited := time.Now()
		cluster.Put(&old)
		time.Sleep(time.Second)
		if log := a.logged(edited); !contains(log, "Another client has written") {
			t.Errorf("the log does not report the write: %q", log)
		}
		time.Sleep(10 * time.Second)
		end(t, a)
	})
}

// What other clients and members do to the Leases of a ring is logged.
func TestReport_WhatOthersDoToLeases(t *testing.T) {
	heavy(t)
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		leases := cluster.Client("admin").CoordinationV1().Leases(namespace)
		a, b := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")
		time.Sleep(10 * time.Second)
		edit := func(name string, change func(*coordinationv1.Lease)) {
			t.Helper()
			l, err := leases.Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			change(l)
			if _, err := leases.Update(t.Context(), l, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		edited := time.Now()
		edit("foo-a", func(l *coordinationv1.Lease) { l.Labels["team"] = "payments" })
		time.Sleep(5 * time.Second)
		if log := a.logged(edited); !contains(log, "Another client has written") {
			t.Errorf("the log of a does not report the write to its Lease: %q", log)
		}
		if log := b.logged(edited); len(log) > 0 {
			t.Errorf("b has logged %q", log)
		}

		cut := time.Now()
		evicted := b.Identity()
		cluster.Break("b", shardtest.Unreachable)
		time.Sleep(20 * time.Second)
		edit("foo-b", func(l *coordinationv1.Lease) { l.Finalizers = []string{"example.com/keep"} })
		time.Sleep(time.Second)
		if log := a.logged(cut); !contains(log, "A finalizer keeps a Lease") {
			t.Errorf("the log of a does not report the finalizer: %q", log)
		}
		if age := counted(t, b, "sharding_lease_renewal_age_seconds"); age < 15 {
			t.Errorf("the last renewal was confirmed %v s ago, want the time since the failure began", age)
		}
		cluster.Break("b", shardtest.None)
		time.Sleep(5 * time.Second)
		if log := b.logged(cut); !contains(log, a.Identity()) || !contains(log, shardtest.ErrFault.Error()) {
			t.Errorf("the log of b names neither the member that evicted it nor the cause of the fence: %q", log)
		}
		if b.Identity() == evicted || counted(t, b, "sharding_lease_lost_total") != 1 {
			t.Error("the loss of the Lease is not counted")
		}
		edit("foo-b", func(l *coordinationv1.Lease) { l.Finalizers = nil })
		time.Sleep(30 * time.Second)
		oneOwnerEach(t, a, b)
		end(t, a, b)
	})
}

// A cause that is different each time does not flood the log.
func TestReport_EachFailureHasAnotherCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPlannedClient(shardtest.NewCluster().Client("a"), fast)
		a := start(t, w, "a")
		time.Sleep(5 * time.Second)
		began, port := time.Now(), 30000
		w.replan(func(string) trip {
			port++
			return trip{err: fmt.Errorf("read tcp 10.0.0.1:%d: connection reset by peer", port)}
		})
		time.Sleep(10 * time.Minute)
		if n := len(a.logged(began)); n < 10 || n > 70 {
			t.Errorf("%d lines were logged in ten minutes, want 10 to 70", n)
		}
		w.replan(fast)
		works(t, a, 30*time.Second)
		if err := a.LastFailure(); err != nil {
			t.Errorf("a failure is reported although all requests succeed: %v", err)
		}
		end(t, a)
	})
}

// Two operators that watch different kinds share one ring by mistake: half of the objects of each
// belong to a member that never sees them.
func TestReport_TwoOperatorsOnOneRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		var informers sync.WaitGroup
		ctx, stop := context.WithCancel(context.Background())
		operator := func(pod string, kind runtime.Object) *member {
			m := start(t, cluster.Client(pod), pod)
			objects := newObjects()
			i := shard.NewInformer(m.Sharder, objects.listWatch(0), kind, 0, cache.Indexers{})
			informers.Go(func() { i.RunWithContext(ctx) })
			return m
		}
		a, b := operator("tenant-a-0", &corev1.ConfigMap{}), operator("tenant-b-0", &appsv1.Deployment{})
		time.Sleep(10 * time.Second)
		if a.MemberCount() != 2 {
			t.Errorf("%d members are on the ring", a.MemberCount())
		}
		for _, pair := range [][2]*member{{a, b}, {b, a}} {
			m, other := pair[0], "foo-"+pair[1].PodName()
			if err := m.Ready(); err == nil || !strings.Contains(err.Error(), other) {
				t.Errorf("%s does not report %s: %v", m.PodName(), other, err)
			}
			if log := strings.Join(m.logged(time.Time{}), "\n"); !strings.Contains(log, other) {
				t.Errorf("the log of %s does not name %s", m.PodName(), other)
			}
		}
		end(t, a, b)
		stop()
		informers.Wait()
	})
}
