// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tom-ludwig/operator-scaling/shard/internal/metrics"
)

// Collector returns the metrics of this ring, for a registry of your own. Each
// Sharder has its own; the label "ring" tells them apart.
func (s *Sharder) Collector() prometheus.Collector { return s.metrics }

// metricValues returns what a scrape shows of this moment. It hashes each stored object,
// or its key, once.
func (s *Sharder) metricValues() metrics.Values {
	now, components := s.member.Published.View(), s.member.Components
	fenced := s.member.Published.FencedIn(now)
	v := metrics.Values{
		Members:  len(now.Ring.Members()),
		Counts:   now.Status.Counts,
		Fenced:   fenced,
		Ready:    s.ready(now, fenced) == nil,
		Blockers: now.Status.Blockers,
		Draining: now.Status.Draining, Tombstones: now.Status.Tombstones,
		OffRing: now.Status.OffRing, Incompatible: now.Status.Incompatible, InForceLease: now.Status.InForceLease, Renewed: now.Status.Renewed,
		OtherKinds: now.Status.Warnings.OtherKinds,
		Objects:    components.Objects(),
		Events:     components.Events(),
		Parked:     components.Parked(),
		InFlight:   components.InFlight(),
	}
	for _, state := range now.States {
		v.Partitions[state]++
	}
	return v
}
