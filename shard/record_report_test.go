// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// One Lease, the oldest, decides for all members. Each of them shows which one that is (R48).
func TestR48_TheLeaseWhoseParametersAreInForceIsReported(t *testing.T) {
	for name, change := range map[string]func(*shard.Config){
		"another number of partitions": func(c *shard.Config) { c.Partitions = 61 },
		"another key":                  func(c *shard.Config) { c.Key = shard.ByNamespace },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				a := start(t, cluster.Client("a"), "a", change)
				time.Sleep(5 * time.Second)
				began := time.Now()
				b := start(t, cluster.Client("b"), "b")
				time.Sleep(5 * time.Second)
				if r, own := reportOf(t, b), reportOf(t, a); r.ParametersLease != "foo-a" || r.Parameters != own.Parameters || own.ParametersLease != "" {
					t.Errorf("the page shows %q, of %q; that of a shows %q, of %q", r.Parameters, r.ParametersLease, own.Parameters, own.ParametersLease)
				}
				if !contains(b.logged(began), "ring parameters of an older Lease are in force") || !contains(b.logged(began), "foo-a") {
					t.Errorf("b has logged %q", b.logged(began))
				}
				if n := counted(t, b, "sharding_parameters_in_force"); n != 1 {
					t.Errorf("sharding_parameters_in_force is %v", n)
				}
				if err := b.Ready(); err != nil {
					t.Errorf("a rolling update would wait for b: %v", err)
				}
				end(t, a)
				began = time.Now()
				time.Sleep(5 * time.Second)
				if r := reportOf(t, b); r.ParametersLease != "" || r.Parameters == "" {
					t.Errorf("the page shows %q, of %q", r.Parameters, r.ParametersLease)
				}
				if !contains(b.logged(began), "own ring parameters are in force") {
					t.Errorf("b has logged %q", b.logged(began))
				}
				oneOwnerEach(t, b)
				end(t, b)
			})
		})
	}
}

func reportOf(t *testing.T, m *member) (r inspect.Report) {
	t.Helper()
	if err := json.Unmarshal(get(m.DebugHandler(), "/?format=json").Body.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// Someone applies an old copy of a Lease. It is complete, but its seq shows what it is (R32).
func TestR32_AnOldCopyOfALeaseIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a, b := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")
		time.Sleep(10 * time.Second)
		oneOwnerEach(t, a, b)
		old := cluster.Leases(namespace)[1]
		time.Sleep(10 * time.Second)
		cluster.Break("b", shardtest.Unreachable) // it cannot write its record again
		began, faults := time.Now(), counted(t, a, "sharding_lease_faults_total")
		cluster.Put(&old)
		time.Sleep(time.Second)
		if n := counted(t, a, "sharding_lease_faults_total") - faults; n != 1 {
			t.Errorf("%v faults are counted", n)
		}
		if !contains(a.logged(began), "an old record") || !contains(a.logged(began), "foo-b") {
			t.Errorf("a has logged %q", a.logged(began))
		}
		cluster.Break("b", shardtest.None)
		time.Sleep(40 * time.Second)
		oneOwnerEach(t, a, b)
		end(t, a)
		end(t, b)
	})
}
