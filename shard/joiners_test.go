// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// joined is what it costs when many members start.
type joined struct {
	took   time.Duration  // until each key has one owner
	fleet  int            // members in all
	sent   map[string]int // requests by verb meanwhile, of all members
	writes float64        // updates per member that starts, without the planned renewals
}

// startAtOnce starts members, each some time after the one before it, in addition to some that
// are at work.
func startAtOnce(t *testing.T, working, starting int, gap time.Duration) joined {
	c := &crowd{t: t, cluster: shardtest.NewCluster()}
	add := func(n int) {
		for range n {
			name := fmt.Sprintf("m-%03d", len(c.live))
			client := newSlowClient(c.cluster, name, nil)
			c.live, c.clients = append(c.live, start(t, client, name)), append(c.clients, client)
		}
	}
	if add(working); working > 0 {
		time.Sleep(15 * time.Second)
		c.oneOwner(c.live...)
	}
	for _, client := range c.clients {
		client.reset()
	}
	began := time.Now()
	for range starting {
		add(1)
		time.Sleep(gap)
	}
	done := func() bool {
		for _, m := range c.live {
			if m.Ready() != nil {
				return false
			}
		}
		for _, who := range owners(c.live...) {
			if len(who) != 1 {
				return false
			}
		}
		return true
	}
	for time.Sleep(2 * time.Second); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("after a minute some keys have no owner")
		}
	}
	j := joined{took: time.Since(began), fleet: working + starting, sent: map[string]int{}}
	for _, client := range c.clients {
		client.mu.Lock()
		for verb, n := range client.requests {
			j.sent[verb] += n
		}
		client.mu.Unlock()
	}
	renewals := j.took.Seconds() / 3 * float64(j.fleet)
	j.writes = (float64(j.sent["update"]) - renewals) / float64(starting)
	c.end()
	return j
}

// What a join costs does not grow with the number of members: about the two writes of the new
// member, one of a settled member that it waits for, and those of the members that hand over
// partitions. The planned renewals of the fleet do not count.
//
//	go test ./shard -run TestTraffic_MembersThatStart -v
func TestTraffic_MembersThatStart(t *testing.T) {
	heavy(t)
	for _, size := range []struct {
		working, starting int
		gap               time.Duration
		writes            float64 // at most, per member that starts
	}{
		{0, 10, 0, 3},
		{0, 100, 0, 3},
		{0, 40, 100 * time.Millisecond, 4},
		{40, 40, 20 * time.Millisecond, 15}, // the members at work hand over partitions
	} {
		t.Run(fmt.Sprintf("%d start %v apart, %d work", size.starting, size.gap, size.working), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := startAtOnce(t, size.working, size.starting, size.gap)
				t.Logf("each key has one owner after %v; requests %v; updates per member that starts, without renewals: %.1f", j.took, j.sent, j.writes)
				if j.writes > size.writes {
					t.Errorf("%.1f updates for each member that starts, want at most %v", j.writes, size.writes)
				}
				if n := float64(j.sent["list"]) / float64(size.starting); n > 8 {
					t.Errorf("%.1f lists for each member that starts", n)
				}
			})
		})
	}
}
