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

// Options of a run. Dir is required; zero means the default.
type Options struct {
	// Dir is the directory for the report, the timeline, logs and records. It is created
	// if it does not exist.
	Dir string
	// Duration is the minimum time during which faults are injected: each kind is
	// injected once in any case. Default 10 minutes. Starting, settling and checking take
	// about another minute and a half.
	Duration time.Duration
	// Seed determines the order of the faults, their targets and their times. Their
	// effects on the processes depend on the machine.
	Seed uint64
	// Replicas is the number of Pods; default 5, at least 3.
	Replicas int
	// Objects is the number of Foos; default 120.
	Objects int
	// Rate is the number of changes of Foos per second; default 30.
	Rate float64
	// Partitions is the number of partitions of the ring; default 64, so that a person
	// can distinguish them in the timeline.
	Partitions int
	// LeaseDuration is the lease duration of the members; default 5 s.
	LeaseDuration time.Duration
	// Outage is the time for which the API server is unavailable in the longest fault;
	// default one minute.
	Outage time.Duration
	// Kinds are the faults to inject, by name; default all.
	Kinds []string
	// BuildFlags are additional flags for the build of the replicas, Env additional
	// environment variables for them. They serve to show that the checks catch a faulty
	// replica.
	BuildFlags []string
	Env        []string
	// Progress receives a line for each fault. Default: discarded.
	Progress io.Writer `json:"-"`
}

func (o Options) withDefaults() Options {
	or := func(value *time.Duration, fallback time.Duration) {
		if *value == 0 {
			*value = fallback
		}
	}
	or(&o.Duration, 10*time.Minute)
	or(&o.LeaseDuration, 5*time.Second)
	or(&o.Outage, time.Minute)
	if o.Replicas == 0 {
		o.Replicas = 5
	}
	if o.Objects == 0 {
		o.Objects = 120
	}
	if o.Rate == 0 {
		o.Rate = 30
	}
	if o.Partitions == 0 {
		o.Partitions = 64
	}
	if len(o.Kinds) == 0 {
		for _, k := range kinds {
			o.Kinds = append(o.Kinds, k.name)
		}
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Dir == "" {
		fault("Dir is not set")
	}
	if o.Replicas < 3 {
		fault("%d replicas: at least 3 are needed, so that others can take over", o.Replicas)
	}
	if o.Objects < 1 || o.Rate <= 0 || o.Partitions < 1 || o.Duration < 0 || o.Outage < 0 {
		fault("objects, rate and partitions must be greater than 0; durations must not be negative")
	}
	if o.LeaseDuration < time.Second || o.LeaseDuration%time.Second != 0 {
		fault("lease duration %v: must be whole seconds, at least one", o.LeaseDuration)
	}
	for _, name := range o.Kinds {
		if !slices.ContainsFunc(kinds, func(k kind) bool { return k.name == name }) {
			fault("unknown fault %q", name)
		}
	}
	return errors.Join(errs...)
}

// Kinds returns the names of all faults.
func Kinds() (names []string) {
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// renewDeadline returns the library's renew deadline for the lease duration.
func (o Options) renewDeadline() time.Duration { return o.LeaseDuration * 3 / 5 }
