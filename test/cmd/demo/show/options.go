// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

// options are what the user may choose.
type options struct {
	kubeconfig string // empty: a local control plane
	context    string
	objects    int
	changes    int           // of objects, each second
	lease      time.Duration // of the members
	pause      time.Duration // between two steps, to look at the result
	fast       bool
	keep       string // directory for logs and records; empty: they are removed
}

const (
	fastLease = 5 * time.Second
	fastPause = 1500 * time.Millisecond
)

// parse parses the command line. The error is flag.ErrHelp if help was requested.
func parse(args []string, messages io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(messages)
	flags.Usage = func() {
		fmt.Fprint(messages, "Shows replicas of an operator sharing their objects.\n\nFlags:\n")
		flags.PrintDefaults()
	}
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "run on the cluster of this `file`, in a namespace that is created and deleted;\nempty: build and start a local control plane for the demo")
	flags.StringVar(&o.context, "context", "", "`context` of the kubeconfig, if not the current one")
	flags.IntVar(&o.objects, "objects", 300, "number of Foos")
	flags.IntVar(&o.changes, "changes", 20, "changes of Foos per second; 0 for none")
	flags.DurationVar(&o.lease, "lease-duration", 15*time.Second, "how long a killed replica keeps its objects; whole seconds")
	flags.DurationVar(&o.pause, "pause", 8*time.Second, "time to look at the result of each step")
	flags.BoolVar(&o.fast, "fast", false, fmt.Sprintf("run faster, for example in CI: -lease-duration %v -pause %v", fastLease, fastPause))
	flags.StringVar(&o.keep, "keep", "", "keep the replicas' logs and records in this `directory`")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if o.fast && !given["lease-duration"] {
		o.lease = fastLease
	}
	if o.fast && !given["pause"] {
		o.pause = fastPause
	}
	return o, o.validate()
}

func (o options) validate() error {
	var errs []error
	if o.objects < 1 || o.objects > 10000 {
		errs = append(errs, fmt.Errorf("-objects %d: must be between 1 and 10000", o.objects))
	}
	if o.changes < 0 || o.changes > 1000 {
		errs = append(errs, fmt.Errorf("-changes %d: must be between 0 and 1000", o.changes))
	}
	if o.lease < time.Second || o.lease%time.Second != 0 {
		errs = append(errs, fmt.Errorf("-lease-duration %v: must be whole seconds, at least one", o.lease))
	}
	if o.pause < 0 {
		errs = append(errs, fmt.Errorf("-pause %v: must not be negative", o.pause))
	}
	if o.context != "" && o.kubeconfig == "" {
		errs = append(errs, errors.New("-context: needs -kubeconfig"))
	}
	if o.kubeconfig != "" {
		if _, err := os.Stat(o.kubeconfig); err != nil {
			errs = append(errs, fmt.Errorf("-kubeconfig: %w", err))
		}
	}
	return errors.Join(errs...)
}

// takeover is the time within which other members must have taken over the objects of a
// killed member: its Lease must expire, and a member that notices this must act.
func (o options) takeover() time.Duration { return o.lease + 2*time.Second }
