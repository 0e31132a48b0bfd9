// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tom-ludwig/operator-scaling/shard/claim"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// counts are the machine's, summed over the incarnations of this process.
type counts claim.Stats

func (c counts) plus(s claim.Stats) counts {
	c.Heartbeats += s.Heartbeats
	c.HeartbeatFailures += s.HeartbeatFailures
	c.Conflicts += s.Conflicts
	c.Evictions += s.Evictions
	c.EvictionsRefused += s.EvictionsRefused
	c.FenceTrips += s.FenceTrips
	c.Contested += s.Contested
	c.Lists += s.Lists
	c.Relists += s.Relists
	c.CacheWaits += s.CacheWaits
	c.CacheWaitsGivenUp += s.CacheWaitsGivenUp
	return c
}

// metrics belong to one Sharder. What a snapshot or a count tells is read when
// Prometheus asks; the rest is counted as it happens.
type metrics struct {
	s *Sharder

	// Counted by the loop when the view changes.
	membersAdded, membersRemoved prometheus.Counter
	changes                      *prometheus.CounterVec
	relocated                    prometheus.Counter
	lastRelocated                prometheus.Gauge
	lastRelocatedPercent         prometheus.Gauge
	handover, unowned            prometheus.Histogram
	// Counted by whoever reads a Lease.
	leaseFaults *prometheus.CounterVec
	// Counted on the hot paths.
	informer informerCounters
	queue    queueCounters

	counted []prometheus.Collector // all of the above that are Prometheus' own
	asked   map[string]*prometheus.Desc
}

func newMetrics(s *Sharder) *metrics {
	labels := prometheus.Labels{"ring": s.cfg.Name}
	m := &metrics{s: s, asked: map[string]*prometheus.Desc{}}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels})
		m.counted = append(m.counted, c)
		return c
	}
	vector := func(name, help, label string, values ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, []string{label})
		for _, value := range values {
			v.WithLabelValues(value) // shown as 0 from the start
		}
		m.counted = append(m.counted, v)
		return v
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels})
		m.counted = append(m.counted, g)
		return g
	}
	m.membersAdded = counter("sharding_ring_members_added_total", "Members that have come into this member's view.")
	m.membersRemoved = counter("sharding_ring_members_removed_total", "Members that have gone from this member's view.")
	m.changes = vector("sharding_ring_change_events_total", "Changes of the ring as this member sees it, by what changed.", "event_type", "added", "removed", "parameters")
	m.relocated = counter("sharding_partitions_relocated_total", "Partitions that the ring gave to another member than before.")
	m.lastRelocated = gauge("sharding_last_partitions_relocated", "Partitions that the last change of the ring gave to another member.")
	m.lastRelocatedPercent = gauge("sharding_last_partitions_relocated_percent", "The same in percent of all partitions.")
	m.leaseFaults = vector("sharding_lease_faults_total", "Leases read that were foreign, or a member's but malformed.", "kind", "foreign", "malformed")
	histogram := func(name, help string) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: name, Help: help, ConstLabels: labels,
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 40, 80},
		})
		m.counted = append(m.counted, h)
		return h
	}
	m.handover = histogram("sharding_handover_duration_seconds", "Time from the ring giving a partition to this member until it was active.")
	m.unowned = histogram("sharding_unowned_duration_seconds", "Time in which nobody worked on a partition that came to this member: since it saw the release, or the last sign of life of a member that was evicted.")

	ask := func(name, help string, variable ...string) {
		m.asked[name] = prometheus.NewDesc(name, help, variable, labels)
	}
	ask("sharding_ring_member_count", "Members on the ring as this member sees it.")
	ask("sharding_lease_heartbeats_total", "Confirmed writes to this member's Lease.")
	ask("sharding_lease_heartbeat_failures_total", "Writes to this member's Lease that failed or were not answered.")
	ask("sharding_lease_conflicts_total", "Heartbeat failures that were conflicts.")
	ask("sharding_lease_lists_total", "Quorum lists of the ring's Leases.")
	ask("sharding_lease_watch_restarts_total", "Times that the Lease watch was started again because it showed nothing new.")
	ask("sharding_evictions_total", "Evictions of silent members by this one, by outcome.", "outcome")
	ask("sharding_fence_trips_total", "Times that no renewal was confirmed before the fence.")
	ask("sharding_fenced", "1 while this member must not act.")
	ask("sharding_ready", "1 while this member is ready.")
	ask("sharding_claims_contested_total", "Partitions found claimed by another member when they were to become active.")
	ask("sharding_claims_blocked", "Partitions that the ring gives to this member and another one still claims, by that member's Pod name.", "by")
	ask("sharding_partitions_draining", "Partitions that wait for work to end before they are handed over.")
	ask("sharding_cache_waits_total", "Partitions whose activation had to wait for the informers to show what the former owner wrote, by outcome.", "outcome")
	ask("sharding_partitions", "Partitions by what this member may do with them.", "state")
	ask("sharding_objects", "Objects in the stores of the sharded informers, by what this member may do with them.", "state")
	ask("sharding_informer_events_total", "Events of the sharded informers, summed over handlers, by what became of them.", "result")
	ask("sharding_queue_items_total", "Items of the sharded queues by what became of them.", "result")
	ask("sharding_queue_parked", "Items that wait for their partition to become active, or for the fence to lift.")
	ask("sharding_queue_in_flight", "Items that are being worked on.")
	return m
}

// Collector returns the metrics of this ring, for a registry of your own. Each
// Sharder has its own; the label "ring" tells them apart.
func (s *Sharder) Collector() prometheus.Collector { return s.metrics }

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, c := range m.counted {
		c.Describe(out)
	}
	for _, desc := range m.asked {
		out <- desc
	}
}

// Collect implements prometheus.Collector. It hashes each stored object once.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	for _, c := range m.counted {
		c.Collect(out)
	}
	send := func(name string, kind prometheus.ValueType, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(m.asked[name], kind, value, labels...)
	}
	count := func(name string, value uint64, labels ...string) {
		send(name, prometheus.CounterValue, float64(value), labels...)
	}
	level := func(name string, value int, labels ...string) {
		send(name, prometheus.GaugeValue, float64(value), labels...)
	}
	now, status := m.s.snapshot.Load(), m.s.status.Load()
	c := status.counts
	level("sharding_ring_member_count", m.s.MemberCount())
	count("sharding_lease_heartbeats_total", c.Heartbeats)
	count("sharding_lease_heartbeat_failures_total", c.HeartbeatFailures)
	count("sharding_lease_conflicts_total", c.Conflicts)
	count("sharding_lease_lists_total", c.Lists)
	count("sharding_lease_watch_restarts_total", c.Relists)
	count("sharding_evictions_total", c.Evictions, "done")
	count("sharding_evictions_total", c.EvictionsRefused, "refused")
	count("sharding_fence_trips_total", c.FenceTrips)
	level("sharding_fenced", one(m.s.Fenced()))
	level("sharding_ready", one(m.s.Ready() == nil))
	count("sharding_claims_contested_total", c.Contested)
	for pod, n := range status.blockers {
		level("sharding_claims_blocked", n, pod)
	}
	level("sharding_partitions_draining", status.draining)
	count("sharding_cache_waits_total", c.CacheWaits, "reached")
	count("sharding_cache_waits_total", c.CacheWaitsGivenUp, "gave_up")
	for state, n := range now.stateCounts() {
		level("sharding_partitions", n, ring.State(state).String())
	}
	informers, queues := m.s.components()
	var objects [ring.Active + 1]int
	for _, i := range informers {
		for state, n := range i.Objects() {
			objects[state] += n
		}
	}
	for state, n := range objects {
		level("sharding_objects", n, ring.State(state).String())
	}
	for result, n := range m.informer.totals() {
		count("sharding_informer_events_total", n, result)
	}
	for result, n := range m.queue.totals() {
		count("sharding_queue_items_total", n, result)
	}
	parked, inFlight := 0, 0
	for _, q := range queues {
		parked += q.Parked()
		inFlight += len(q.InFlight())
	}
	level("sharding_queue_parked", parked)
	level("sharding_queue_in_flight", inFlight)
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// membersChanged counts a change of the view. Called by the loop.
func (l *loop) membersChanged(before, after *ring.Ring) {
	m := l.s.metrics
	was, is := before.Members(), after.Members()
	added, removed := difference(is, was), difference(was, is)
	m.membersAdded.Add(float64(len(added)))
	m.membersRemoved.Add(float64(len(removed)))
	if len(added) > 0 {
		m.changes.WithLabelValues("added").Inc()
	}
	if len(removed) > 0 {
		m.changes.WithLabelValues("removed").Inc()
	}
	if before.Parameters() != after.Parameters() {
		m.changes.WithLabelValues("parameters").Inc()
	}
	moved := after.Relocated(before)
	if len(added)+len(removed) > 0 || moved > 0 {
		m.relocated.Add(float64(moved))
		m.lastRelocated.Set(float64(moved))
		m.lastRelocatedPercent.Set(100 * float64(moved) / float64(after.Parameters().Partitions))
		l.logger.Info("The ring has changed", "member", l.holder, "members", is, "added", added, "removed", removed, "relocated", moved)
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
			l.s.metrics.handover.Observe(time.Since(since).Seconds())
			delete(l.wanted, partition)
		}
	}
}
