// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/replica"
)

// counters are what a process last said of itself.
type counters struct{ refused, contested, fences, conflicts, heartbeats, lists float64 }

// follow asks all processes again and again until the context ends: what one has
// counted is gone when it is killed.
func (a *arena) follow(ctx context.Context) {
	for a.sleep(ctx, 500*time.Millisecond) == nil {
		a.ask(ctx)
	}
}

func (a *arena) ask(ctx context.Context) {
	for _, s := range a.everySeat() {
		p, err := s.present()
		if err != nil {
			continue
		}
		if c, err := askOne(ctx, p); err == nil {
			a.mu.Lock()
			a.seen[p] = c
			a.mu.Unlock()
		}
	}
}

func askOne(ctx context.Context, p *replica.Process) (c counters, err error) {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond) // it may be paused
	defer cancel()
	for _, m := range []struct {
		to     *float64
		name   string
		labels []string
	}{
		{&c.refused, "sharding_evictions_total", []string{`outcome="refused"`}},
		{&c.contested, "sharding_claims_contested_total", nil},
		{&c.fences, "sharding_fence_trips_total", nil},
		{&c.conflicts, "sharding_lease_conflicts_total", nil},
		{&c.heartbeats, "sharding_lease_heartbeats_total", nil},
		{&c.lists, "sharding_lease_lists_total", nil},
	} {
		if *m.to, err = p.Metric(ctx, m.name, m.labels...); err != nil {
			return c, err
		}
	}
	return c, nil
}

// total adds up what all processes have counted.
func (a *arena) total() (sum counters) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.seen {
		sum.refused += c.refused
		sum.contested += c.contested
		sum.fences += c.fences
		sum.conflicts += c.conflicts
		sum.heartbeats += c.heartbeats
		sum.lists += c.lists
	}
	return sum
}
