// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Command chaos injects faults into replicas of the example controller and checks
// their behaviour: see package chaos. It exits with 1 if a check fails.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/chaos"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	o := chaos.Defaults()
	var only, build string
	flag.StringVar(&o.Dir, "out", "", "`directory` for the report, the timeline, logs and records; empty: a new one")
	flag.DurationVar(&o.Duration, "duration", o.Duration, "minimum time during which faults are injected")
	flag.Uint64Var(&o.Seed, "seed", uint64(time.Now().UnixNano()%1e6), "seed for the order and the times of the faults")
	flag.IntVar(&o.Replicas, "replicas", o.Replicas, "`number` of Pods")
	flag.IntVar(&o.Objects, "objects", o.Objects, "`number` of Foos")
	flag.Float64Var(&o.Rate, "rate", o.Rate, "changes of Foos per second")
	flag.IntVar(&o.Partitions, "partitions", o.Partitions, "`number` of partitions")
	flag.DurationVar(&o.LeaseDuration, "lease-duration", o.LeaseDuration, "lease duration of the members")
	flag.DurationVar(&o.Outage, "outage", o.Outage, "how long the API server is unavailable in the longest fault")
	flag.StringVar(&only, "only", "", "`names` of the faults to inject, separated by semicolons; empty: all")
	flag.StringVar(&build, "buildflags", "", "additional `flags` for the build of the replicas, such as -race")
	list := flag.Bool("list", false, "print the names of all faults and exit")
	flag.Parse()
	if *list {
		fmt.Println(strings.Join(o.Kinds, "\n"))
		return nil
	}
	if only != "" {
		o.Kinds = strings.Split(only, ";")
	}
	o.BuildFlags = strings.Fields(build)
	o.Progress = os.Stderr
	if o.Dir == "" {
		var err error
		if o.Dir, err = os.MkdirTemp("", "chaos-"); err != nil {
			return err
		}
	}

	// The first signal ends the run gracefully: no process is left running.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal kills this process and all that it has started
	defer stop()
	result, err := chaos.Run(ctx, o)
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted")
	}
	if err != nil {
		return err
	}
	fmt.Printf("%s\ntimeline:         %s\nlogs and records: %s\n", result.Text(), filepath.Join(o.Dir, chaos.TimelineFile), o.Dir)
	if result.Err() != nil {
		return errors.New("the run failed")
	}
	return nil
}
