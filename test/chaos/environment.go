// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/test/audit/etcdlog"
	"github.com/tom-ludwig/operator-scaling/test/controlplane"
	"github.com/tom-ludwig/operator-scaling/test/faultproxy"
	"github.com/tom-ludwig/operator-scaling/test/foos"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

const (
	namespace      = "chaos"
	ringName       = "chaos"
	leasePrefix    = ringName + "-"
	reconcileDelay = 30 * time.Millisecond
	drainTimeout   = 6 * time.Second
	longestDrain   = shard.DefaultDrainGrace + drainTimeout
	patience       = 10 * time.Minute // for conditions that must become true eventually, even on a busy machine
	requestTimeout = 5 * time.Second
)

// environment has everything that runs.
type environment struct {
	options  Options
	cp       *controlplane.ControlPlane
	second   *controlplane.Server // finds etcd through etcdLine
	etcdLine *faultproxy.Tunnel
	binary   string
	kube     kubernetes.Interface
	foos     foos.Foos
	log      *etcdlog.Log

	replicas      []*replicaHarness
	surgeReplicas []*replicaHarness // join and leave, to make partitions move
	serversInUse  bool              // by a fault; only the schedule accesses it

	ctx    context.Context // ends when no more processes may be started
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu        sync.Mutex
	random    *rand.Rand
	processes []*replica.Process
	result    Result                                  // what is known so far
	err       error                                   // the first error of the harness itself
	seen      map[*replica.Process]map[string]float64 // the values of counters
}

// open builds and starts everything except the replicas.
func open(ctx context.Context, o Options) (_ *environment, err error) {
	a := &environment{
		options: o, result: Result{Options: o},
		random: rand.New(rand.NewPCG(o.Seed, 1)),
		seen:   map[*replica.Process]map[string]float64{},
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	a.logf("building the replicas and the control plane")
	if a.binary, err = replica.Build(ctx, o.Dir, o.BuildFlags...); err != nil {
		return nil, err
	}
	plane, err := controlplane.Build(ctx, o.Progress)
	if err != nil {
		return nil, err
	}
	a.logf("starting etcd and two API servers")
	starting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if a.cp, err = controlplane.Start(starting, controlplane.Options{Binary: plane, Dir: filepath.Join(o.Dir, "control-plane")}); err != nil {
		return nil, err
	}
	if a.etcdLine, err = faultproxy.StartTunnel(hostOf(a.cp.Etcd)); err != nil {
		return nil, err
	}
	if a.second, err = a.cp.StartSecondAPIServer(starting, "http://"+a.etcdLine.Address()); err != nil {
		return nil, err
	}
	return a, a.setup(starting)
}

// setup creates the objects that the replicas work on, and the replicas' harnesses.
func (a *environment) setup(ctx context.Context) (err error) {
	if a.kube, err = kubernetes.NewForConfig(a.cp.Admin()); err != nil {
		return err
	}
	if a.foos, err = foos.In(namespace, a.cp.Admin()); err != nil {
		return err
	}
	if err := foos.Install(ctx, a.cp.Admin(), nil); err != nil {
		return err
	}
	if _, err := a.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	if a.log, err = etcdlog.Watch(ctx, a.cp.Etcd.URL(), namespace, namespace); err != nil {
		return err
	}
	for i := range a.options.Objects {
		if err := a.foos.Add(ctx, fmt.Sprintf("foo-%d", i)); err != nil {
			return err
		}
	}
	add := func(to *[]*replicaHarness, pod string, withGateway bool) {
		if err == nil {
			var r *replicaHarness
			r, err = a.newReplica(pod, withGateway)
			*to = append(*to, r)
		}
	}
	for i := range a.options.Replicas {
		add(&a.replicas, fmt.Sprintf("op-%d", i), i%2 == 0)
	}
	add(&a.surgeReplicas, "surge-a", true)
	add(&a.surgeReplicas, "surge-b", true)
	return err
}

// close stops everything, in any state.
func (a *environment) close() {
	a.cancel()
	for _, r := range a.allReplicas() {
		r.disableRestart()
	}
	for _, p := range a.started() {
		p.Kill()
	}
	a.wait.Wait()
	if a.log != nil {
		a.log.Close()
	}
	for _, r := range a.allReplicas() {
		r.close()
	}
	if a.cp != nil {
		a.cp.Stop()
	}
	if a.etcdLine != nil {
		a.etcdLine.Close()
	}
}

// started returns every process that was ever started, in that order.
func (a *environment) started() []*replica.Process {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.processes)
}

func (a *environment) allReplicas() []*replicaHarness {
	return slices.Concat(a.replicas, a.surgeReplicas)
}

// eventually repeats f until it returns nil, for at most the given time.
func eventually(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, limit, true, func(ctx context.Context) (bool, error) {
		last = f(ctx)
		return last == nil, nil
	})
	return errors.Join(err, last)
}

// retry repeats a request while a fault of the servers lasts.
func (a *environment) retry(ctx context.Context, f func(context.Context) error) error {
	return eventually(ctx, a.options.Outage+patience, func(ctx context.Context) error {
		one, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		return f(one)
	})
}

// draw returns a random number below n.
func (a *environment) draw(n int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.random.IntN(n)
}

// between returns a random duration.
func (a *environment) between(from, to time.Duration) time.Duration {
	return from + time.Duration(a.draw(int(max(to-from, 1)/time.Millisecond)+1))*time.Millisecond
}

func (a *environment) logf(format string, args ...any) {
	fmt.Fprintf(a.options.Progress, time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
}
