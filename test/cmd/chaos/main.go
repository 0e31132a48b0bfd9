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
	o.Seed = uint64(time.Now().UnixNano() % 1e6)
	o.Flags(flag.CommandLine)
	list := flag.Bool("list", false, "print the names of all faults and exit")
	flag.Parse()
	if *list {
		fmt.Println(strings.Join(chaos.Kinds(), "\n"))
		return nil
	}
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
