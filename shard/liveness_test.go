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

// contains reports whether a line contains a text.
func contains(lines []string, text string) bool {
	return slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, text) })
}
