// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package operator is the example controller without its command line.
//
// The code that scales it out is in sharding.go, in operator.go, and in the lines of controller.go that get a context from the
// queue and put a token on every write. The rest is an ordinary controller:
//
//	operator      clients, the order in which the parts start and stop
//	options       the flags and their validation
//	sharding      the sharded informers, the queue
//	controller    event handlers, workers, syncHandler
//	deployment    the Deployment that a Foo specifies
//	server        metrics, probes and the status page
package operator

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned"
	fooscheme "github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned/scheme"
	"github.com/tom-ludwig/operator-scaling/shard"
)

// Operator is everything that runs in the process: the member of the ring, the informers, the controller, and the HTTP server.
type Operator struct {
	Sharder    *shard.Sharder
	Controller *Controller

	options    Options
	kubeClient kubernetes.Interface
	sharded    sharded
	metrics    *queueMetrics
}

// NewForConfig creates the clients, the member of the ring, and the controller. It starts nothing. It sets OnOverrun of the
// ring's configuration, so that the process ends if work continues although the member is fenced.
func NewForConfig(config *rest.Config, o Options) (*Operator, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = float32(o.QPS), o.Burst
	// The ring has its own client: its requests have their own user agent, and do not pass through WrapTransport.
	// Heartbeats do not wait for its rate limit.
	shardClient, err := kubernetes.NewForConfig(rest.AddUserAgent(rest.CopyConfig(config), "shard"))
	if err != nil {
		return nil, fmt.Errorf("create client: %w", err)
	}
	o.Shard.OnOverrun = exitOnOverrun
	s, err := shard.New(shardClient, o.Shard)
	if err != nil {
		return nil, err
	}
	// Check again just before each request is sent, because the process may have been paused since the last check; and let
	// the next owner of an object know what was written.
	config.Wrap(s.WrapTransport)
	kubeClient, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("create client: %w", err)
	}
	fooClient, err := versioned.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("create client for Foos: %w", err)
	}
	return withClients(s, kubeClient, fooClient, o)
}

// exitOnOverrun ends the process. When work continues although the member is fenced, other members may do the same work;
// ending the process is the only sure way to stop it.
func exitOnOverrun(items []string) {
	klog.Background().Error(nil, "Work continues after the fence, exiting", "objects", items)
	klog.FlushAndExit(klog.ExitFlushTimeout, 1)
}

// New is [NewForConfig] with clients: one for the ring, and two for the controller.
func New(shardClient, kubeClient kubernetes.Interface, fooClient versioned.Interface, o Options) (*Operator, error) {
	s, err := shard.New(shardClient, o.Shard)
	if err != nil {
		return nil, err
	}
	return withClients(s, kubeClient, fooClient, o)
}

func withClients(s *shard.Sharder, kubeClient kubernetes.Interface, fooClient versioned.Interface, o Options) (*Operator, error) {
	metrics := newQueueMetrics()
	sharded := newSharded(s, kubeClient, fooClient, o.WatchNamespace, o.Resync, metrics)
	controller, err := NewController(ControllerConfig{
		KubeClient:  kubeClient,
		FooClient:   fooClient,
		Foos:        sharded.foos,
		Deployments: sharded.deployments,
		Queue:       sharded.queue,
		Member:      s.PodName(),
	})
	if err != nil {
		return nil, err
	}
	return &Operator{Sharder: s, Controller: controller, options: o, kubeClient: kubeClient, sharded: sharded, metrics: metrics}, nil
}

// Run joins the ring and works until ctx is done. Then it drains, releases what it owns, and returns nil. When it returns nil,
// everything that it started has ended. Call it at most once.
func (op *Operator) Run(ctx context.Context) (err error) {
	logger := klog.FromContext(ctx)
	s, o, sharded := op.Sharder, op.options, op.sharded

	// Everything starts below. The end of ctx stops none of it at once. It makes s.Run drain, and during a drain the
	// workers finish their work in flight. They need the caches and clients for that.
	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()

	if o.HTTPAddress != "" {
		server, err := listen(o.HTTPAddress, newMux(s, newRegistry(s, op.metrics)))
		if err != nil {
			return err
		}
		go server.run(fail)
		defer server.shutdown()
		logger.Info("Serving metrics, probes and status", "address", server.listener.Addr().String())
	}
	broadcaster := record.NewBroadcaster()
	defer broadcaster.Shutdown()
	op.Controller.Events = broadcaster.NewRecorder(fooscheme.Scheme, corev1.EventSource{Component: o.Shard.Name, Host: s.PodName()})
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: op.kubeClient.CoreV1().Events("")})
	sharded.fooFactory.StartWithContext(work)
	sharded.kubeFactory.StartWithContext(work)
	defer sharded.fooFactory.Shutdown()
	defer sharded.kubeFactory.Shutdown()
	var workers sync.WaitGroup
	workers.Go(func() { op.Controller.Run(work, o.Workers) })

	// Instead of leader election.
	err = s.Run(running)

	sharded.queue.ShutDown()
	stopWork()
	if err != nil {
		// Work that is still running may never end. It must not keep the process alive, because peers wait until this
		// member is gone. Work that respects its context gets the time to stop.
		waitAtMost(s.Config().StopGracePeriod, &workers)
		return err
	}
	workers.Wait()
	if ctx.Err() == nil {
		return context.Cause(running) // no stop was requested: something has failed
	}
	return nil
}

// waitAtMost waits for a group, but no longer than d.
func waitAtMost(d time.Duration, group *sync.WaitGroup) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		group.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(d):
	}
}
