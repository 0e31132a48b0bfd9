// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Command replica is the example controller for tests. It has three more flags: --record-to records all work in a file, for
// package worklog to check, --reconcile-delay adds simulated work to each reconcile, and --block-when-fenced blocks the
// function OnChange.
//
// Its exit codes are those of the example controller.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/example-controller/operator"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code, err := run(ctx, os.Args[1:])
	if err != nil {
		klog.FromContext(ctx).Error(err, "Failed")
	}
	klog.FlushAndExit(klog.ExitFlushTimeout, code)
}

func run(ctx context.Context, args []string) (exitCode int, err error) {
	var o operator.Options
	var r recorder
	flags := flag.NewFlagSet("replica", flag.ContinueOnError)
	path := flags.String("record-to", os.DevNull, "append a line of JSON to this `file` for everything that package worklog checks")
	flags.DurationVar(&r.delay, "reconcile-delay", 0, "simulated work: how long each reconcile waits before it starts,\nunless its Foo is handed over in the meantime")
	flags.BoolVar(&r.blocks, "block-when-fenced", false, "let OnChange block forever when the member is fenced for the first time")
	if err := o.Parse(flags, args); errors.Is(err, flag.ErrHelp) {
		return 0, nil
	} else if err != nil {
		return exitUsage, err
	}
	config, err := o.RESTConfig()
	if err != nil {
		return exitUsage, err
	}
	if r.log, err = worklog.Open(*path, func() string { return r.operator.Sharder.Identity() }); err != nil {
		return exitFailed, fmt.Errorf("--record-to: %w", err)
	}
	config.Wrap(r.wrapTransport)
	o.Shard.OnChange = r.changed
	op, err := operator.NewForConfig(config, o)
	if err != nil {
		return exitUsage, errors.Join(err, r.log.Close())
	}
	r.attach(op)
	// Close the log last: everything that the workers do must be recorded.
	if err := errors.Join(op.Run(ctx), r.log.Close()); err != nil {
		return exitFailed, err
	}
	return 0, nil
}
