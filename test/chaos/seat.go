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

// seat is the place of one replica: the name of a Pod, and the way from it to the
// API server, either a gateway or a tunnel. While the seat is occupied, a process
// that ends by itself is started again in the same Pod, as a kubelet does it.
type seat struct {
	arena      *arena
	pod        string
	kubeconfig string
	gateway    *faultproxy.Gateway // nil: it has a tunnel
	tunnel     *faultproxy.Tunnel  // nil: it has a gateway

	inUse sync.Mutex // by a fault

	mu       sync.Mutex
	uid      string
	occupied bool
	process  *replica.Process // the present one, or the last; nil before the first
}

// newSeat makes an empty seat with its way to the API server.
func (a *arena) newSeat(pod string, withGateway bool) (_ *seat, err error) {
	s := &seat{arena: a, pod: pod, kubeconfig: filepath.Join(a.options.Dir, pod+".kubeconfig")}
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
func (s *seat) close() {
	if s.gateway != nil {
		s.gateway.Close()
	}
	if s.tunnel != nil {
		s.tunnel.Close()
	}
}

// occupy starts a process in a new Pod of the seat's name, or in the same one.
func (s *seat) occupy(ctx context.Context, newPod bool) error {
	uid, err := s.arena.podUID(ctx, s.pod, newPod)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.uid = uid
	s.mu.Unlock()
	return s.start()
}

// start starts a process in the seat's Pod, and again whenever one ends by itself.
func (s *seat) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.occupied = true
	return s.startLocked()
}

// startLocked is start for who holds mu.
func (s *seat) startLocked() error {
	p, err := s.arena.startReplica(s.pod, s.uid, s.kubeconfig)
	if err != nil {
		return err
	}
	s.process = p
	s.arena.wait.Go(func() {
		select {
		case <-p.Exited():
		case <-s.arena.ctx.Done():
			return
		}
		if s.arena.sleep(s.arena.ctx, restartDelay) != nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.occupied || s.process != p {
			return
		}
		s.arena.ended(p)
		if err := s.startLocked(); err != nil {
			s.arena.fail(err)
		}
	})
	return nil
}

// present returns the process of the seat, or an error if nobody sits there.
func (s *seat) present() (*replica.Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil || s.process.Ended() {
		return nil, fmt.Errorf("%s: no process at this moment", s.pod)
	}
	return s.process, nil
}

// leave empties the seat in the ordinary way: SIGTERM. It is noted if the process
// does not end with code 0, which under faults it need not.
func (s *seat) leave() error {
	p := s.vacate()
	if p == nil || p.Ended() {
		return nil
	}
	return p.Stop()
}

// lose empties the seat with SIGKILL, as if its node had gone.
func (s *seat) lose() {
	if p := s.vacate(); p != nil {
		p.Kill()
	}
}

// vacate says that what ends now is not to be started again.
func (s *seat) vacate() *replica.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.occupied = false
	return s.process
}

// heal takes all faults off the way to the API server.
func (s *seat) heal() {
	if s.gateway != nil {
		s.arena.check(s.gateway.Set(faultproxy.Requests, faultproxy.Rule{}))
		s.gateway.Route(faultproxy.Requests, 0)
	}
	if s.tunnel != nil {
		s.tunnel.Set(faultproxy.Cable{})
	}
}

// startReplica starts one process.
func (a *arena) startReplica(pod, uid, kubeconfig string) (*replica.Process, error) {
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
func (a *arena) all() []*replica.Process {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.processes)
}
