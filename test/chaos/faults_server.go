// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/controlplane"
	"github.com/tom-ludwig/operator-scaling/test/faultproxy"
)

var serverFaults = []kind{
	{"kube-apiserver killed and restarted", theServer, func(ctx context.Context, a *environment, _ *replicaHarness, _ *Injection) error {
		a.cp.APIServer.Kill()
		return a.cp.APIServer.Start(ctx)
	}},
	{"kube-apiserver down for a long time", theServer, func(ctx context.Context, a *environment, _ *replicaHarness, i *Injection) error {
		i.note("for %v", a.options.Outage)
		a.cp.APIServer.Kill()
		if err := a.sleep(ctx, a.options.Outage); err != nil {
			return err
		}
		return a.cp.APIServer.Start(ctx)
	}},
	{"kube-apiserver paused", theServer, func(ctx context.Context, a *environment, _ *replicaHarness, _ *Injection) error {
		return freeze(ctx, a, a.cp.APIServer, 2*a.options.LeaseDuration)
	}},
	{"etcd paused", theServer, func(ctx context.Context, a *environment, _ *replicaHarness, _ *Injection) error {
		return freeze(ctx, a, a.cp.Etcd, a.options.LeaseDuration)
	}},
	{"watches from a stale second API server", aReplicaAndServer, func(ctx context.Context, a *environment, s *replicaHarness, _ *Injection) error {
		return stale(ctx, a, s, faultproxy.Watches)
	}},
	{"everything from a stale second API server", aReplicaAndServer, func(ctx context.Context, a *environment, s *replicaHarness, _ *Injection) error {
		return stale(ctx, a, s, faultproxy.Requests)
	}},
	{"reads from the second API server, writes to the first", aReplicaAndServer, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		s.gateway.Route(faultproxy.Watches|faultproxy.Reads, 1)
		s.gateway.Cut(faultproxy.Watches)
		return a.sleep(ctx, a.options.LeaseDuration)
	}},
}

// freeze pauses a server for a while.
func freeze(ctx context.Context, a *environment, s *controlplane.Server, d time.Duration) error {
	if err := s.Pause(); err != nil {
		return err
	}
	err := a.sleep(ctx, d)
	if resumeErr := s.Resume(); err == nil {
		err = resumeErr
	}
	return err
}

// stale routes a replica's requests to the second API server, then disconnects that
// server from etcd. Its watch cache becomes stale, and the server does not notice.
func stale(ctx context.Context, a *environment, s *replicaHarness, which faultproxy.Class) error {
	s.gateway.Route(which, 1)
	s.gateway.Cut(which)
	if err := a.sleep(ctx, time.Second); err != nil {
		return err
	}
	a.etcdLine.Set(faultproxy.Cable{Stall: faultproxy.BothWays})
	err := a.sleep(ctx, 2*a.options.LeaseDuration)
	a.etcdLine.Set(cableOK)
	if err == nil {
		err = a.sleep(ctx, time.Second) // the server catches up, and so does the replica
	}
	s.gateway.Route(which, 0)
	s.gateway.Cut(which)
	return err
}
