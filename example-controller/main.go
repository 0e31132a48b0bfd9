// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

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
)

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	var o operator.Options
	flags := flag.NewFlagSet("example-controller", flag.ContinueOnError)
	err := o.Parse(flags, os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "example-controller: invalid command line:\n%v\n", err)
		os.Exit(exitUsage)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code, err := run(ctx, o)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Failed")
	}
	klog.FlushAndExit(klog.ExitFlushTimeout, code)
}

func run(ctx context.Context, o operator.Options) (exitCode int, err error) {
	config, err := o.RESTConfig()
	if err != nil {
		return exitUsage, err
	}
	op, err := operator.NewForConfig(config, o)
	if err != nil {
		return exitUsage, err
	}
	if err := op.Run(ctx); err != nil {
		return exitFailed, err
	}
	return 0, nil
}
