// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard"
)

// options are the flags. The replica's identity comes from the environment: POD_NAME, POD_NAMESPACE, POD_UID.
type options struct {
	kubeconfig string
	qps        float64
	burst      int

	watchNamespace string
	workers        int
	resync         time.Duration
	reconcileDelay time.Duration

	ring          string
	leaseDuration time.Duration
	renewDeadline time.Duration
	heartbeat     time.Duration
	drainTimeout  time.Duration
	partitions    int

	httpAddress string
	recordTo    string
}

// parseOptions reads the command line and checks what can be checked without a ring. The error names every fault. It is
// flag.ErrHelp if the user requested help.
func parseOptions(args []string, messages io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("example-controller", flag.ContinueOnError)
	flags.SetOutput(messages)
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig `file`; empty: the service account of the Pod")
	flags.Float64Var(&o.qps, "kube-api-qps", 100, "`requests` per second that the controller may send (heartbeats are not counted)")
	flags.IntVar(&o.burst, "kube-api-burst", 200, "`requests` that it may send at once")

	flags.StringVar(&o.watchNamespace, "watch-namespace", "", "`namespace` whose Foos are reconciled; empty: all namespaces")
	flags.IntVar(&o.workers, "workers", 4, "`number` of Foos that this replica reconciles concurrently")
	flags.DurationVar(&o.resync, "resync", 10*time.Minute, "how often each Foo is reconciled without a change; 0: never")
	flags.DurationVar(&o.reconcileDelay, "reconcile-delay", 0, "simulated work: how long each reconcile waits before it starts,\nunless its Foo is handed over in the meantime; for demos and tests")

	flags.StringVar(&o.ring, "name", "foo-operator", "`name` of the ring: the same for all replicas, and unique in the namespace")
	flags.StringVar(&o.ring, "ring", "foo-operator", "alias of --name")
	flags.DurationVar(&o.leaseDuration, "lease-duration", shard.DefaultLeaseDuration, "how long a silent replica keeps what it owns; whole seconds")
	flags.DurationVar(&o.renewDeadline, "renew-deadline", 0, "how long a replica may work after a heartbeat; 0: 3/5 of --lease-duration")
	flags.DurationVar(&o.heartbeat, "heartbeat", 0, "time between two heartbeats; 0: 1/5 of --lease-duration")
	flags.DurationVar(&o.drainTimeout, "drain-timeout", shard.DefaultDrainTimeout, "how long a reconcile may continue when its Foo is handed over")
	flags.IntVar(&o.partitions, "partitions", 0, "`number` of partitions of the hash space; 0: the library's default")

	flags.StringVar(&o.httpAddress, "http-address", ":8080", "`address` of /metrics, /healthz, /readyz and /debug/shard; empty: not served")
	flags.StringVar(&o.recordTo, "record-to", "", "append a line of JSON to this `file` at the start and the end of each reconcile, and when\npartitions are activated or released")
	klog.InitFlags(flags)

	if err := flags.Parse(args); err != nil {
		return o, err
	}
	return o, o.validate(flags.Args())
}

func (o options) validate(rest []string) error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(rest) > 0 {
		fault("unexpected argument %q: only flags are accepted", rest[0])
	}
	if o.workers < 1 {
		fault("--workers: %d must be at least 1", o.workers)
	}
	if o.qps <= 0 {
		fault("--kube-api-qps: %v must be greater than 0", o.qps)
	}
	if o.burst < 1 {
		fault("--kube-api-burst: %d must be at least 1", o.burst)
	}
	if o.resync < 0 {
		fault("--resync: %v must not be negative", o.resync)
	}
	if o.reconcileDelay < 0 {
		fault("--reconcile-delay: %v must not be negative", o.reconcileDelay)
	}
	// Zero would be treated as "not set".
	if o.ring == "" {
		fault("--name: must not be empty")
	}
	if o.leaseDuration <= 0 {
		fault("--lease-duration: %v must be greater than 0", o.leaseDuration)
	}
	if o.drainTimeout <= 0 {
		fault("--drain-timeout: %v must be greater than 0", o.drainTimeout)
	}
	if o.httpAddress != "" {
		if _, _, err := net.SplitHostPort(o.httpAddress); err != nil {
			fault("--http-address: %w", err)
		}
	}
	return errors.Join(errs...)
}

// restConfig returns the configuration for access to the API server.
func (o options) restConfig() (*rest.Config, error) {
	if o.kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("--kubeconfig is not set, and there is no service account of a Pod: %w", err)
		}
		return config, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	return config, nil
}
