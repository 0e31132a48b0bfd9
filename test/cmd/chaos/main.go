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
	os.Exit(run())
}

func run() int {
	var o chaos.Options
	var only, build string
	flag.StringVar(&o.Dir, "out", "", "`directory` for the report, the timeline, logs and records; empty: a new one")
	flag.DurationVar(&o.Duration, "duration", 10*time.Minute, "minimum time during which faults are injected")
	flag.Uint64Var(&o.Seed, "seed", uint64(time.Now().UnixNano()%1e6), "seed for the order and the times of the faults")
	flag.IntVar(&o.Replicas, "replicas", 0, "`number` of Pods; 0: 5")
	flag.IntVar(&o.Objects, "objects", 0, "`number` of Foos; 0: 120")
	flag.Float64Var(&o.Rate, "rate", 0, "changes of Foos per second; 0: 30")
	flag.IntVar(&o.Partitions, "partitions", 0, "`number` of partitions; 0: 64")
	flag.DurationVar(&o.LeaseDuration, "lease-duration", 0, "lease duration of the members; 0: 5s")
	flag.DurationVar(&o.Outage, "outage", 0, "how long the API server is unavailable in the longest fault; 0: 1m")
	flag.StringVar(&only, "only", "", "`names` of the faults to inject, separated by semicolons; empty: all")
	flag.StringVar(&build, "buildflags", "", "additional `flags` for the build of the replicas, such as -race")
	list := flag.Bool("list", false, "print the names of all faults and exit")
	flag.Parse()
	if *list {
		fmt.Println(strings.Join(chaos.Kinds(), "\n"))
		return 0
	}
	if only != "" {
		o.Kinds = strings.Split(only, ";")
	}
	o.BuildFlags = strings.Fields(build)
	o.Progress = os.Stderr
	if o.Dir == "" {
		dir, err := os.MkdirTemp("", "chaos-")
		if err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
			return 1
		}
		o.Dir = dir
	}

	// The first signal ends the run gracefully: no process is left running.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal kills this process and all that it has started
	defer stop()
	result, err := chaos.Run(ctx, o)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := result.WriteText(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Printf("\ntimeline:         %s\nlogs and records: %s\n", filepath.Join(o.Dir, chaos.TimelineFile), o.Dir)
	if result.Err() != nil {
		return 1
	}
	return 0
}
