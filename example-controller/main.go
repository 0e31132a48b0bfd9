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
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	clientrecord "k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned"
	fooscheme "github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned/scheme"
	"github.com/tom-ludwig/operator-scaling/shard"
)

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	o, err := parseOptions(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "example-controller: invalid command line:\n%v\n", err)
		os.Exit(exitUsage)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := 0
	if err := run(ctx, o); err != nil {
		klog.FromContext(ctx).Error(err, "Failed")
		code = exitFailed
		if errors.As(err, new(usageError)) {
			code = exitUsage
		}
	}
	klog.FlushAndExit(klog.ExitFlushTimeout, code)
}

// usageError is an error that a different command line or environment would fix.
type usageError struct{ error }

// run works until ctx is done, then drains, releases what it owns and returns nil.
func run(ctx context.Context, o options) error {
	logger := klog.FromContext(ctx)
	config, err := o.restConfig()
	if err != nil {
		return usageError{err}
	}
	// The ring has its own client: its requests have their own user agent, and do not pass through shard.WrapTransport. The
	// clientset's rate limit is client-go's default; heartbeats do not wait for it.
	shardClient, err := kubernetes.NewForConfig(rest.AddUserAgent(rest.CopyConfig(config), "shard"))
	if err != nil {
		return fmt.Errorf("create client: %w", err)
	}
	config.QPS, config.Burst = float32(o.qps), o.burst
	// Check again just before each request is sent: the process may have been paused since the last check.
	config.Wrap(shard.WrapTransport)
	kubeClient, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("create client: %w", err)
	}
	fooClient, err := versioned.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("create client for Foos: %w", err)
	}

	r, err := openRecorder(o.recordTo)
	if err != nil {
		return err
	}
	s, err := shard.New(shardClient, shardConfig(o, exitOnOverrun(logger), r))
	if err != nil {
		return errors.Join(usageError{err}, r.close())
	}
	// Close the recorder last: everything that the workers do must be recorded.
	return errors.Join(operate(ctx, o, s, kubeClient, fooClient, r), r.close())
}

// exitOnOverrun ends the process when work continues although the member is fenced. From then on other members may do the
// same work; ending the process is the only sure way to stop it.
func exitOnOverrun(logger klog.Logger) func(items []string) {
	return func(items []string) {
		logger.Error(nil, "Work continues after the fence, exiting", "objects", items)
		klog.FlushAndExit(klog.ExitFlushTimeout, exitFailed)
	}
}

// operate creates the controller, starts it, and joins the ring. When it returns nil, everything that it started has
// ended.
func operate(ctx context.Context, o options, s *shard.Sharder, kubeClient kubernetes.Interface, fooClient versioned.Interface, r *recorder) (err error) {
	logger := klog.FromContext(ctx)
	metrics := newQueueMetrics()
	sharded := newSharded(s, kubeClient, fooClient, o.watchNamespace, o.resync, metrics)

	broadcaster := clientrecord.NewBroadcaster()
	defer broadcaster.Shutdown()
	controller, err := NewController(ControllerConfig{
		KubeClient:  kubeClient,
		FooClient:   fooClient,
		Foos:        sharded.foos,
		Deployments: sharded.deployments,
		Queue:       sharded.queue,
		Events:      broadcaster.NewRecorder(fooscheme.Scheme, corev1.EventSource{Component: o.ring, Host: s.PodName()}),
		Member:      s.PodName(),
		Delay:       o.reconcileDelay,
		Observe:     r.observe(s),
	})
	if err != nil {
		return err
	}

	// Everything starts below. The end of ctx stops none of it at once. It makes s.Run drain, and during a drain the
	// workers finish their work in flight. They need the caches and clients for that.
	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()

	if o.httpAddress != "" {
		server, err := listen(o.httpAddress, newMux(s, newRegistry(s, metrics)))
		if err != nil {
			return err
		}
		go server.run(fail)
		defer server.shutdown()
		logger.Info("Serving metrics, probes and status", "address", server.listener.Addr().String())
	}
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: kubeClient.CoreV1().Events("")})
	sharded.fooFactory.StartWithContext(work)
	sharded.kubeFactory.StartWithContext(work)
	defer sharded.fooFactory.Shutdown()
	defer sharded.kubeFactory.Shutdown()
	var workers sync.WaitGroup
	workers.Go(func() { controller.Run(work, o.workers) })

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
