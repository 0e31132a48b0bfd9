// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard"
)

// Options are set by flags; see [Options.Parse].
type Options struct {
	Kubeconfig string
	QPS        float64
	Burst      int

	WatchNamespace string
	Workers        int
	Resync         time.Duration

	// Shard configures the ring. The replica's identity comes from the environment: POD_NAME, POD_NAMESPACE, POD_UID.
	// Fields that the flags leave zero get the library's defaults, which depend on each other. Therefore the flags do not
	// start from shard.DefaultConfig, which would set them too early.
	Shard shard.Config

	HTTPAddress string
}

// Parse adds a flag for each option to those that flags already has, reads the command line, and checks what can be checked
// without a ring. The error names every fault. It is [flag.ErrHelp] if the user requested help.
func (o *Options) Parse(flags *flag.FlagSet, args []string) error {
	flags.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig `file`; empty: the service account of the Pod")
	flags.Float64Var(&o.QPS, "kube-api-qps", 100, "`requests` per second that the controller may send (heartbeats are not counted)")
	flags.IntVar(&o.Burst, "kube-api-burst", 200, "`requests` that it may send at once")

	flags.StringVar(&o.WatchNamespace, "watch-namespace", "", "`namespace` whose Foos are reconciled; empty: all namespaces")
	flags.IntVar(&o.Workers, "workers", 4, "`number` of Foos that this replica reconciles concurrently")
	flags.DurationVar(&o.Resync, "resync", 10*time.Minute, "how often each Foo is reconciled without a change; 0: never")

	flags.StringVar(&o.Shard.Name, "name", "foo-operator", "`name` of the ring: the same for all replicas, and unique in the namespace")
	flags.StringVar(&o.Shard.Name, "ring", "foo-operator", "alias of --name")
	flags.DurationVar(&o.Shard.LeaseDuration, "lease-duration", shard.DefaultLeaseDuration, "how long a silent replica keeps what it owns; whole seconds")
	flags.DurationVar(&o.Shard.RenewDeadline, "renew-deadline", 0, "how long a replica may work after a heartbeat; 0: 3/5 of --lease-duration")
	flags.DurationVar(&o.Shard.RenewPeriod, "heartbeat", 0, "time between two heartbeats; 0: 1/5 of --lease-duration")
	flags.DurationVar(&o.Shard.DrainGrace, "drain-grace", shard.DefaultDrainGrace, "how long a reconcile may continue when its Foo is handed over, before its context is cancelled; negative: not at all")
	flags.DurationVar(&o.Shard.DrainTimeout, "drain-timeout", shard.DefaultDrainTimeout, "how long a reconcile may continue after its context was cancelled because its Foo is handed over")
	flags.IntVar(&o.Shard.Partitions, "partitions", 0, "`number` of partitions of the hash space; 0: the library's default")

	flags.StringVar(&o.HTTPAddress, "http-address", ":8080", "`address` of /metrics, /healthz, /readyz and /debug/shard; empty: not served")
	klog.InitFlags(flags)

	if err := flags.Parse(args); err != nil {
		return err
	}
	return o.validate(flags.Args())
}

func (o *Options) validate(rest []string) error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(rest) > 0 {
		fault("unexpected argument %q: only flags are accepted", rest[0])
	}
	if o.Workers < 1 {
		fault("--workers: %d must be at least 1", o.Workers)
	}
	if o.QPS <= 0 {
		fault("--kube-api-qps: %v must be greater than 0", o.QPS)
	}
	if o.Burst < 1 {
		fault("--kube-api-burst: %d must be at least 1", o.Burst)
	}
	if o.Resync < 0 {
		fault("--resync: %v must not be negative", o.Resync)
	}
	// Zero would be treated as "not set".
	if o.Shard.Name == "" {
		fault("--name: must not be empty")
	}
	if o.Shard.LeaseDuration <= 0 {
		fault("--lease-duration: %v must be greater than 0", o.Shard.LeaseDuration)
	}
	if o.Shard.DrainGrace == 0 {
		fault("--drain-grace: 0 means the default; use a negative value for no grace period")
	}
	if o.Shard.DrainTimeout <= 0 {
		fault("--drain-timeout: %v must be greater than 0", o.Shard.DrainTimeout)
	}
	if o.HTTPAddress != "" {
		if _, _, err := net.SplitHostPort(o.HTTPAddress); err != nil {
			fault("--http-address: %w", err)
		}
	}
	return errors.Join(errs...)
}

// RESTConfig returns the configuration for access to the API server.
func (o *Options) RESTConfig() (*rest.Config, error) {
	if o.Kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("--kubeconfig is not set, and there is no service account of a Pod: %w", err)
		}
		return config, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	return config, nil
}
