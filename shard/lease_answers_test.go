// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// These tests have servers whose responses are late or lost. Reads show what was written, so
// that no member needs to stop.

var (
	writes      = []string{"create", "update", "delete"}
	allRequests = append([]string{"get", "list"}, writes...)
)

// fast is a trip that takes almost no time.
func fast(string) trip { return trip{there: time.Millisecond, back: time.Millisecond} }

// TestR41_LateResponsesFenceNoMember: with the defaults, requests that take up to 4 s do not
// fence a member. An overloaded API server delays all requests. An API server whose admission
// webhook is down delays writes by the webhook's timeout.
func TestR41_LateResponsesFenceNoMember(t *testing.T) {
	heavy(t) // it simulates hours; the race detector runs out of memory for stacks
	for name, test := range map[string]struct {
		take  time.Duration
		verbs []string
		onlyB bool
	}{
		"all requests, 2.5 s":         {2500 * time.Millisecond, allRequests, false},
		"all requests, 3.5 s":         {3500 * time.Millisecond, allRequests, false},
		"all requests, 4 s":           {4 * time.Second, allRequests, false},
		"writes, 3.5 s":               {3500 * time.Millisecond, writes, false},
		"writes of one member, 3.5 s": {3500 * time.Millisecond, writes, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				wireA, wireB := newPlannedClient(cluster.Client("a"), fast), newPlannedClient(cluster.Client("b"), fast)
				a, b := start(t, wireA, "a"), start(t, wireB, "b")
				time.Sleep(10 * time.Second)
				before := oneOwnerEach(t, a, b)
				slow := func(verb string) trip {
					if slices.Contains(test.verbs, verb) {
						return trip{there: test.take / 2, back: test.take / 2}
					}
					return fast(verb)
				}
				wireB.replan(slow)
				if !test.onlyB {
					wireA.replan(slow)
				}
				var g gaps
				stopped := 0
				for range 600 {
					time.Sleep(time.Second)
					if g.look(a, b) > 0 {
						stopped++
					}
				}
				if stopped > 0 {
					t.Errorf("keys are without an owner in %d of 600 s, for %v at a stretch", stopped, g.longest)
				}
				for _, m := range []*member{a, b} {
					for _, count := range []string{"sharding_evictions_total", "sharding_fence_trips_total"} {
						if n := counted(t, m, count); n != 0 {
							t.Errorf("%s: %s is %v, want 0", m.PodName(), count, n)
						}
					}
				}
				if after := oneOwnerEach(t, a, b); !maps.EqualFunc(before, after, slices.Equal) {
					t.Error("keys have moved")
				}
				wireA.replan(fast)
				wireB.replan(fast)
				time.Sleep(10 * time.Second)
				end(t, a, b)
			})
		})
	}
}

// A server that needs seconds for each request does not keep partitions from moving: members
// join, stop and crash. Each of these takes several requests, one after the other.
func TestR41_ASlowServerStopsNoHandover(t *testing.T) {
	for _, take := range []time.Duration{3500 * time.Millisecond, 4 * time.Second} {
		t.Run(take.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				slow := func(string) trip { return trip{there: take / 2, back: take / 2} }
				client := func(pod string) *faultyClient { return newPlannedClient(cluster.Client(pod), slow) }
				wireC := client("c")
				a, b := start(t, client("a"), "a"), start(t, client("b"), "b")
				var g gaps
				if took := g.wait(2*time.Minute, a, b); took > 90*time.Second {
					t.Fatalf("keys have no owner %v after the start", took)
				}
				time.Sleep(time.Minute)
				oneOwnerEach(t, a, b)
				c := start(t, wireC, "c")
				time.Sleep(90 * time.Second)
				oneOwnerEach(t, a, b, c)
				end(t, b)
				time.Sleep(time.Minute)
				oneOwnerEach(t, a, c)
				wireC.replan(func(string) trip { return trip{there: never} })
				g = gaps{}
				g.look(a)
				time.Sleep(9 * time.Second) // c is fenced
				if took := g.wait(2*time.Minute, a); took > 45*time.Second {
					t.Errorf("keys have no owner for %v after a crash", took)
				}
				if n := counted(t, a, "sharding_fence_trips_total"); n != 0 {
					t.Errorf("a was fenced %v times", n)
				}
				c.stop()
				wireC.replan(fast)
				<-c.done
				end(t, a)
			})
		})
	}
}

// All responses to one member are lost, also those of reads. It writes once, and then it cannot
// find out what has become of that: it stops at its fence, and a peer evicts it.
func TestR40_WithoutAnyResponseAMemberIsEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		client := newPlannedClient(cluster.Client("b"), fast)
		a, b := start(t, cluster.Client("a"), "a"), start(t, client, "b")
		time.Sleep(10 * time.Second)
		oneOwnerEach(t, a, b)
		client.replan(func(string) trip { return trip{there: time.Millisecond, back: never} })
		time.Sleep(3*time.Second + 15*time.Second + 2*time.Second) // one more renewal, LeaseDuration, and L1
		var g gaps
		for range 3600 {
			if n := g.look(a); n > 0 {
				t.Fatalf("%d keys have no owner", n)
			}
			time.Sleep(time.Second)
		}
		if n := counted(t, a, "sharding_evictions_total"); n != 1 {
			t.Errorf("%v evictions", n)
		}
		client.replan(fast)
		time.Sleep(time.Minute)
		oneOwnerEach(t, a, b)
		end(t, a, b)
	})
}

// TestR40_LostResponsesKeepNoKeyUnowned: the responses to some of a member's writes are lost,
// for instance by a bad link or proxy, and reads work. Its peers consider it alive, so it must
// work.
func TestR40_LostResponsesKeepNoKeyUnowned(t *testing.T) {
	heavy(t)
	for _, percent := range []int{50, 90, 100} {
		t.Run(fmt.Sprintf("%d percent", percent), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				client := newPlannedClient(cluster.Client("b"), fast)
				a, b := start(t, cluster.Client("a"), "a"), start(t, client, "b")
				time.Sleep(10 * time.Second)
				oneOwnerEach(t, a, b)
				random := rand.New(rand.NewPCG(11, 12))
				client.replan(func(verb string) trip {
					if slices.Contains(writes, verb) && random.IntN(100) < percent {
						return trip{there: time.Millisecond, back: never}
					}
					return fast(verb)
				})
				var g gaps
				stopped := 0
				for range 3600 {
					time.Sleep(time.Second)
					if g.look(a, b) > 0 {
						stopped++
					}
				}
				if stopped > 0 {
					t.Errorf("keys are without an owner in %d of 3600 s, for %v at a stretch; evictions by a: %v",
						stopped, g.longest, counted(t, a, "sharding_evictions_total"))
				}
				client.replan(fast)
				time.Sleep(time.Minute)
				oneOwnerEach(t, a, b)
				end(t, a, b)
			})
		})
	}
}

// An API server whose etcd is being defragmented does not respond for 20 s, repeatedly.
func TestRun_RepeatedOutagesMoveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a, b := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")
		time.Sleep(10 * time.Second)
		before := oneOwnerEach(t, a, b)
		for range 5 {
			cluster.Break("a", shardtest.LostAnswer)
			cluster.Break("b", shardtest.LostAnswer)
			time.Sleep(20 * time.Second)
			cluster.Break("a", shardtest.None)
			cluster.Break("b", shardtest.None)
			time.Sleep(10 * time.Second)
			if after := oneOwnerEach(t, a, b); !maps.EqualFunc(before, after, slices.Equal) {
				t.Fatal("keys have moved")
			}
		}
		end(t, a, b)
	})
}
