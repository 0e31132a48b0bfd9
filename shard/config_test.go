// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

func TestConfig_Defaults(t *testing.T) {
	t.Setenv(shard.EnvPodName, "op-0")
	t.Setenv(shard.EnvPodNamespace, "system")
	t.Setenv(shard.EnvPodUID, "1234")
	c := shard.DefaultConfig("foo")
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	c = c.WithDefaults()
	if c.PodName != "op-0" || c.Namespace != "system" || c.PodUID != "1234" || c.LeasePrefix != "foo-" {
		t.Errorf("identity %+v", c)
	}
	if c.LeaseDuration != 15*time.Second || c.RenewDeadline != 9*time.Second || c.RenewPeriod != 3*time.Second || c.StopGracePeriod != 2*time.Second || c.WatchLagLimit != 6*time.Second {
		t.Errorf("times %+v", c)
	}
	if c.Partitions != 509 || c.VirtualNodes != 20 || c.Load != 1.25 || c.Key.Name() != "name" {
		t.Errorf("ring %+v", c)
	}
	if d := c.Drift(); d < 0.15 || d > 0.16 {
		t.Errorf("tolerates a drift of %v, want about 15 %%", d)
	}
}

func TestConfig_WithHeartbeatDerivesTheTimes(t *testing.T) {
	c := shard.DefaultConfig("foo").WithPodName("a").WithNamespace("b").WithHeartbeat(10*time.Second, time.Minute).WithDefaults()
	if c.RenewPeriod != 10*time.Second || c.LeaseDuration != time.Minute || c.RenewDeadline != 36*time.Second || c.StopGracePeriod != 8*time.Second || c.WatchLagLimit != 24*time.Second {
		t.Errorf("times %+v", c)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestConfig_ValidateReportsEveryError(t *testing.T) {
	good := shard.DefaultConfig("foo").WithPodName("a").WithNamespace("b")
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		change func(*shard.Config)
		want   []string
	}{
		"no name":      {func(c *shard.Config) { c.Name = "" }, []string{"Name: is required"}},
		"bad name":     {func(c *shard.Config) { c.Name = "Foo_Bar" }, []string{`Name: "Foo_Bar"`}},
		"bad pod":      {func(c *shard.Config) { c.PodName = "UPPER" }, []string{"PodName:"}},
		"no namespace": {func(c *shard.Config) { c.Namespace = "" }, []string{"POD_NAMESPACE"}},
		"bad prefix":   {func(c *shard.Config) { c.LeasePrefix = "-x" }, []string{"LeasePrefix:"}},
		"bad label":    {func(c *shard.Config) { c.LeaseLabels = map[string]string{"a b": "c"} }, []string{"LeaseLabels:"}},
		"label of the ring": {
			func(c *shard.Config) {
				c.LeaseLabels = map[string]string{"operator-scaling.tom-ludwig.github.io/ring": "foo"}
			},
			[]string{`LeaseLabels: "operator-scaling.tom-ludwig.github.io/ring": the prefix operator-scaling.tom-ludwig.github.io/ is reserved for this library`},
		},
		"label of this project": {
			func(c *shard.Config) {
				c.LeaseLabels = map[string]string{"operator-scaling.tom-ludwig.github.io/team": "x"}
			},
			[]string{`LeaseLabels: "operator-scaling.tom-ludwig.github.io/team"`},
		},
		"dependent's key": {func(c *shard.Config) { c.Key = shard.ByController }, []string{"Key: controller is only for the informers of dependents"}},
		"no function":     {func(c *shard.Config) { c.Key = shard.ByFunc("x", nil) }, []string{"Key:"}},
		"bad key name": {func(c *shard.Config) {
			c.Key = shard.ByFunc("Not/Good", func(metav1.Object) string { return "" })
		}, []string{"Key: name"}},
		"partitions":       {func(c *shard.Config) { c.Partitions = -1 }, []string{"Partitions: -1"}},
		"load":             {func(c *shard.Config) { c.Load = 0.5 }, []string{"Load: 0.5"}},
		"virtual nodes":    {func(c *shard.Config) { c.VirtualNodes = -3 }, []string{"VirtualNodes: -3"}},
		"too long a lease": {func(c *shard.Config) { c.LeaseDuration = time.Hour + time.Second }, []string{"LeaseDuration: 1h0m1s must be", "at most 1h0m0s"}},
		"too long a UID":   {func(c *shard.Config) { c.PodUID = strings.Repeat("x", 65) }, []string{"PodUID: ", "more than 64 characters"}},
		"part of seconds":  {func(c *shard.Config) { c.LeaseDuration = 1500 * time.Millisecond }, []string{"LeaseDuration: 1.5s must be a whole number of seconds"}},
		"slow heartbeat":   {func(c *shard.Config) { c.RenewPeriod = 5 * time.Second }, []string{"RenewPeriod: 5s must be less than 3/10 of LeaseDuration (15s)"}},
		"no margin":        {func(c *shard.Config) { c.RenewDeadline = 14 * time.Second }, []string{"RenewDeadline: 14s and StopGracePeriod (2s) must add up to less than 13.571s with a LeaseDuration of 15s"}},
		"watch lag limit":  {func(c *shard.Config) { c.WatchLagLimit = time.Second }, []string{"WatchLagLimit:"}},
		"DrainGrace":       {func(c *shard.Config) { c.DrainGrace = 61 * time.Minute }, []string{"DrainGrace:"}},
		"forever": {
			func(c *shard.Config) {
				c.DrainTimeout, c.CacheSyncTimeout, c.StartupSettle, c.DeletionWindow = math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64
			},
			[]string{"DrainTimeout:", "CacheSyncTimeout:", "StartupSettle:", "DeletionWindow:"},
		},
		"no swapped heartbeat":         {func(c *shard.Config) { *c = c.WithHeartbeat(15*time.Second, 3*time.Second) }, []string{"RenewPeriod: 15s must be less than 3/10 of LeaseDuration (3s); were the two swapped?"}},
		"a heartbeat for the deadline": {func(c *shard.Config) { c.RenewDeadline, c.RenewPeriod = 6*time.Second, 3*time.Second }, []string{"RenewPeriod: 3s must be less than half of RenewDeadline (6s)"}},
		"a deadline for the heartbeat": {func(c *shard.Config) { c.RenewDeadline = 5 * time.Second }, []string{"RenewDeadline: 5s must be more than twice RenewPeriod (3s)"}},
		"a heartbeat for the watch": {
			func(c *shard.Config) {
				c.LeaseDuration, c.RenewDeadline, c.RenewPeriod, c.StopGracePeriod = 100*time.Second, 85*time.Second, 42*time.Second, time.Second
			},
			[]string{"RenewPeriod: 42s must be at most 2/5 of LeaseDuration (1m40s), or set WatchLagLimit"},
		},
		"a watch for the lease":    {func(c *shard.Config) { c.WatchLagLimit = time.Minute }, []string{"WatchLagLimit: 1m0s must be less than LeaseDuration (15s)"}},
		"a long stop":              {func(c *shard.Config) { c.StopGracePeriod = 6 * time.Second }, []string{"StopGracePeriod: 6s and RenewDeadline (9s) must add up to less than 13.571s"}},
		"a negative time":          {func(c *shard.Config) { c.RenewPeriod = -1 }, []string{"RenewPeriod: -1ns must be greater than 0"}},
		"a short memory":           {func(c *shard.Config) { c.DeletionWindow = time.Second }, []string{"DeletionWindow: 1s must be at least"}},
		"no unit, for a heartbeat": {func(c *shard.Config) { c.RenewPeriod = 3 }, []string{"RenewPeriod: 3ns is too short: it must be at least 10ms; was a unit such as time.Second forgotten?"}},
		"no unit, for a Lease":     {func(c *shard.Config) { c.LeaseDuration = 15 }, []string{"LeaseDuration: 15ns is too short: it must be at least 1s; was a unit such as time.Second forgotten?"}},
		"no unit anywhere": {
			func(c *shard.Config) {
				c.RenewDeadline, c.StopGracePeriod, c.WatchLagLimit, c.DrainGrace, c.DrainTimeout, c.DeletionWindow, c.StartupSettle, c.CacheSyncTimeout = 9, 2, 6, 5, 30, 600, 1, 5
			},
			[]string{"RenewDeadline: 9ns is", "StopGracePeriod: 2ns is", "WatchLagLimit: 6ns is", "DrainGrace: 5ns is", "DrainTimeout: 30ns is", "DeletionWindow: 600ns is", "StartupSettle: 1ns is", "CacheSyncTimeout: 5ns is"},
		},
		"Unfiltered": {func(c *shard.Config) { c.Key = shard.Unfiltered }, []string{"Key: unfiltered is only for informers whose handlers see all objects"}},
		"several":    {func(c *shard.Config) { c.Name, c.Load, c.DrainTimeout = "", 0.1, -1 }, []string{"Name:", "Load:", "DrainTimeout:"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := good
			test.change(&c)
			err := c.Validate()
			if err == nil {
				t.Fatal("accepted")
			}
			if n := strings.Count(err.Error(), "\n") + 1; n > len(test.want) && name != "too long a lease" {
				t.Errorf("%d messages for %d faults:\n%v", n, len(test.want), err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not contain %q", err, want)
				}
			}
		})
	}
}

func TestConfig_NegativeMeansOff(t *testing.T) {
	c := shard.DefaultConfig("foo").WithPodName("a").WithNamespace("b")
	c.StartupSettle, c.CacheSyncTimeout, c.DeletionWindow, c.DrainGrace = -1, -1, -1, -1
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		m := start(t, shardtest.NewCluster().Client("a"), "a", func(c *shard.Config) { c.StartupSettle, c.CacheSyncTimeout = -1, -1 })
		for !m.OwnsKey("x/y") {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("the member waited for %v although StartupSettle is off", took)
		}
	})
}

// Times that were not set follow the lease duration.
func TestConfig_DefaultsFollowTheLeaseDuration(t *testing.T) {
	c := shard.DefaultConfig("foo").WithPodName("a").WithNamespace("b")
	c.LeaseDuration = 5 * time.Second
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if c = c.WithDefaults(); c.RenewDeadline != 3*time.Second || c.RenewPeriod != time.Second {
		t.Errorf("times %+v", c)
	}
}

func TestNew_RejectsAnInvalidConfiguration(t *testing.T) {
	if _, err := shard.New(fake.NewClientset(), shard.Config{Name: "foo", PodName: "a", Namespace: "b", Load: 0.9}); err == nil {
		t.Error("a load below 1 was accepted")
	}
	if _, err := shard.New(nil, shard.Config{Name: "foo", PodName: "a", Namespace: "b"}); err == nil {
		t.Error("a nil client was accepted")
	}
}
