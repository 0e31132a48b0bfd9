// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Options of a run. Change the result of [Defaults].
type Options struct {
	// Dir is the directory for the report, the timeline, logs and records. It is required,
	// and created if it does not exist.
	Dir string
	// Duration is the minimum time during which faults are injected: each kind is
	// injected once in any case. Starting, settling and checking take about another minute
	// and a half.
	Duration time.Duration
	// Seed determines the order of the faults, their targets and their times. Their
	// effects on the processes depend on the machine.
	Seed uint64
	// Replicas is the number of Pods, at least 3; Objects is the number of Foos, and Rate
	// the number of changes of Foos per second.
	Replicas, Objects int
	Rate              float64
	// Partitions is the number of partitions of the ring. A person can distinguish the
	// default of 64 in the timeline.
	Partitions int
	// LeaseDuration is the lease duration of the members, in whole seconds.
	LeaseDuration time.Duration
	// Outage is the time for which the API server is unavailable in the longest fault.
	Outage time.Duration
	// Kinds are the faults to inject, by name.
	Kinds []string
	// BuildFlags are additional flags for the build of the replicas, Env additional
	// environment variables for them. They serve to show that the checks catch a faulty
	// replica.
	BuildFlags []string
	Env        []string
	// Progress receives a line for each fault.
	Progress io.Writer `json:"-"`
}

// Defaults returns the options of make chaos, without a directory.
func Defaults() Options {
	o := Options{
		Duration: 10 * time.Minute, Replicas: 5, Objects: 120, Rate: 30, Partitions: 64,
		LeaseDuration: 5 * time.Second, Outage: time.Minute, Progress: io.Discard,
	}
	for _, k := range kinds {
		o.Kinds = append(o.Kinds, k.name)
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(o.Dir != "", "Dir is not set")
	check(o.Replicas >= 3, "%d replicas: at least 3 are needed, so that others can take over", o.Replicas)
	check(o.Objects > 0 && o.Rate > 0 && o.Partitions > 0, "objects, rate and partitions must be greater than 0")
	check(o.Duration >= 0 && o.Outage >= 0, "durations must not be negative")
	check(o.LeaseDuration >= time.Second && o.LeaseDuration%time.Second == 0,
		"lease duration %v: must be whole seconds, at least one", o.LeaseDuration)
	for _, name := range o.Kinds {
		check(slices.ContainsFunc(kinds, func(k kind) bool { return k.name == name }), "unknown fault %q", name)
	}
	return errors.Join(errs...)
}
