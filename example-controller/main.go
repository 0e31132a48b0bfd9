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
		fmt.Fprintf(os.Stderr, "example-controller: the command line can't work:\n%v\n", err)
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

// usageError is what another command line or environment would mend.
type usageError struct{ error }

// run works until ctx is done, then drains, gives up what it owns and returns nil.
func run(ctx context.Context, o options) error {
	logger := klog.FromContext(ctx)
	config, err := o.restConfig()
	if err != nil {
		return usageError{err}
	}
	// A client of its own for the ring: what a member sends carries its own user agent, and not the workers' last check.
	// The clientset's limit of requests is client-go's default; a member's heartbeats do not wait in it.
	shardClient, err := kubernetes.NewForConfig(rest.AddUserAgent(rest.CopyConfig(config), "shard"))
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	config.QPS, config.Burst = float32(o.qps), o.burst
	// The last check is the one before a request is sent: the process may have been paused since the one before.
	config.Wrap(shard.WrapTransport)
	kubeClient, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	fooClient, err := versioned.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make client for Foos: %w", err)
	}

	r, err := openRecorder(o.recordTo)
	if err != nil {
		return err
	}
	s, err := shard.New(shardClient, shardConfig(o, stillRunning(logger), r))
	if err != nil {
		return errors.Join(usageError{err}, r.close())
	}
	// Closed last of all, or at least after the workers: what they do belongs on record.
	return errors.Join(operate(ctx, o, s, kubeClient, fooClient, r), r.close())
}

// stillRunning ends the process when work goes on although the member is fenced: from now on others may do the same
// work, and a process that has ended is sure to have stopped.
func stillRunning(logger klog.Logger) func(items []string) {
	return func(items []string) {
		logger.Error(nil, "Work goes on after the fence, leaving", "objects", items)
		klog.FlushAndExit(klog.ExitFlushTimeout, exitFailed)
	}
}

// operate puts the controller together, starts it, and joins the ring. When it returns nil, nothing that it started
// runs any more.
func operate(ctx context.Context, o options, s *shard.Sharder, kubeClient kubernetes.Interface, fooClient versioned.Interface, r *recorder) (err error) {
	logger := klog.FromContext(ctx)
	metrics := newQueueMetrics()
	parts := newSharded(s, kubeClient, fooClient, o.watchNamespace, o.resync, metrics)

	broadcaster := clientrecord.NewBroadcaster()
	defer broadcaster.Shutdown()
	controller, err := NewController(ControllerConfig{
		KubeClient:  kubeClient,
		FooClient:   fooClient,
		Foos:        parts.foos,
		Deployments: parts.deployments,
		Queue:       parts.queue,
		Events:      broadcaster.NewRecorder(fooscheme.Scheme, corev1.EventSource{Component: o.ring, Host: s.PodName()}),
		Member:      s.PodName(),
		Delay:       o.reconcileDelay,
		Observe:     r.observe(s),
	})
	if err != nil {
		return err
	}

	// From here on things run. The end of ctx stops none of them at once: it makes s.Run drain, and to drain is to let
	// the workers end what they have in hand, with the caches and clients that they need for it.
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
	parts.fooFactory.StartWithContext(work)
	parts.kubeFactory.StartWithContext(work)
	defer parts.fooFactory.Shutdown()
	defer parts.kubeFactory.Shutdown()
	var workers sync.WaitGroup
	workers.Go(func() { controller.Run(work, o.workers) })

	// Instead of leader election.
	err = s.Run(running)

	parts.queue.ShutDown()
	stopWork()
	if err != nil {
		// What is still at work may never end, and must not keep the process: peers wait for it to go. Work that
		// listens to its context gets the time to stop.
		waitAtMost(s.Config().StopGracePeriod, &workers)
		return err
	}
	workers.Wait()
	if ctx.Err() == nil {
		return context.Cause(running) // nobody has asked for it: something has failed
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
