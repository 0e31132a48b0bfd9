// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"time"
)

const contested = "contested claims"

// counters are those of the processes' own metrics that show what a run has exercised, and
// how much of it a run needs.
var counters = []struct {
	what, metric string
	labels       []string
	least        int
}{
	{"refused evictions", "sharding_evictions_total", []string{`outcome="refused"`}, 1},
	{contested, "sharding_claims_contested_total", nil, 1},
	{"fence trips", "sharding_fence_trips_total", nil, 8},
	{"Lease write conflicts", "sharding_lease_conflicts_total", nil, 8},
}

// follow reads the counters of all processes repeatedly until the context ends, because
// the counts of a process are lost when it is killed.
func (a *environment) follow(ctx context.Context) {
	for sleep(ctx, 300*time.Millisecond) == nil {
		a.ask(ctx, 500*time.Millisecond)
	}
}

// ask reads the counters of all processes. limit is the time for each, because it may be
// paused.
func (a *environment) ask(ctx context.Context, limit time.Duration) {
	for _, r := range a.allReplicas() {
		p, err := r.running()
		if err != nil {
			continue
		}
		one, cancel := context.WithTimeout(ctx, limit)
		metrics, err := p.Metrics(one)
		cancel()
		counts := map[string]float64{}
		for _, c := range counters {
			if err == nil {
				counts[c.what], err = metrics.Sum(c.metric, c.labels...)
			}
		}
		if err == nil {
			a.mu.Lock()
			a.seen[p] = counts
			a.mu.Unlock()
		}
	}
}

// counted adds up the counters of all processes.
func (a *environment) counted() map[string]float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	sum := map[string]float64{}
	for _, counts := range a.seen {
		for what, n := range counts {
			sum[what] += n
		}
	}
	return sum
}
