// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/tom-ludwig/operator-scaling/shard"
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
		}, []string{"key: name"}},
		"partitions":       {func(c *shard.Config) { c.Partitions = -1 }, []string{"partitions: -1"}},
		"load":             {func(c *shard.Config) { c.Load = 0.5 }, []string{"load: 0.5"}},
		"virtual nodes":    {func(c *shard.Config) { c.VirtualNodes = -3 }, []string{"virtual nodes: -3"}},
		"too long a lease": {func(c *shard.Config) { c.LeaseDuration = time.Hour + time.Second }, []string{"LeaseDuration: 1h0m1s must be", "at most 1h0m0s"}},
		"too long a UID":   {func(c *shard.Config) { c.PodUID = strings.Repeat("x", 65) }, []string{"PodUID: ", "more than 64 characters"}},
		"part of seconds":  {func(c *shard.Config) { c.LeaseDuration = 1500 * time.Millisecond }, []string{"LeaseDuration: 1.5s must be a whole number of seconds"}},
		"slow heartbeat":   {func(c *shard.Config) { c.RenewPeriod = 5 * time.Second }, []string{"RenewDeadline: 9s must be more than twice RenewPeriod"}},
		"no margin":        {func(c *shard.Config) { c.RenewDeadline = 14 * time.Second }, []string{"is too close to RenewDeadline"}},
		"watch lag limit":  {func(c *shard.Config) { c.WatchLagLimit = time.Second }, []string{"WatchLagLimit:"}},
		"DrainGrace":       {func(c *shard.Config) { c.DrainGrace = 61 * time.Minute }, []string{"DrainGrace:"}},
		"several":          {func(c *shard.Config) { c.Name, c.Load, c.DrainTimeout = "", 0.1, -1 }, []string{"Name:", "load:", "DrainTimeout:"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := good
			test.change(&c)
			err := c.Validate()
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not contain %q", err, want)
				}
			}
		})
	}
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
