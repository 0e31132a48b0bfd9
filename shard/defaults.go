// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"os"
	"strings"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// The defaults of [Config].
const (
	DefaultLeaseDuration    = 15 * time.Second
	DefaultDrainTimeout     = 30 * time.Second
	DefaultDeletionWindow   = 60 * time.Second
	DefaultStartupSettle    = time.Second
	DefaultCacheSyncTimeout = 5 * time.Second
)

// The environment variables that [Config] reads. Set them from the downward API.
const (
	EnvPodName      = "POD_NAME"
	EnvPodNamespace = "POD_NAMESPACE"
	EnvPodUID       = "POD_UID"
)

// DefaultConfig returns the defaults for the ring of the given name, with the
// identity from the environment. Times that are derived from LeaseDuration
// stay zero, so that they follow when LeaseDuration is changed.
func DefaultConfig(name string) Config { return Config{Name: name}.withIdentity().withConstants() }

// WithDefaults returns a copy in which every field that was zero has its default.
// [New] uses this copy.
func (c Config) WithDefaults() Config { return c.withIdentity().withConstants().withTimes() }

func (c Config) withIdentity() Config {
	if c.PodName == "" {
		c.PodName = os.Getenv(EnvPodName)
	}
	if c.PodName == "" {
		host, _ := os.Hostname() // Validate rejects an empty name
		c.PodName = strings.ToLower(host)
	}
	if c.Namespace == "" {
		c.Namespace = os.Getenv(EnvPodNamespace)
	}
	if c.Namespace == "" {
		if text, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace"); err == nil {
			c.Namespace = strings.TrimSpace(string(text))
		}
	}
	if c.PodUID == "" {
		c.PodUID = os.Getenv(EnvPodUID)
	}
	if c.LeasePrefix == "" && c.Name != "" {
		c.LeasePrefix = c.Name + "-"
	}
	return c
}

func (c Config) withConstants() Config {
	if c.Key.Name() == "" {
		c.Key = ByName
	}
	c.Partitions = or(c.Partitions, ring.DefaultPartitions)
	c.VirtualNodes = or(c.VirtualNodes, ring.DefaultVirtualNodes)
	c.Load = or(c.Load, ring.DefaultLoad)
	c.DrainTimeout = or(c.DrainTimeout, DefaultDrainTimeout)
	c.DeletionWindow = or(c.DeletionWindow, DefaultDeletionWindow)
	c.StartupSettle = or(c.StartupSettle, DefaultStartupSettle)
	c.CacheSyncTimeout = or(c.CacheSyncTimeout, DefaultCacheSyncTimeout)
	c.LeaseDuration = or(c.LeaseDuration, DefaultLeaseDuration)
	return c
}

// withTimes derives the times that are not set from LeaseDuration.
func (c Config) withTimes() Config {
	c.RenewDeadline = or(c.RenewDeadline, c.LeaseDuration*3/5)
	c.RenewPeriod = or(c.RenewPeriod, c.LeaseDuration/5)
	c.StopGracePeriod = or(c.StopGracePeriod, c.LeaseDuration*2/15)
	c.WatchLagLimit = or(c.WatchLagLimit, c.LeaseDuration*2/5)
	return c
}

func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}
