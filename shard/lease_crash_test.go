// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/watch"
	clienttesting "k8s.io/client-go/testing"

	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// After a crash each key is owned again within LeaseDuration + 2 s (L1, G7), even if the
// crashed member's Lease is deleted, other members join and leave, or the Lease watch lags.

const (
	afterCrash = 17 * time.Second // LeaseDuration + 2 s
	// whileLate also includes what a lagging watch adds. Each restart of the watch takes up to 1.5 s.
	// A member restarts it 6 s (WatchLagLimit) after a heartbeat that does not come back, and so sees
	// the last heartbeat of the member that crashed up to 11 s late; a second after a refused
	// eviction, to see who was faster (R24); and 3 s (RenewPeriod) after a list that the watch does
	// not reach (R31).
	whileLate = afterCrash + 18*time.Second
)

// The process of a Pod crashes. Its Pod is force-deleted later, and the garbage collector
// then deletes the Lease, which the Pod owns.
func TestG7_CrashThenGarbageCollection(t *testing.T) {
	for _, collected := range []time.Duration{time.Hour, time.Second, 5 * time.Second, 14 * time.Second} {
		t.Run(fmt.Sprint("after ", collected), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				a, b := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")
				time.Sleep(10 * time.Second)
				oneOwnerEach(t, a, b)
				cluster.Break("b", shardtest.Unreachable)
				collect := time.AfterFunc(collected, func() { cluster.Remove(namespace, "foo-b") })
				if took := new(gaps).wait(2*time.Minute, a); took > afterCrash {
					t.Errorf("all keys are owned again %v after the crash, want %v", took, afterCrash)
				}
				collect.Stop()
				_ = b.end()
				end(t, a)
			})
		})
	}
}

// A Pod is force-deleted a second after its crash, and its replacement runs 10 s later.
func TestG7_CrashThenReplacement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a, b := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")
		time.Sleep(10 * time.Second)
		cluster.Break("b", shardtest.Unreachable)
		crash := time.Now()
		time.Sleep(time.Second)
		cluster.Remove(namespace, "foo-b")
		time.Sleep(10 * time.Second)
		c := start(t, cluster.Client("c"), "c")
		new(gaps).wait(3*time.Minute, a, c)
		if took := time.Since(crash); took > afterCrash {
			t.Errorf("all keys are owned again %v after the crash, want %v", took, afterCrash)
		}
		time.Sleep(time.Second)
		oneOwnerEach(t, a, c)
		_ = b.end()
		end(t, a, c)
	})
}

// A rolling update begins just after a crash, and the Lease of the crashed member was deleted.
func TestG7_RollingUpdateAfterACrash(t *testing.T) {
	for _, step := range []time.Duration{5 * time.Second, 10 * time.Second} {
		t.Run(step.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 8
				cluster := shardtest.NewCluster()
				var live []*member
				add := func(name string) { live = append(live, start(t, cluster.Client(name), name)) }
				for i := range n {
					add(fmt.Sprint("old-", i))
				}
				time.Sleep(15 * time.Second)
				oneOwnerEach(t, live...)
				crashed := live[0]
				live = live[1:]
				cluster.Break("old-0", shardtest.Unreachable)
				time.Sleep(time.Second)
				cluster.Remove(namespace, "foo-old-0")

				var g gaps
				look := func(d time.Duration) {
					for range d / (250 * time.Millisecond) {
						time.Sleep(250 * time.Millisecond)
						g.look(live...)
					}
				}
				for i := range n {
					add(fmt.Sprint("new-", i))
					look(step - time.Second)
					if i < n-1 {
						old := live[0]
						live = live[1:]
						old.stop()
						look(time.Second)
						end(t, old)
					}
				}
				look(time.Minute)
				if g.longest > afterCrash {
					t.Errorf("a key was without an owner for %v, want at most %v", g.longest, afterCrash)
				}
				oneOwnerEach(t, live...)
				_ = crashed.end()
				end(t, live...)
			})
		})
	}
}

// Pods start and stop faster than a tombstone lasts, and each new member merges it into its own
// tombstones. It must still expire.
func TestR29_TombstoneEndsUnderChurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		b := start(t, cluster.Client("b"), "b")
		time.Sleep(5 * time.Second)
		last := start(t, cluster.Client("c"), "c")
		time.Sleep(10 * time.Second)
		cluster.Break("b", shardtest.Unreachable)
		crash := time.Now()
		time.Sleep(time.Second)
		cluster.Remove(namespace, "foo-b")
		seen := time.Duration(0)
		for i := range 30 {
			pod := fmt.Sprint("p-", i)
			next := start(t, cluster.Client(pod), pod)
			for range 9 {
				time.Sleep(time.Second)
				for _, l := range cluster.Leases(namespace) {
					if l.Annotations["operator-scaling.tom-ludwig.github.io/tombstones"] != "" {
						seen = time.Since(crash)
					}
				}
			}
			end(t, last)
			time.Sleep(time.Second)
			last = next
		}
		if seen == 0 || seen > time.Minute {
			t.Errorf("the tombstone was seen on a Lease until %v after the crash, want at most a minute", seen)
		}
		oneOwnerEach(t, last)
		_ = b.end()
		end(t, last)
	})
}

// lagging starts a fleet of three members whose Lease watches show events late, and returns it
// after ten minutes.
func lagging(t *testing.T, cluster *shardtest.Cluster, late time.Duration) (members []*member, add func(pod string) *member, recover func()) {
	t.Helper()
	var wires []*faultyClient
	lag := time.Duration(0)
	add = func(pod string) *member {
		w := newPlannedClient(cluster.Client(pod), fast)
		w.delay(lag)
		wires = append(wires, w)
		return start(t, w, pod)
	}
	for _, pod := range []string{"a", "b", "c"} {
		members = append(members, add(pod))
	}
	time.Sleep(10 * time.Second)
	oneOwnerEach(t, members...)
	set := func(late time.Duration) {
		lag = late
		for _, w := range wires {
			w.delay(late)
		}
	}
	set(late)
	var g gaps
	for range 300 {
		time.Sleep(2 * time.Second)
		if n := g.look(members...); n > 0 {
			t.Fatalf("%d keys are without an owner although no member came or went", n)
		}
	}
	for _, m := range members {
		if n := counted(t, m, "sharding_evictions_total"); n != 0 {
			t.Errorf("%s has evicted %v members", m.PodName(), n)
		}
		select {
		case err := <-m.done:
			t.Fatalf("%s: Run returned %v", m.PodName(), err)
		default:
		}
	}
	return members, add, func() { set(0) }
}

var latenesses = []time.Duration{2 * time.Second, 10 * time.Second, 30 * time.Second, 2 * time.Minute}

func TestL1_JoinAndStopUnderALateWatch(t *testing.T) {
	heavy(t)
	for _, late := range latenesses {
		t.Run(late.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				members, add, recover := lagging(t, cluster, late)
				d := add("d")
				began := time.Now()
				for d.Ready() != nil && time.Since(began) < whileLate {
					time.Sleep(100 * time.Millisecond)
				}
				new(gaps).wait(whileLate, append(members, d)...)
				if took := time.Since(began); d.Ready() != nil || took > whileLate {
					t.Errorf("a member has not joined, or not all keys are owned, after %v: %v", took, d.Ready())
				}
				end(t, d)
				if took := new(gaps).wait(2*whileLate, members...); took > whileLate {
					t.Errorf("all keys are owned again %v after a graceful stop, want %v", took, whileLate)
				}
				recover()
				time.Sleep(time.Minute)
				oneOwnerEach(t, members...)
				end(t, members...)
			})
		})
	}
}

// For half a minute the server refuses watches of Leases, and answers all other requests. A relist
// that shows the member's last write counts as fresh (R34), so no member ends.
func TestR34_MembersOutliveRefusedWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		var refuses atomic.Bool
		var members []*member
		for _, pod := range []string{"a", "b", "c"} {
			client := cluster.Client(pod)
			client.PrependWatchReactor("leases", func(clienttesting.Action) (bool, watch.Interface, error) {
				return refuses.Load(), nil, errors.New("the server is unable to watch")
			})
			members = append(members, start(t, client, pod))
		}
		time.Sleep(30 * time.Second)
		refuses.Store(true)
		for _, pod := range []string{"a", "b", "c"} {
			cluster.Break(pod, shardtest.None) // ends the streams
		}
		time.Sleep(40 * time.Second)
		refuses.Store(false)
		time.Sleep(30 * time.Second)
		for n, m := range members {
			select {
			case err := <-m.done:
				t.Errorf("Run of member %d has returned: %v", n, err)
				m.done <- err
			default:
				if err := m.Ready(); err != nil {
					t.Errorf("member %d is not ready: %v", n, err)
				}
			}
		}
	})
}

// The watch is late, and the server needs longer than WatchLagLimit for a list, or until it
// responds to a watch. All else is fast: no member ends.
func TestR34_SlowListsAndWatches(t *testing.T) {
	for _, slow := range []string{"list", "watch"} {
		t.Run(slow, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				w := newPlannedClient(cluster.Client("a"), fast)
				a := start(t, w, "a")
				time.Sleep(5 * time.Second)
				w.delay(10 * time.Second)
				w.replan(func(verb string) trip {
					if verb == slow {
						return trip{back: 7 * time.Second}
					}
					return fast(verb)
				})
				select {
				case err := <-a.done:
					t.Fatalf("Run returned %v", err)
				case <-time.After(10 * time.Minute):
				}
				oneOwnerEach(t, a)
				end(t, a)
			})
		})
	}
}

func TestL1_CrashUnderALateWatch(t *testing.T) {
	heavy(t)
	for _, late := range latenesses {
		t.Run(late.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				members, _, recover := lagging(t, cluster, late)
				crashed, members := members[2], members[:2]
				cluster.Break("c", shardtest.Unreachable)
				if took := new(gaps).wait(10*time.Minute, members...); took > whileLate {
					t.Errorf("all keys are owned again %v after a crash, want %v", took, whileLate)
				}
				recover()
				time.Sleep(time.Minute)
				oneOwnerEach(t, members...)
				_ = crashed.end()
				end(t, members...)
			})
		})
	}
}

// A member's Lease is lost while it knows a tombstone, and its last work takes a while to end. The
// tombstone expires meanwhile: the next incarnation must not wait for it again (R29, R64, L1).
func TestR64_TheTimeOfATombstoneRunsWhileTheLastWorkEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		start(t, cluster.Client("b"), "b")
		time.Sleep(10 * time.Second)
		var done func()
		for n := 0; done == nil && n < 1000; n++ {
			_, done, _ = a.TryAcquire(t.Context(), fmt.Sprint("x/", n))
		}
		if done == nil {
			t.Fatal("a owns nothing")
		}
		cluster.Break("b", shardtest.Unreachable)
		cluster.Remove(namespace, "foo-b")
		cluster.Remove(namespace, "foo-a")
		time.Sleep(25 * time.Second) // of these, the tombstone of b counts for at most 15 s
		done()
		time.Sleep(5 * time.Second)
		for n := range 100 {
			if key := fmt.Sprint("x/", n); !a.OwnsKey(key) {
				t.Fatalf("5 s after the member has started again, and 30 s after the Lease of b was deleted, %s has no owner", key)
			}
		}
	})
}
