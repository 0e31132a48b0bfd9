// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"maps"
	"time"
)

// The methods below are those of the predecessor of this library, for programs that were
// written for it. Each of them sets fields of Config, and does nothing else.

// WithPodName returns a copy with another PodName.
func (c Config) WithPodName(name string) Config { c.PodName = name; return c }

// WithNamespace returns a copy with another Namespace.
func (c Config) WithNamespace(namespace string) Config { c.Namespace = namespace; return c }

// WithLeasePrefix returns a copy with another LeasePrefix.
func (c Config) WithLeasePrefix(prefix string) Config { c.LeasePrefix = prefix; return c }

// WithLeaseLabels returns a copy with other LeaseLabels.
func (c Config) WithLeaseLabels(labels map[string]string) Config {
	c.LeaseLabels = maps.Clone(labels)
	return c
}

// WithKey returns a copy with another Key.
func (c Config) WithKey(key Key) Config { c.Key = key; return c }

// WithHeartbeat returns a copy with another interval between heartbeats and another
// duration of the Lease. The other times are derived from the duration.
func (c Config) WithHeartbeat(interval, duration time.Duration) Config {
	c.RenewPeriod, c.LeaseDuration = interval, duration
	c.RenewDeadline, c.StopGracePeriod, c.WatchLagLimit = 0, 0, 0
	return c
}

// WithHashRing returns a copy with other ring parameters.
func (c Config) WithHashRing(partitions, virtualNodes int, load float64) Config {
	c.Partitions, c.VirtualNodes, c.Load = partitions, virtualNodes, load
	return c
}
