// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tom-ludwig/operator-scaling/informer"
	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/metrics"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// numbered returns counts that are all different.
func numbered() (s claim.Stats) {
	v := reflect.ValueOf(&s).Elem()
	for i := range v.NumField() {
		v.Field(i).SetUint(uint64(100 + i))
	}
	return s
}

func TestCounts_PlusAddsAll(t *testing.T) {
	v := reflect.ValueOf(metrics.Counts(numbered()).Plus(numbered()))
	for i := range v.NumField() {
		if got, want := v.Field(i).Uint(), uint64(2*(100+i)); got != want {
			t.Errorf("%s: %d, want %d", v.Type().Field(i).Name, got, want)
		}
	}
}

// Each number that goes in comes out, and is on no other metric.
func TestCollect_ShowsAllValues(t *testing.T) {
	v := metrics.Values{
		Members: 1, Counts: metrics.Counts(numbered()), Ready: true, Blockers: map[string]int{"b": 2}, Draining: 3,
		Parked: 4, InFlight: 5, Tombstones: 11, OffRing: 12, Incompatible: true, InForceLease: "foo-b",
	}
	v.Partitions[ring.Active], v.Objects[ring.Active], v.Events[informer.Passed] = 6, 7, 1
	m := metrics.New("foo", func() metrics.Values { return v })
	m.RingChanged(metrics.Change{Added: []string{"b", "c"}, Removed: []string{"a"}, Relocated: 8, Partitions: 32})
	m.HandedOver(9 * time.Second)
	m.Unowned(10 * time.Second)
	m.LeaseFault("foreign")
	m.LeaseLost("evicted")
	m.RequestFailed("get", "Forbidden")
	m.Queues.Parked()

	registry := prometheus.NewPedanticRegistry() // checks what Describe returns, too
	registry.MustRegister(m)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				if label.GetName() != "ring" {
					name += " " + label.GetValue()
				} else if label.GetValue() != "foo" {
					t.Errorf("%s is of ring %q", name, label.GetValue())
				}
			}
			value := metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + metric.GetHistogram().GetSampleSum()
			if value != 0 {
				got[name] = value
			}
		}
	}
	s := v.Counts
	want := map[string]float64{
		"sharding_ring_member_count":                    1,
		"sharding_claims_blocked b":                     2,
		"sharding_partitions_draining":                  3,
		"sharding_queue_parked":                         4,
		"sharding_queue_in_flight":                      5,
		"sharding_partitions active":                    6,
		"sharding_objects active":                       7,
		"sharding_partitions_relocated_total":           8,
		"sharding_last_partitions_relocated":            8,
		"sharding_last_partitions_relocated_percent":    25,
		"sharding_ring_members_added_total":             2,
		"sharding_ring_members_removed_total":           1,
		"sharding_ring_change_events_total added":       1,
		"sharding_ring_change_events_total removed":     1,
		"sharding_handover_duration_seconds":            9,
		"sharding_unowned_duration_seconds":             10,
		"sharding_lease_faults_total foreign":           1,
		"sharding_lease_lost_total evicted":             1,
		"sharding_request_failures_total Forbidden get": 1,
		"sharding_ring_members_left_out":                12, "sharding_tombstones": 11,
		"sharding_parameters_incompatible":                                 1,
		"sharding_parameters_in_force foo-b":                               1,
		"sharding_queue_items_total parked":                                1,
		"sharding_ready":                                                   1,
		"sharding_lease_heartbeats_total":                                  float64(s.Heartbeats),
		"sharding_lease_heartbeat_failures_total":                          float64(s.HeartbeatFailures),
		"sharding_lease_conflicts_total":                                   float64(s.Conflicts),
		"sharding_lease_lists_total":                                       float64(s.Lists),
		"sharding_lease_watch_restarts_total":                              float64(s.Relists),
		"sharding_evictions_total done":                                    float64(s.Evictions),
		"sharding_evictions_total conflict":                                float64(s.EvictionsRefused),
		"sharding_fence_trips_total":                                       float64(s.FenceTrips),
		"sharding_claims_contested_total":                                  float64(s.Contested),
		"sharding_cache_waits_total reached":                               float64(s.CacheWaits),
		"sharding_cache_waits_total gave_up":                               float64(s.CacheWaitsGivenUp),
		fmt.Sprint("sharding_informer_events_total ", informer.Outcome(0)): 1,
	}
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s is %v, want %v", name, got[name], want[name])
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("unexpected: %v", got)
	}
}

// Text from Leases of other clients neither fails a scrape nor makes it large.
func TestCollect_BlockersOfAnyNameAndNumber(t *testing.T) {
	v := metrics.Values{Blockers: map[string]int{"\xff": 1000, "\xfe": 1000, "": 900, "other": 800, "a\x00b": 700}, Renewed: time.Now().Add(-time.Hour)}
	for i := range 3000 {
		v.Blockers[fmt.Sprint("pod-", i)] = 1 + i%7
	}
	sum := 0
	for _, n := range v.Blockers {
		sum += n
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics.New("foo", func() metrics.Values { return v }))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	age := 0.0
	for _, family := range families {
		switch family.GetName() {
		case "sharding_lease_renewal_age_seconds":
			age = family.GetMetric()[0].GetGauge().GetValue()
		case "sharding_claims_blocked":
			if n := len(family.GetMetric()); n > 11 {
				t.Errorf("%d series, want at most 11", n)
			}
			for _, metric := range family.GetMetric() {
				sum -= int(metric.GetGauge().GetValue())
			}
		}
	}
	if sum != 0 {
		t.Errorf("the sum is wrong by %d", sum)
	}
	if age < 3600 {
		t.Errorf("the age of the last renewal is %v s, want an hour", age)
	}
}
