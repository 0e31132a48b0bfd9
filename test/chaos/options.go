// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Options of a run. Change the result of [Defaults]. [Options.Flags] describes most of them.
type Options struct {
	Dir               string // required, and created if it does not exist
	Duration          time.Duration
	Seed              uint64
	Replicas, Objects int
	Rate              float64
	Partitions        int
	LeaseDuration     time.Duration
	Outage            time.Duration
	Kinds             []string
	// BuildFlags are additional flags for the build of the replicas, Env additional
	// environment variables for them. They serve to show that the checks catch a faulty
	// replica.
	BuildFlags []string
	Env        []string
	// Progress receives a line for each fault.
	Progress io.Writer `json:"-"`
}

// Defaults returns the options of make chaos, without a directory. A person can distinguish so
// many partitions in the timeline.
func Defaults() Options {
	return Options{
		Duration: 10 * time.Minute, Replicas: 5, Objects: 120, Rate: 30, Partitions: 64,
		LeaseDuration: 5 * time.Second, Outage: time.Minute, Kinds: Kinds(), Progress: io.Discard,
	}
}

// Kinds returns the names of all faults.
func Kinds() []string { return names(kinds) }

func names(kinds []kind) (names []string) {
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// Flags adds the options to the flags of a command.
func (o *Options) Flags(flags *flag.FlagSet) {
	flags.StringVar(&o.Dir, "out", o.Dir, "`directory` for the report, the timeline, logs and records; empty: a new one")
	flags.DurationVar(&o.Duration, "duration", o.Duration, "minimum time during which faults are injected; each is injected at least once")
	flags.Uint64Var(&o.Seed, "seed", o.Seed, "seed for the order, the targets and the times of the faults")
	flags.IntVar(&o.Replicas, "replicas", o.Replicas, "`number` of Pods, at least 3")
	flags.IntVar(&o.Objects, "objects", o.Objects, "`number` of Foos")
	flags.Float64Var(&o.Rate, "rate", o.Rate, "changes of Foos per second")
	flags.IntVar(&o.Partitions, "partitions", o.Partitions, "`number` of partitions")
	flags.DurationVar(&o.LeaseDuration, "lease-duration", o.LeaseDuration, "lease duration of the members, in whole seconds")
	flags.DurationVar(&o.Outage, "outage", o.Outage, "how long the API server is unavailable in the longest fault")
	flags.Func("only", "`names` of the faults to inject, separated by semicolons; empty: all", func(names string) error {
		if o.Kinds = Kinds(); names != "" {
			o.Kinds = strings.Split(names, ";")
		}
		return nil
	})
	flags.BoolFunc("pairs", "inject only the pairs of faults", func(string) error {
		o.Kinds = names(pairFaults)
		return nil
	})
	flags.Func("buildflags", "additional `flags` for the build of the replicas, such as -race", func(text string) error {
		o.BuildFlags = strings.Fields(text)
		return nil
	})
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
