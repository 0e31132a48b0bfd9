// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/test/controlplane"
	"github.com/tom-ludwig/operator-scaling/test/faultproxy"
	"github.com/tom-ludwig/operator-scaling/test/foos"
	"github.com/tom-ludwig/operator-scaling/test/replica"
)

// restartDelay is the time between the end of a process and its restart.
const restartDelay = 300 * time.Millisecond

// replicaHarness runs the processes of one replica: it has the name of a Pod, and the
// connection from it to the API server, either a gateway or a tunnel. While restart is
// set, a process that exits on its own is restarted in the same Pod, as a kubelet does.
type replicaHarness struct {
	environment *environment
	pod         string
	kubeconfig  string
	gateway     *faultproxy.Gateway // nil: it has a tunnel
	tunnel      *faultproxy.Tunnel  // nil: it has a gateway

	inUse bool // by a fault; only the schedule accesses it

	mu      sync.Mutex
	uid     string
	restart bool
	flags   []string         // additional ones of processes that start
	process *replica.Process // the current or last process; nil before the first
}

// newReplica returns a replica without a process, with its connection to the API server.
// Gateways distinguish requests; tunnels carry HTTP/2 and TLS. The caller must close it, also
// after an error.
func (a *environment) newReplica(pod string, withGateway bool) (r *replicaHarness, err error) {
	r = &replicaHarness{environment: a, pod: pod, kubeconfig: filepath.Join(a.options.Dir, pod+".kubeconfig")}
	var config *rest.Config
	if withGateway {
		stale := a.cp.Admin()
		stale.Host = a.second.URL()
		if r.gateway, err = faultproxy.StartGateway(a.options.Seed, a.cp.Admin(), stale); err != nil {
			return r, err
		}
		config = r.gateway.Config()
	} else {
		if r.tunnel, err = faultproxy.StartTunnel(hostOf(a.cp.APIServer)); err != nil {
			return r, err
		}
		config = a.cp.Admin()
		config.Host = "https://" + r.tunnel.Address()
	}
	return r, controlplane.WriteKubeconfig(r.kubeconfig, config)
}

// hostOf returns the host and port of a server.
func hostOf(s *controlplane.Server) string {
	_, host, _ := strings.Cut(s.URL(), "://")
	return host
}

// close closes the connection to the API server. The process must have ended.
func (r *replicaHarness) close() {
	if r.gateway != nil {
		r.gateway.Close()
	}
	if r.tunnel != nil {
		r.tunnel.Close()
	}
}

// startPod replaces the Pod with the replica's name by a new one, and starts a process in it.
func (r *replicaHarness) startPod(ctx context.Context) error {
	pods := r.environment.kube.CoreV1().Pods(namespace)
	if err := r.environment.retry(ctx, func(ctx context.Context) error {
		if err := pods.Delete(ctx, r.pod, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		pod, err := pods.Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: r.pod},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "controller", Image: "example-controller"}}},
		}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.uid = string(pod.UID)
		return nil
	}); err != nil {
		return fmt.Errorf("create Pod %s: %w", r.pod, err)
	}
	return r.start()
}

// start starts a process in the replica's Pod, and restarts it whenever it exits on its own.
func (r *replicaHarness) start() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restart = true
	return r.startLocked()
}

// startLocked is start for callers that hold mu.
func (r *replicaHarness) startLocked() error {
	p, err := r.startProcess(r.uid, r.flags...)
	if err != nil {
		return err
	}
	r.process = p
	a := r.environment
	a.wait.Go(func() {
		<-p.Exited()
		if foos.Sleep(a.ctx, restartDelay) != nil {
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.restart || r.process != p {
			return
		}
		a.logf("%s exited with code %d and is restarted", p, p.ExitCode())
		err := r.startLocked()
		a.mu.Lock()
		defer a.mu.Unlock()
		if p.ExitCode() >= 0 { // otherwise it was killed
			a.result.Exits++
		}
		a.err = cmp.Or(a.err, err)
	})
	return nil
}

// running returns the process of the replica, or an error if none is running.
func (r *replicaHarness) running() (*replica.Process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process == nil || r.process.Ended() {
		return nil, fmt.Errorf("%s: no process is running", r.pod)
	}
	return r.process, nil
}

// stop stops the process with SIGTERM and disables restarts. It returns an error if the
// process does not exit with code 0, which can happen under faults.
func (r *replicaHarness) stop() error {
	p := r.disableRestart()
	if p == nil || p.Ended() {
		return nil
	}
	return p.Stop()
}

// disableRestart disables restarts, and returns the current or last process.
func (r *replicaHarness) disableRestart() *replica.Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restart = false
	return r.process
}

// clearFaults removes all faults from the connection to the API server, and the flags of later
// processes.
func (r *replicaHarness) clearFaults() {
	r.mu.Lock()
	r.flags = nil
	r.mu.Unlock()
	if r.gateway != nil {
		r.gateway.Set(faultproxy.Requests, faultproxy.Rule{})
		r.gateway.Route(faultproxy.Requests, 0)
	}
	if r.tunnel != nil {
		r.tunnel.Set(faultproxy.Cable{})
	}
}

// startProcess starts one process of the replica, in the Pod with a UID.
func (r *replicaHarness) startProcess(uid string, flags ...string) (*replica.Process, error) {
	a, o := r.environment, r.environment.options
	p, err := replica.Start(replica.Config{
		Binary: a.binary, Kubeconfig: r.kubeconfig, Dir: o.Dir,
		Ring: ringName, Namespace: namespace, Watch: namespace, Pod: r.pod, PodUID: uid,
		Args: append([]string{
			"--lease-duration=" + o.LeaseDuration.String(), "--workers=8", "--reconcile-delay=" + reconcileDelay.String(),
			"--kube-api-qps=500", "--kube-api-burst=500", "-v=2",
			fmt.Sprintf("--partitions=%d", o.Partitions), "--drain-timeout=" + drainTimeout.String(),
		}, flags...),
		Env: o.Env,
	})
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.processes = append(a.processes, p)
	return p, nil
}
