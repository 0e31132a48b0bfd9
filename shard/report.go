// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tom-ludwig/operator-scaling/shard/internal/metrics"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Collector returns the metrics of this ring, for a registry of your own. Each
// Sharder has its own; the label "ring" tells them apart.
func (s *Sharder) Collector() prometheus.Collector { return s.metrics }

// metricValues returns what a scrape shows of this moment. It hashes each stored object
// once.
func (s *Sharder) metricValues() metrics.Values {
	now, status := s.snapshot.Load(), s.status.Load()
	v := metrics.Values{
		Members:    s.MemberCount(),
		Counts:     status.counts,
		Fenced:     s.Fenced(),
		Ready:      s.Ready() == nil,
		Blockers:   status.blockers,
		Draining:   status.draining,
		Partitions: now.stateCounts(),
	}
	informers, queues := s.components()
	for _, i := range informers {
		for state, n := range i.Objects() {
			v.Objects[state] += n
		}
	}
	for _, q := range queues {
		v.Parked += q.Parked()
		v.InFlight += len(q.InFlight())
	}
	return v
}

// membersChanged counts and logs a change of the view.
func (l *loop) membersChanged(before, after *ring.Ring) {
	was, is := before.Members(), after.Members()
	change := metrics.Change{
		Added: difference(is, was), Removed: difference(was, is),
		Parameters: before.Parameters() != after.Parameters(),
		Relocated:  after.Relocated(before), Partitions: after.Parameters().Partitions,
	}
	l.s.metrics.RingChanged(change)
	if len(change.Added)+len(change.Removed) > 0 || change.Relocated > 0 {
		l.logger.Info("The ring has changed", "member", l.holder, "members", is, "added", change.Added, "removed", change.Removed, "relocated", change.Relocated)
	}
}

// difference returns the elements of a that are not in b.
func difference(a, b []string) []string {
	in := make(map[string]bool, len(b))
	for _, x := range b {
		in[x] = true
	}
	var rest []string
	for _, x := range a {
		if !in[x] {
			rest = append(rest, x)
		}
	}
	return rest
}

// measureHandover measures the time from the ring giving a partition to this
// member until it is active.
func (l *loop) measureHandover(now *snapshot) {
	if len(l.wanted) > 0 && now.ring.Parameters().Partitions != now.partitions {
		clear(l.wanted) // numbers mean something else now
	}
	for partition, state := range now.states {
		owner, _ := now.ring.Owner(partition)
		since, waiting := l.wanted[partition]
		switch {
		case owner != l.s.cfg.PodName:
			delete(l.wanted, partition)
		case state != ring.Active && !waiting:
			l.wanted[partition] = time.Now()
		case state == ring.Active && waiting:
			l.s.metrics.HandedOver(time.Since(since))
			delete(l.wanted, partition)
		}
	}
}
