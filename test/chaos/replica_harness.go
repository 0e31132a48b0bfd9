// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/test/controlplane"
	"github.com/tom-ludwig/operator-scaling/test/faultproxy"
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

	inUse sync.Mutex // by a fault

	mu      sync.Mutex
	uid     string
	restart bool
	process *replica.Process // the current or last process; nil before the first
}

// newReplica returns a replica without a process, with its connection to the API server.
func (a *environment) newReplica(pod string, withGateway bool) (_ *replicaHarness, err error) {
	s := &replicaHarness{environment: a, pod: pod, kubeconfig: filepath.Join(a.options.Dir, pod+".kubeconfig")}
	var config *rest.Config
	if withGateway {
		stale := a.cp.Admin()
		stale.Host = a.second.URL()
		upstreams := []*rest.Config{a.cp.Admin(), stale}
		if s.gateway, err = faultproxy.StartGateway(a.options.Seed, upstreams...); err != nil {
			return nil, err
		}
		config = s.gateway.Config()
	} else {
		if s.tunnel, err = faultproxy.StartTunnel(hostOf(a.cp.APIServer.URL())); err != nil {
			return nil, err
		}
		config = a.cp.Admin()
		config.Host = "https://" + s.tunnel.Address()
	}
	if err := controlplane.WriteKubeconfig(s.kubeconfig, config); err != nil {
		return nil, err
	}
	return s, nil
}

// close closes the connection to the API server. The process must have ended.
func (s *replicaHarness) close() {
	if s.gateway != nil {
		s.gateway.Close()
	}
	if s.tunnel != nil {
		s.tunnel.Close()
	}
}

// startPod starts a process in a new Pod with the replica's name, or in the same Pod.
func (s *replicaHarness) startPod(ctx context.Context, newPod bool) error {
	uid, err := s.environment.podUID(ctx, s.pod, newPod)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.uid = uid
	s.mu.Unlock()
	return s.start()
}

// start starts a process in the replica's Pod, and restarts it whenever it exits on its own.
func (s *replicaHarness) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restart = true
	return s.startLocked()
}

// startLocked is start for callers that hold mu.
func (s *replicaHarness) startLocked() error {
	p, err := s.environment.startReplica(s.pod, s.uid, s.kubeconfig)
	if err != nil {
		return err
	}
	s.process = p
	s.environment.wait.Go(func() {
		select {
		case <-p.Exited():
		case <-s.environment.ctx.Done():
			return
		}
		if s.environment.sleep(s.environment.ctx, restartDelay) != nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.restart || s.process != p {
			return
		}
		s.environment.ended(p)
		if err := s.startLocked(); err != nil {
			s.environment.fail(err)
		}
	})
	return nil
}

// running returns the process of the replica, or an error if none is running.
func (s *replicaHarness) running() (*replica.Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil || s.process.Ended() {
		return nil, fmt.Errorf("%s: no process is running", s.pod)
	}
	return s.process, nil
}

// stop stops the process with SIGTERM and disables restarts. It returns an error if the
// process does not exit with code 0, which can happen under faults.
func (s *replicaHarness) stop() error {
	p := s.disableRestart()
	if p == nil || p.Ended() {
		return nil
	}
	return p.Stop()
}

// kill kills the process with SIGKILL and disables restarts, as if its node had failed.
func (s *replicaHarness) kill() {
	if p := s.disableRestart(); p != nil {
		p.Kill()
	}
}

// disableRestart disables restarts, and returns the current or last process.
func (s *replicaHarness) disableRestart() *replica.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restart = false
	return s.process
}

// clearFaults removes all faults from the connection to the API server.
func (s *replicaHarness) clearFaults() {
	if s.gateway != nil {
		s.gateway.Set(faultproxy.Requests, faultproxy.Rule{})
		s.gateway.Route(faultproxy.Requests, 0)
	}
	if s.tunnel != nil {
		s.tunnel.Set(faultproxy.Cable{})
	}
}

// startReplica starts one process.
func (a *environment) startReplica(pod, uid, kubeconfig string) (*replica.Process, error) {
	o := a.options
	p, err := replica.Start(replica.Config{
		Binary: a.binary, Kubeconfig: kubeconfig, Dir: o.Dir,
		Ring: ringName, Namespace: namespace, Watch: namespace, Pod: pod, PodUID: uid,
		LeaseDuration: o.LeaseDuration, Workers: 8, ReconcileDelay: reconcileDelay,
		Args: []string{
			"--kube-api-qps=500", "--kube-api-burst=500", "-v=2",
			fmt.Sprintf("--partitions=%d", o.Partitions), "--drain-timeout=" + drainTimeout.String(),
		},
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

// all returns every process that was ever started, in that order.
func (a *environment) all() []*replica.Process {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.processes)
}
