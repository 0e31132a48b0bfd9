// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned"
	foosv1alpha1 "github.com/tom-ludwig/operator-scaling/example-controller/pkg/generated/clientset/versioned/typed/samplecontroller/v1alpha1"
	"github.com/tom-ludwig/operator-scaling/test/audit/etcdlog"
	"github.com/tom-ludwig/operator-scaling/test/controlplane"
	"github.com/tom-ludwig/operator-scaling/test/faultproxy"
	"github.com/tom-ludwig/operator-scaling/test/heartbeat"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

const (
	namespace      = "chaos"
	ringName       = "chaos"
	leasePrefix    = ringName + "-"
	reconcileDelay = 30 * time.Millisecond
	drainTimeout   = 6 * time.Second
	patience       = 10 * time.Minute // for conditions that must become true eventually, even on a busy machine
)

// environment has everything that runs.
type environment struct {
	options  Options
	cp       *controlplane.ControlPlane
	second   *controlplane.Server // finds etcd through etcdLine
	etcdLine *faultproxy.Tunnel
	binary   string
	kube     kubernetes.Interface
	foos     foosv1alpha1.FooInterface
	log      *etcdlog.Log

	replicas      []*replicaHarness
	surgeReplicas []*replicaHarness // join and leave, to make partitions move
	server        sync.Mutex        // held while a fault affects a server that all replicas use

	ctx    context.Context // ends when no more processes may be started
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu         sync.Mutex
	random     *rand.Rand
	processes  []*replica.Process
	injections []*Injection
	exits      int // processes that exited on their own
	machine    heartbeat.Monitor
	err        error // the first error of the harness itself
	seen       map[*replica.Process]Counters
	breaches   []Breach
}

// open builds and starts everything except the replicas.
func open(ctx context.Context, o Options) (_ *environment, err error) {
	a := &environment{
		options: o,
		random:  rand.New(rand.NewPCG(o.Seed, 1)),
		seen:    map[*replica.Process]Counters{},
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
	if a.etcdLine, err = faultproxy.StartTunnel(hostOf(a.cp.Etcd.URL())); err != nil {
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
	clientset, err := versioned.NewForConfig(a.cp.Admin())
	if err != nil {
		return err
	}
	a.foos = clientset.SamplecontrollerV1alpha1().Foos(namespace)
	root, err := replica.Root()
	if err != nil {
		return err
	}
	crd := filepath.Join(root, "example-controller", "manifests", "crd.yaml")
	if _, err := a.cp.Kubectl(ctx, "apply", "--filename", crd); err != nil {
		return err
	}
	if _, err := a.cp.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=60s", "--filename", crd); err != nil {
		return err
	}
	if _, err := a.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	if a.log, err = etcdlog.Watch(ctx, a.cp.Etcd.URL(), namespace, namespace); err != nil {
		return err
	}
	if err := a.createFoos(ctx); err != nil {
		return err
	}
	for i := range a.options.Replicas {
		// Gateways distinguish requests; tunnels carry HTTP/2 and TLS.
		s, err := a.newReplica(fmt.Sprintf("op-%d", i), i%2 == 0)
		if err != nil {
			return err
		}
		a.replicas = append(a.replicas, s)
	}
	for _, pod := range []string{"surge-a", "surge-b"} {
		v, err := a.newReplica(pod, true)
		if err != nil {
			return err
		}
		a.surgeReplicas = append(a.surgeReplicas, v)
	}
	return nil
}

// close stops everything, in any state.
func (a *environment) close() {
	a.cancel()
	for _, s := range a.allReplicas() {
		s.disableRestart()
	}
	for _, p := range a.all() {
		p.Kill()
	}
	a.wait.Wait()
	for _, p := range a.all() { // one may have been started in the meantime
		p.Kill()
	}
	if a.log != nil {
		a.log.Close()
	}
	for _, s := range a.allReplicas() {
		s.close()
	}
	if a.cp != nil {
		a.cp.Stop()
	}
	if a.etcdLine != nil {
		a.etcdLine.Close()
	}
}

func (a *environment) allReplicas() []*replicaHarness {
	return append(a.replicas[:len(a.replicas):len(a.replicas)], a.surgeReplicas...)
}

// podUID returns the UID of the Pod with that name. It creates the Pod if it does not
// exist, and replaces it by a new one if replace is set.
func (a *environment) podUID(ctx context.Context, name string, replace bool) (string, error) {
	pods := a.kube.CoreV1().Pods(namespace)
	var uid string
	err := a.retry(ctx, func(ctx context.Context) error {
		if replace {
			if err := pods.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
			replace = false
		}
		pod, err := pods.Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "controller", Image: "example-controller"}}},
		}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			pod, err = pods.Get(ctx, name, metav1.GetOptions{})
		}
		if err == nil {
			uid = string(pod.UID)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("create Pod %s: %w", name, err)
	}
	return uid, nil
}

// eventually waits until f returns nil, because the API server may be unavailable.
func (a *environment) eventually(ctx context.Context, f func(context.Context) error) error {
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if waitErr := a.sleep(ctx, 100*time.Millisecond); waitErr != nil {
			return errors.Join(waitErr, err)
		}
	}
}

// sleep waits. If the context ends first, it returns the cause.
func (a *environment) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
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

// fail notes an error of the harness: the run proves nothing.
func (a *environment) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		a.err = err
	}
}

// ended notes that a process has ended and is restarted, and whether it exited on its own.
func (a *environment) ended(p *replica.Process) {
	if p.ExitCode() >= 0 { // otherwise it was killed
		a.mu.Lock()
		a.exits++
		a.mu.Unlock()
	}
	a.logf("%s exited with code %d and is restarted", p, p.ExitCode())
}

func (a *environment) logf(format string, args ...any) {
	fmt.Fprintf(a.options.Progress, time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address // dialing it fails
	}
	return u.Host
}
