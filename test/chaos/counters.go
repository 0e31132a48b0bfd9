// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/replica"
)

// Counters are values of the processes' own metrics.
type Counters struct{ Refused, Contested, Fences, Conflicts float64 }

// follow reads the metrics of all processes repeatedly until the context ends, because
// the counts of a process are lost when it is killed.
func (a *environment) follow(ctx context.Context) {
	for a.sleep(ctx, 300*time.Millisecond) == nil {
		a.ask(ctx, 500*time.Millisecond)
	}
}

// ask reads the metrics of all processes. limit is the time for each, because it may be
// paused.
func (a *environment) ask(ctx context.Context, limit time.Duration) {
	for _, s := range a.allReplicas() {
		p, err := s.running()
		if err != nil {
			continue
		}
		one, cancel := context.WithTimeout(ctx, limit)
		c, err := askOne(one, p)
		cancel()
		if err == nil {
			a.mu.Lock()
			a.seen[p] = c
			a.mu.Unlock()
		}
	}
}

func askOne(ctx context.Context, p *replica.Process) (c Counters, err error) {
	metrics, err := p.Metrics(ctx)
	if err != nil {
		return c, err
	}
	for _, m := range []struct {
		to     *float64
		name   string
		labels []string
	}{
		{&c.Refused, "sharding_evictions_total", []string{`outcome="refused"`}},
		{&c.Contested, "sharding_claims_contested_total", nil},
		{&c.Fences, "sharding_fence_trips_total", nil},
		{&c.Conflicts, "sharding_lease_conflicts_total", nil},
	} {
		if *m.to, err = metrics.Sum(m.name, m.labels...); err != nil {
			return c, err
		}
	}
	return c, nil
}

// total adds up the counts of all processes.
func (a *environment) total() (sum Counters) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.seen {
		sum.Refused += c.Refused
		sum.Contested += c.Contested
		sum.Fences += c.Fences
		sum.Conflicts += c.Conflicts
	}
	return sum
}
