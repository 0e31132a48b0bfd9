// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// changeRecorder records the changes that OnChange received.
type changeRecorder struct{ changes []shard.Change }

func (d *changeRecorder) keep(c *shard.Config) {
	c.OnChange = func(c shard.Change) { d.changes = append(d.changes, c) }
}

// take returns the kinds of the changes since the last call.
func (d *changeRecorder) take() (kinds []shard.ChangeKind) {
	for _, c := range d.changes {
		kinds = append(kinds, c.Kind)
	}
	d.changes = nil
	return slices.Compact(kinds)
}

func want(t *testing.T, d *changeRecorder, kinds ...shard.ChangeKind) {
	t.Helper()
	if got := d.take(); !slices.Equal(got, kinds) {
		t.Errorf("OnChange received %v, want %v", got, kinds)
	}
}

func TestOnChange_ReceivesEachStepInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		var d changeRecorder
		a := start(t, cluster.Client("a"), "a", d.keep)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := len(d.changes); n != 2 || len(d.changes[1].Partitions) != 509 || d.changes[1].Member != a.Identity() {
			t.Errorf("the only member received %v", d.changes)
		}
		want(t, &d, shard.Joined, shard.Activated)

		b := start(t, cluster.Client("b"), "b")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		var drained, released []int
		for _, c := range d.changes {
			switch c.Kind {
			case shard.Draining:
				drained = append(drained, c.Partitions...)
			case shard.Released:
				released = append(released, c.Partitions...)
			}
		}
		if len(drained) == 0 || !slices.Equal(drained, released) {
			t.Errorf("%d partitions were drained, %d released", len(drained), len(released))
		}
		want(t, &d, shard.Draining, shard.Released)

		cluster.Break("a", shardtest.Unreachable)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		want(t, &d, shard.Fenced)
		cluster.Break("a", shardtest.None)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		// It may have been evicted meanwhile: it works again when a list has shown its claims (R52).
		want(t, &d, shard.Draining, shard.Unfenced, shard.Activated)

		// Its Lease is evicted: it joins again with a new identity.
		former := a.Identity()
		cluster.Break("a", shardtest.Unreachable)
		time.Sleep(20 * time.Second)
		cluster.Break("a", shardtest.None)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		for _, c := range d.changes {
			if left := c.Kind == shard.Left; left && (c.Err == nil || c.Member != former) {
				t.Errorf("%+v, want a reason and the member %s", c, former)
			}
		}
		want(t, &d, shard.Fenced, shard.Left, shard.Joined, shard.Activated)

		if err := a.end(); err != nil {
			t.Error(err)
		}
		if last := d.changes[len(d.changes)-1]; last.Err != nil {
			t.Errorf("a requested stop has the reason %v", last.Err)
		}
		want(t, &d, shard.Draining, shard.Released, shard.Left)
		if err := b.end(); err != nil {
			t.Error(err)
		}
	})
}

func TestMetrics_OfTimeWithoutAnOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		time.Sleep(5 * time.Second)
		b := start(t, cluster.Client("b"), "b")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		moved := testutil.ToFloat64(collected{b.Collector(), "sharding_partitions", "active"})
		count, sum := histogram(t, b.Collector(), "sharding_unowned_duration_seconds")
		if n := float64(count); n != moved || moved == 0 {
			t.Errorf("%v times without an owner were measured for %v partitions", n, moved)
		}
		if mean := sum / moved; mean <= 0 || mean > 1 {
			t.Errorf("partitions were without an owner for %v s on average", mean)
		}
		for _, m := range []*member{a, b} {
			if err := m.end(); err != nil {
				t.Error(err)
			}
		}
	})
}

func histogram(t *testing.T, c prometheus.Collector, name string) (count uint64, sum float64) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			h := f.GetMetric()[0].GetHistogram()
			return h.GetSampleCount(), h.GetSampleSum()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0, 0
}
