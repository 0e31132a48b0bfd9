// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tom-ludwig/operator-scaling/informer"
	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Values are what one look at a member shows.
type Values struct {
	Members       int            // on the ring
	Counts        Counts         // of the state machine
	Fenced, Ready bool           // of this member
	Blockers      map[string]int // partitions that another member still claims, by its Pod
	Draining      int            // partitions
	OffRing       int            // active members for which the ring has no room
	Tombstones    int            // of deleted Leases whose claims still count
	Incompatible  bool           // waits until all members with another key have left
	InForceLease  string         // whose ring parameters are in force; "" if they are this member's own
	OtherKinds    int            // members that watch other kinds
	Renewed       time.Time      // when a renewal was last confirmed; zero if never
	Partitions    ByState
	Objects       ByState         // in the stores of the informers
	Events        informer.Counts // of the informers
	Parked        int             // items
	InFlight      int             // items
}

// ByState are numbers by ring.State.
type ByState [ring.Active + 1]int

// Counts are the state machine's, summed over the incarnations of this process.
type Counts claim.Stats

// Plus returns the sum of both.
func (c Counts) Plus(s claim.Stats) Counts {
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
	c.OldRecords += s.OldRecords
	return c
}

// Metrics belong to one member. Any goroutine may call the methods.
type Metrics struct {
	// Queues counts on the hot paths.
	Queues QueueCounters

	read func() Values

	membersAdded, membersRemoved prometheus.Counter
	changes                      *prometheus.CounterVec
	relocated                    prometheus.Counter
	lastRelocated                prometheus.Gauge
	lastRelocatedPercent         prometheus.Gauge
	handover, unowned            prometheus.Histogram
	leaseFaults, leaseLost       *prometheus.CounterVec
	requestFailures              *prometheus.CounterVec
	outsideWrites                prometheus.Counter

	counted []prometheus.Collector // the counters, gauges and histograms above
	asked   map[string]*prometheus.Desc
}

// New returns the metrics of a member of the named ring. They call read at each scrape,
// from any goroutine.
func New(ringName string, read func() Values) *Metrics {
	labels := prometheus.Labels{"ring": ringName}
	m := &Metrics{read: read, asked: map[string]*prometheus.Desc{}}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels})
		m.counted = append(m.counted, c)
		return c
	}
	vector := func(name, help, label string, values ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, strings.Fields(label))
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
	m.membersAdded = counter("sharding_ring_members_added_total", "Members that have appeared in this member's view.")
	m.membersRemoved = counter("sharding_ring_members_removed_total", "Members that have disappeared from this member's view.")
	m.changes = vector("sharding_ring_change_events_total", "Changes of the ring as this member sees it, by what changed.", "event_type", "added", "removed", "parameters")
	m.relocated = counter("sharding_partitions_relocated_total", "Partitions that the ring assigned to a different member than before.")
	m.lastRelocated = gauge("sharding_last_partitions_relocated", "Partitions that the last change of the ring assigned to a different member.")
	m.lastRelocatedPercent = gauge("sharding_last_partitions_relocated_percent", "The same in percent of all partitions.")
	m.leaseFaults = vector("sharding_lease_faults_total", "Leases read that were foreign, or a member's but malformed.", "kind", "foreign", "malformed")
	m.leaseLost = vector("sharding_lease_lost_total", "Times that this member lost its Lease, by what became of it.", "reason", "evicted", "deleted", "restored", "taken_over")
	m.requestFailures = vector("sharding_request_failures_total", "Requests for Leases that failed, by verb and reason. The verb \"evict\" is an update of another member's Lease.", "verb reason")
	m.outsideWrites = counter("sharding_outside_writes_total", "Mutating requests of clients with WrapTransport that belonged to no work, without dry runs and those for Leases, Events, reviews and tokens. Config.OutsideWrites decides what happens to them.")
	histogram := func(name, help string) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: name, Help: help, ConstLabels: labels,
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 40, 80},
		})
		m.counted = append(m.counted, h)
		return h
	}
	m.handover = histogram("sharding_handover_duration_seconds", "Time from the ring giving a partition to this member until it was active.")
	m.unowned = histogram("sharding_unowned_duration_seconds", "Time in which no member worked on a partition that came to this member: since it saw the release, or the last sign of life of a member that was evicted.")

	ask := func(name, help string, variable ...string) {
		m.asked[name] = prometheus.NewDesc(name, help, variable, labels)
	}
	ask("sharding_ring_member_count", "Members on the ring as this member sees it.")
	ask("sharding_ring_members_left_out", "Active members that are not on the ring because it has no room for them: the youngest.")
	ask("sharding_lease_heartbeats_total", "Confirmed writes to this member's Lease.")
	ask("sharding_lease_heartbeat_failures_total", "Writes to this member's Lease that failed or were not answered.")
	ask("sharding_lease_conflicts_total", "Heartbeat failures that were conflicts.")
	ask("sharding_lease_lists_total", "Quorum lists of the ring's Leases.")
	ask("sharding_lease_watch_restarts_total", "Times that the Lease watch was started again because it showed nothing new.")
	ask("sharding_evictions_total", "Evictions of silent members by this one, by outcome: done, or conflict if the member was alive or another member was faster.", "outcome")
	ask("sharding_lease_renewal_age_seconds", "Time since a renewal of this member's Lease was last confirmed. Absent before the first.")
	ask("sharding_tombstones", "Leases that were deleted while they were held, and whose claims still count.")
	ask("sharding_parameters_incompatible", "1 while this member waits until all members with another key have left.")
	ask("sharding_parameters_in_force", "1 for the Lease whose ring parameters are in force, while they are not this member's own.", "lease")
	ask("sharding_kinds_differ", "Members on the ring whose informers are for other kinds than those of this one.")
	ask("sharding_fence_trips_total", "Times that no renewal was confirmed before the fence.")
	ask("sharding_fenced", "1 while this member must not act.")
	ask("sharding_ready", "1 while this member is ready.")
	ask("sharding_claims_contested_total", "Partitions found claimed by another member when they were to become active.")
	ask("sharding_claims_blocked", "Partitions that the ring gives to this member and another one still claims, by that member's Pod name: the ten with the most, and \"other\".", "by")
	ask("sharding_partitions_draining", "Partitions that wait for work to end before they are handed over.")
	ask("sharding_cache_waits_total", "Partitions whose activation had to wait for the informers to show what the former owner wrote, by outcome.", "outcome")
	ask("sharding_partitions", "Partitions by what this member may do with them.", "state")
	ask("sharding_objects", "Objects in the stores of the sharded informers, by what this member may do with them.", "state")
	ask("sharding_informer_events_total", "Events of the sharded informers, summed over handlers, by what became of them.", "result")
	ask("sharding_queue_items_total", "Items of the sharded queues by what became of them.", "result")
	ask("sharding_queue_parked", "Items that wait for their partition to become active.")
	ask("sharding_queue_in_flight", "Items that are being worked on.")
	return m
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, c := range m.counted {
		c.Describe(out)
	}
	for _, desc := range m.asked {
		out <- desc
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	for _, c := range m.counted {
		c.Collect(out)
	}
	send := func(name string, kind prometheus.ValueType, value float64, labels ...string) {
		if metric, err := prometheus.NewConstMetric(m.asked[name], kind, value, labels...); err == nil { // the other metrics count more than this one
			out <- metric
		}
	}
	count := func(name string, value uint64, labels ...string) {
		send(name, prometheus.CounterValue, float64(value), labels...)
	}
	level := func(name string, value int, labels ...string) {
		send(name, prometheus.GaugeValue, float64(value), labels...)
	}
	v := m.read()
	level("sharding_ring_member_count", v.Members)
	level("sharding_ring_members_left_out", v.OffRing)
	count("sharding_lease_heartbeats_total", v.Counts.Heartbeats)
	count("sharding_lease_heartbeat_failures_total", v.Counts.HeartbeatFailures)
	count("sharding_lease_conflicts_total", v.Counts.Conflicts)
	count("sharding_lease_lists_total", v.Counts.Lists)
	count("sharding_lease_watch_restarts_total", v.Counts.Relists)
	count("sharding_evictions_total", v.Counts.Evictions, "done")
	count("sharding_evictions_total", v.Counts.EvictionsRefused, "conflict")
	count("sharding_fence_trips_total", v.Counts.FenceTrips)
	level("sharding_fenced", one(v.Fenced))
	level("sharding_ready", one(v.Ready))
	count("sharding_claims_contested_total", v.Counts.Contested)
	for pod, n := range topOf(v.Blockers) {
		level("sharding_claims_blocked", n, pod)
	}
	if !v.Renewed.IsZero() {
		send("sharding_lease_renewal_age_seconds", prometheus.GaugeValue, time.Since(v.Renewed).Seconds())
	}
	level("sharding_tombstones", v.Tombstones)
	level("sharding_parameters_incompatible", one(v.Incompatible))
	if v.InForceLease != "" {
		level("sharding_parameters_in_force", 1, v.InForceLease)
	}
	level("sharding_kinds_differ", v.OtherKinds)
	level("sharding_partitions_draining", v.Draining)
	count("sharding_cache_waits_total", v.Counts.CacheWaits, "reached")
	count("sharding_cache_waits_total", v.Counts.CacheWaitsGivenUp, "gave_up")
	for state, n := range v.Partitions {
		level("sharding_partitions", n, ring.State(state).String())
	}
	for state, n := range v.Objects {
		level("sharding_objects", n, ring.State(state).String())
	}
	for result, n := range v.Events {
		count("sharding_informer_events_total", n, informer.Outcome(result).String())
	}
	for result, n := range m.Queues.totals() {
		count("sharding_queue_items_total", n, result)
	}
	level("sharding_queue_parked", v.Parked)
	level("sharding_queue_in_flight", v.InFlight)
}

// topOf returns the ten largest numbers by label value, and the sum of all others as
// "other". Other clients may have written the names: a label value must be valid UTF-8, and
// no two may be equal.
func topOf(byName map[string]int) map[string]int {
	const most = 10
	valid := make(map[string]int, len(byName))
	for name, n := range byName {
		valid[strings.ToValidUTF8(name, "\uFFFD")] += n
	}
	names := slices.SortedFunc(maps.Keys(valid), func(a, b string) int {
		return cmp.Or(cmp.Compare(valid[b], valid[a]), cmp.Compare(a, b))
	})
	top := make(map[string]int, most+1)
	for i, name := range names {
		if i >= most {
			top["other"] += valid[name]
		} else {
			top[name] += valid[name]
		}
	}
	return top
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// Change is how the ring has changed in a member's view.
type Change struct {
	Added, Removed []string // members, by Pod name
	Parameters     bool     // others are in force
	Relocated      int      // partitions that another member gets
	Partitions     int      // in all
}

// RingChanged counts a change of the ring.
func (m *Metrics) RingChanged(c Change) {
	m.membersAdded.Add(float64(len(c.Added)))
	m.membersRemoved.Add(float64(len(c.Removed)))
	if len(c.Added) > 0 {
		m.changes.WithLabelValues("added").Inc()
	}
	if len(c.Removed) > 0 {
		m.changes.WithLabelValues("removed").Inc()
	}
	if c.Parameters {
		m.changes.WithLabelValues("parameters").Inc()
	}
	if len(c.Added)+len(c.Removed) > 0 || c.Relocated > 0 {
		m.relocated.Add(float64(c.Relocated))
		m.lastRelocated.Set(float64(c.Relocated))
		m.lastRelocatedPercent.Set(100 * float64(c.Relocated) / float64(c.Partitions))
	}
}

// HandedOver counts a partition that is active now, and how long that took since the
// ring gave it to this member.
func (m *Metrics) HandedOver(took time.Duration) { m.handover.Observe(took.Seconds()) }

// Unowned counts a partition that came to this member, and how long no member worked
// on it before.
func (m *Metrics) Unowned(lasted time.Duration) { m.unowned.Observe(lasted.Seconds()) }

// LeaseFault counts a Lease that could not be read: "foreign" or "malformed".
func (m *Metrics) LeaseFault(kind string) { m.leaseFaults.WithLabelValues(kind).Inc() }

// RequestFailed counts a request for Leases that failed.
func (m *Metrics) RequestFailed(verb, reason string) {
	m.requestFailures.WithLabelValues(verb, reason).Inc()
}

// LeaseLost counts a loss of the member's own Lease: "evicted", "deleted", "restored" or
// "taken_over".
func (m *Metrics) LeaseLost(reason string) { m.leaseLost.WithLabelValues(reason).Inc() }

// OutsideWrite counts a mutating request that belonged to no work.
func (m *Metrics) OutsideWrite() { m.outsideWrites.Inc() }
