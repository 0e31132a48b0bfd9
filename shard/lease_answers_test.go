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

// TestR40_LostResponsesKeepNoKeyUnowned: the responses to some of a member's writes are lost,
// for instance by a bad link or proxy, and reads work. Its peers consider it alive, so it must
// work.
func TestR40_LostResponsesKeepNoKeyUnowned(t *testing.T) {
	for _, test := range []struct {
		percent int
		within  time.Duration // limit until each key is owned again
	}{
		{50, time.Minute},
		{50, 0},
		{90, 0},
		{100, 0},
	} {
		t.Run(fmt.Sprintf("%d percent, %v", test.percent, test.within), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				client := newPlannedClient(cluster.Client("b"), fast)
				a, b := start(t, cluster.Client("a"), "a"), start(t, client, "b")
				time.Sleep(10 * time.Second)
				oneOwnerEach(t, a, b)
				random := rand.New(rand.NewPCG(11, 12))
				client.replan(func(verb string) trip {
					if slices.Contains(writes, verb) && random.IntN(100) < test.percent {
						return trip{there: time.Millisecond, back: never}
					}
					return fast(verb)
				})
				var g gaps
				stopped := 0
				for range 900 {
					time.Sleep(time.Second)
					if g.look(a, b) > 0 {
						stopped++
					}
				}
				if g.longest > test.within || test.within == 0 && stopped > 0 {
					t.Errorf("keys are without an owner in %d of 900 s, for %v at a stretch, want %v; evictions by a: %v",
						stopped, g.longest, test.within, counted(t, a, "sharding_evictions_total"))
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
