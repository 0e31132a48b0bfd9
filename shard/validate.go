// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/tom-ludwig/operator-scaling/shard/internal/lease"
)

// minDrift is the smallest difference between the rates of two clocks that a
// configuration must tolerate.
const minDrift = 0.05

// Validate checks the configuration with its defaults and returns every error, joined
// with errors.Join. [New] calls it.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var errs []error
	fault := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...)))
	}
	if c.Name == "" {
		fault("Name", "is required: it names the ring, e.g. the operator's name")
	} else if problems := validation.IsDNS1123Label(c.Name); len(problems) > 0 {
		fault("Name", "%q is not a valid ring name: %s", c.Name, strings.Join(problems, "; "))
	}
	if c.PodName == "" {
		fault("PodName", "is not known: set the environment variable %s from the downward API (metadata.name)", EnvPodName)
	} else if problems := validation.IsDNS1123Subdomain(c.PodName); len(problems) > 0 {
		fault("PodName", "%q is not a valid Pod name: %s", c.PodName, strings.Join(problems, "; "))
	}
	if c.Namespace == "" {
		fault("Namespace", "is not known: set the environment variable %s from the downward API (metadata.namespace)", EnvPodNamespace)
	} else if problems := validation.IsDNS1123Label(c.Namespace); len(problems) > 0 {
		fault("Namespace", "%q is not a valid namespace name: %s", c.Namespace, strings.Join(problems, "; "))
	}
	if problems := validation.IsDNS1123Subdomain(c.LeasePrefix + "x"); len(problems) > 0 {
		fault("LeasePrefix", "%q is not a valid prefix of a Lease name: %s", c.LeasePrefix, strings.Join(problems, "; "))
	}
	for key, value := range c.LeaseLabels {
		if problems := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...); len(problems) > 0 {
			fault("LeaseLabels", "%q=%q is not a valid label: %s", key, value, strings.Join(problems, "; "))
		}
		if prefix, _, _ := strings.Cut(lease.LabelRing, "/"); strings.HasPrefix(key, prefix+"/") {
			fault("LeaseLabels", "%q: the prefix %s/ is reserved for this library; choose another prefix", key, prefix)
		}
	}
	if c.Key.Name() == ByController.Name() || c.Key.Name() == ByClusterController.Name() {
		fault("Key", "%s is only for the informers of dependents; choose another key for the ring", c.Key.Name())
	} else if _, err := c.Key.Resolve(c.Key); err != nil {
		fault("Key", "%v", err)
	}
	if err := c.parameters().Validate(); err != nil {
		errs = append(errs, err)
	}
	c.validateTimes(fault)
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("shard: invalid configuration: %w", errors.Join(errs...))
}

func (c Config) validateTimes(fault func(field, format string, args ...any)) {
	if c.LeaseDuration < time.Second || c.LeaseDuration%time.Second != 0 || c.LeaseDuration > math.MaxInt32*time.Second {
		fault("LeaseDuration", "%v must be a whole number of seconds, at least one", c.LeaseDuration)
	}
	for _, f := range []struct {
		name  string
		value time.Duration
	}{
		{"RenewDeadline", c.RenewDeadline},
		{"RenewPeriod", c.RenewPeriod},
		{"StopGracePeriod", c.StopGracePeriod},
		{"WatchLagLimit", c.WatchLagLimit},
		{"DrainTimeout", c.DrainTimeout},
		{"DeletionWindow", c.DeletionWindow},
		{"StartupSettle", c.StartupSettle},
		{"CacheSyncTimeout", c.CacheSyncTimeout},
	} {
		if f.value <= 0 {
			fault(f.name, "%v must be greater than 0", f.value)
		}
	}
	if c.RenewDeadline <= 2*c.RenewPeriod {
		fault("RenewDeadline", "%v must be more than twice RenewPeriod (%v): one lost heartbeat must not stop a member", c.RenewDeadline, c.RenewPeriod)
	}
	if c.Drift() < minDrift {
		fault("LeaseDuration", "%v is too close to RenewDeadline + StopGracePeriod (%v): it tolerates clocks whose rates differ by %.1f %%, but %.0f %% are required",
			c.LeaseDuration, c.RenewDeadline+c.StopGracePeriod, 100*c.Drift(), 100*minDrift)
	}
	if c.WatchLagLimit < c.RenewPeriod || c.WatchLagLimit >= c.LeaseDuration {
		fault("WatchLagLimit", "%v must be at least RenewPeriod (%v) and less than LeaseDuration (%v)", c.WatchLagLimit, c.RenewPeriod, c.LeaseDuration)
	}
}

// Drift returns the difference in rate between two members' clocks that the
// configuration tolerates: 0.15 is 15 %.
func (c Config) Drift() float64 {
	c = c.WithDefaults()
	working := (c.RenewDeadline + c.StopGracePeriod).Seconds()
	return (c.LeaseDuration.Seconds() - working) / (c.LeaseDuration.Seconds() + working)
}
