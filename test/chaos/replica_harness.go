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

// restartDelay is how long it takes until a process that has ended is started again.
const restartDelay = 300 * time.Millisecond

// replica is the place of one replica: the name of a Pod, and the way from it to the
// API server, either a gateway or a tunnel. While the replica is occupied, a process
// that ends by itself is started again in the same Pod, as a kubelet does it.
type replicaHarness struct {
	environment *environment
	pod         string
	kubeconfig  string
	gateway     *faultproxy.Gateway // nil: it has a tunnel
	tunnel      *faultproxy.Tunnel  // nil: it has a gateway

	inUse sync.Mutex // by a fault

	mu       sync.Mutex
	uid      string
	occupied bool
	process  *replica.Process // the present one, or the last; nil before the first
}

// newSeat makes an empty replica with its way to the API server.
func (a *environment) newSeat(pod string, withGateway bool) (_ *replicaHarness, err error) {
	s := &replicaHarness{environment: a, pod: pod, kubeconfig: filepath.Join(a.options.Dir, pod+".kubeconfig")}
	var config *rest.Config
	if withGateway {
		stale := a.cp.Admin()
		stale.Host = a.second.URL()
		upstreams := []*rest.Config{a.cp.Admin(), stale}
		if s.gateway, err = faultproxy.StartGateway(faultproxy.GatewayConfig{Upstreams: upstreams, Seed: a.options.Seed}); err != nil {
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

// close ends the way to the API server; the process must have ended.
func (s *replicaHarness) close() {
	if s.gateway != nil {
		s.gateway.Close()
	}
	if s.tunnel != nil {
		s.tunnel.Close()
	}
}

// occupy starts a process in a new Pod of the replica's name, or in the same one.
func (s *replicaHarness) occupy(ctx context.Context, newPod bool) error {
	uid, err := s.environment.podUID(ctx, s.pod, newPod)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.uid = uid
	s.mu.Unlock()
	return s.start()
}

// start starts a process in the replica's Pod, and again whenever one ends by itself.
func (s *replicaHarness) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.occupied = true
	return s.startLocked()
}

// startLocked is start for who holds mu.
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
		if !s.occupied || s.process != p {
			return
		}
		s.environment.ended(p)
		if err := s.startLocked(); err != nil {
			s.environment.fail(err)
		}
	})
	return nil
}

// present returns the process of the replica, or an error if nobody sits there.
func (s *replicaHarness) present() (*replica.Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil || s.process.Ended() {
		return nil, fmt.Errorf("%s: no process at this moment", s.pod)
	}
	return s.process, nil
}

// leave empties the replica in the ordinary way: SIGTERM. It is noted if the process
// does not end with code 0, which under faults it need not.
func (s *replicaHarness) leave() error {
	p := s.disableRestart()
	if p == nil || p.Ended() {
		return nil
	}
	return p.Stop()
}

// lose empties the replica with SIGKILL, as if its node had gone.
func (s *replicaHarness) kill() {
	if p := s.disableRestart(); p != nil {
		p.Kill()
	}
}

// vacate says that what ends now is not to be started again.
func (s *replicaHarness) disableRestart() *replica.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.occupied = false
	return s.process
}

// heal takes all faults off the way to the API server.
func (s *replicaHarness) clearFaults() {
	if s.gateway != nil {
		s.environment.check(s.gateway.Set(faultproxy.Requests, faultproxy.Rule{}))
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
