// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// flood reads the state of a member's loop without a pause until the context ends. The loop
// needs the given time for each read.
func flood(ctx context.Context, s *shard.Sharder, takes time.Duration) {
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				s.Read(ctx, takes)
			}
		})
	}
	readers.Wait()
}

// Many readers of a member's state do not delay what the member must do at a certain time.
func TestRun_AFloodOfReadersDelaysNoTick(t *testing.T) {
	for _, takes := range []time.Duration{100 * time.Microsecond, time.Millisecond, 20 * time.Millisecond} {
		t.Run(takes.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				a := start(t, cluster.Client("a"), "a")
				time.Sleep(5 * time.Second)
				before := counted(t, a, "sharding_lease_heartbeats_total")
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				flood(ctx, a.Sharder, takes)
				if n := counted(t, a, "sharding_lease_heartbeats_total") - before; n < 6 {
					t.Errorf("%v heartbeats in 20 s, want at least 6", n)
				}
				if n := counted(t, a, "sharding_fence_trips_total"); n != 0 {
					t.Errorf("fenced %v times", n)
				}
				end(t, a)
			})
		})
	}
}

// The loop creates no status page, and many readers share one.
func TestStatusPage_ManyReadersShareOne(t *testing.T) {
	for _, partitions := range []int{4096, 65536} {
		t.Run(fmt.Sprint(partitions), func(t *testing.T) {
			heavy(t)
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				a := start(t, cluster.Client("a"), "a", func(c *shard.Config) { c.Partitions = partitions })
				time.Sleep(5 * time.Second)
				first := get(a.DebugHandler(), "/?format=json").Body.String()
				time.Sleep(300 * time.Millisecond)
				var readers sync.WaitGroup
				for range 20 {
					readers.Go(func() {
						if again := get(a.DebugHandler(), "/?format=json").Body.String(); again != first {
							t.Error("a page that is not a second old was created again")
						}
					})
				}
				readers.Wait()
				time.Sleep(time.Second)
				if again := get(a.DebugHandler(), "/?format=json").Body.String(); again == first {
					t.Error("the page is never created again") // the time to the fence has changed
				}
				end(t, a)
			})
		})
	}
}

// A clientset whose transport ignores contexts does not stop a member, and does not keep Run
// from returning.
func TestRun_TransportThatIgnoresContexts(t *testing.T) {
	for name, verbs := range map[string][]string{
		"updates":        {"update"},
		"lists":          {"list"},
		"watches":        {"watch"},
		"all requests":   {"get", "list", "watch", "create", "update", "delete"},
		"reads of peers": {"list", "watch"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				w := newPlannedClient(cluster.Client("a"), fast)
				a, b := start(t, w, "a"), start(t, cluster.Client("b"), "b")
				time.Sleep(5 * time.Second)
				ignore := make(chan struct{})
				w.replan(func(verb string) trip {
					if slices.Contains(verbs, verb) {
						return trip{deaf: ignore}
					}
					return fast(verb)
				})
				c := start(t, cluster.Client("c"), "c")
				time.Sleep(4 * time.Second)
				w.replan(fast) // the requests that have been sent still do not return
				time.Sleep(30 * time.Second)
				oneOwnerEach(t, a, b, c)
				end(t, a, b, c)
				close(ignore)
			})
		})
	}
}

// A member that waits for too many requests makes no more, and reports that a restart helps.
func TestHealthy_TransportThatNeverReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		w := newPlannedClient(cluster.Client("a"), fast)
		a := start(t, w, "a")
		time.Sleep(5 * time.Second)
		ignore := make(chan struct{})
		w.replan(func(string) trip { return trip{deaf: ignore} })
		time.Sleep(10 * time.Minute)
		before := w.requests("get", "list", "watch", "create", "update", "delete")
		time.Sleep(10 * time.Minute)
		if sent := w.requests("get", "list", "watch", "create", "update", "delete") - before; sent > 0 {
			t.Errorf("%d requests were sent although none returns", sent)
		}
		if a.Healthy() == nil {
			t.Error("the member is healthy although none of its requests returns")
		}
		close(ignore)
		w.replan(fast)
		time.Sleep(30 * time.Second)
		oneOwnerEach(t, a)
		if err := a.Healthy(); err != nil {
			t.Error(err)
		}
		ignore = make(chan struct{})
		w.replan(func(string) trip { return trip{deaf: ignore} })
		time.Sleep(time.Second)
		began := time.Now()
		if err := a.end(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("Run has returned %v after its context ended", took)
		}
		close(ignore)
	})
}

// Work that takes long to end, before a handover or after the Lease was lost, is not a loop
// that has hung.
func TestHealthy_LongDrain(t *testing.T) {
	for name, begins := range map[string]func(*shardtest.Cluster, *member){
		"stop":           func(_ *shardtest.Cluster, a *member) { a.stop() },
		"Lease deleted":  func(cluster *shardtest.Cluster, _ *member) { cluster.Remove(namespace, "foo-a") },
		"no API server":  func(cluster *shardtest.Cluster, _ *member) { cluster.Break("a", shardtest.Unreachable) },
		"both, in turns": func(cluster *shardtest.Cluster, a *member) { cluster.Remove(namespace, "foo-a"); a.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				a := start(t, cluster.Client("a"), "a", func(c *shard.Config) { c.DrainTimeout = 10 * time.Minute })
				q := newTestQueue(a.Sharder)
				time.Sleep(5 * time.Second)
				begin(q, anItem)
				begins(cluster, a)
				for range 300 {
					time.Sleep(time.Second)
					if err := a.Healthy(); err != nil {
						t.Errorf("not healthy although it waits for work: %v", err)
						break
					}
				}
				q.Done(anItem)
				time.Sleep(time.Second)
				end(t, a)
				q.ShutDown()
			})
		})
	}
}

// contains reports whether a line contains a text.
func contains(lines []string, text string) bool {
	return slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, text) })
}
