// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Command demo shows in the terminal how replicas of one operator share their work. Three replicas, each a separate process,
// work on a few hundred Foos. One more joins, one is stopped, and one is killed; each time, other replicas take over its
// objects. At the end the demo prints the costs. It fails if two replicas worked on an object at the same time, or if an
// object was not processed.
//
// It runs on a local control plane (etcd and kube-apiserver, compiled from the Go module proxy, which takes minutes the
// first time). With -kubeconfig it runs on your cluster, in a namespace that it creates and deletes.
//
// The screen shows what the replicas report on their status pages (/debug/shard). The figures and the verdict come from the
// records that the replicas write (package worklog).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// Exit codes.
const (
	exitFailed      = 1 // the demo could not run, or showed that a guarantee was violated
	exitUsage       = 2
	exitInterrupted = 130 // as in shells
)

func main() { os.Exit(command()) }

func command() int {
	o, err := parse(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return exitUsage
	}
	// client-go's log messages about servers that start and stop would disturb the screen.
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	rest.SetDefaultWarningHandler(rest.NoWarnings{})

	out := openDisplay(os.Stdout)
	// The demo cleans up after a closed pipe (make demo | head) and a closed terminal as well, and never ends at these signals.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	ctx, stopInterrupt := signal.NotifyContext(ctx, os.Interrupt)
	defer stopInterrupt()
	quiet := context.AfterFunc(ctx, func() {
		stopInterrupt() // the next one ends the demo, and the kernel then ends the replicas
		out.say(paint(warn, "Interrupted: cleaning up. Press Ctrl-C again to stop without cleaning up."))
	})
	err, left := newDemo(o, out).run(ctx)
	quiet()

	code := 0
	switch {
	case ctx.Err() != nil:
		code = exitInterrupted
	case err != nil:
		code = exitFailed
		out.say(paint(bad, err.Error()))
	}
	if left == nil {
		out.say(paint(faint, "Cleaned up: the demo left no process, file or object behind."))
	} else {
		code = max(code, exitFailed)
		out.say(paint(bad, "Not cleaned up: "+left.Error()))
	}
	return code
}

// options are what the user may choose.
type options struct {
	kubeconfig string // empty: a local control plane
	objects    int
	changes    int           // of objects, each second
	lease      time.Duration // of the members
	pause      time.Duration // between two steps, to look at the result
	keep       string        // directory for logs and records; empty: they are removed
}

// parse parses the command line. The error is flag.ErrHelp if help was requested.
func parse(args []string, messages io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(messages)
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "run on the cluster of this `file`, in a namespace that is created and deleted;\nempty: build and start a local control plane for the demo")
	flags.IntVar(&o.objects, "objects", 300, "number of Foos")
	flags.IntVar(&o.changes, "changes", 20, "changes of Foos per second; 0 for none")
	flags.DurationVar(&o.lease, "lease-duration", 15*time.Second, "how long a killed replica keeps its objects; whole seconds")
	flags.DurationVar(&o.pause, "pause", 8*time.Second, "time to look at the result of each step")
	flags.StringVar(&o.keep, "keep", "", "keep the replicas' logs and records in this `directory`, which must not exist yet")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var errs []error
	refuse := func(invalid bool, format string, args ...any) {
		if invalid {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	refuse(flags.NArg() > 0, "unexpected argument %q", flags.Arg(0))
	refuse(o.objects < 1 || o.objects > 10000, "-objects %d: must be between 1 and 10000", o.objects)
	refuse(o.changes < 0 || o.changes > 1000, "-changes %d: must be between 0 and 1000", o.changes)
	refuse(o.lease < time.Second || o.lease%time.Second != 0, "-lease-duration %v: must be whole seconds, at least one", o.lease)
	refuse(o.pause < 0, "-pause %v: must not be negative", o.pause)
	if o.kubeconfig != "" {
		_, err := os.Stat(o.kubeconfig)
		refuse(err != nil, "-kubeconfig: %w", err)
	}
	return o, errors.Join(errs...)
}
