// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/faultproxy"
)

// Crashes at the worst points, at which the gateway holds the process.
var crashFaults = []kind{
	{"SIGKILL after a claim is committed, before the response arrives", aSurgeReplica, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		// Partitions move to this replica when the surge replica leaves.
		return a.crash(ctx, s, i, false, faultproxy.LeaseWrite, faultproxy.Rule{Action: faultproxy.DropResponse, Hang: true}, faultproxy.DropResponse)
	}},
	{"SIGKILL before the list", aSurgeReplica, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		return a.crash(ctx, s, i, false, faultproxy.LeaseRead, faultproxy.Rule{Action: faultproxy.Stall}, faultproxy.Stall)
	}},
	{"SIGKILL during a drain", aSurgeReplica, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		// A slow write blocks the drain that the surge replica causes.
		return a.crash(ctx, s, i, true, faultproxy.ObjectWrite, faultproxy.Rule{Action: faultproxy.Delay, Delay: time.Second}, faultproxy.Delay)
	}},
	{"SIGKILL after a release is sent, before it arrives", aSurgeReplica, func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		return a.crash(ctx, s, i, true, faultproxy.LeaseWrite, faultproxy.Rule{Action: faultproxy.Stall, Late: true}, faultproxy.Stall)
	}},
}

// crash makes partitions move away from a replica, by a surge replica that joins, or to
// it, by a surge replica that leaves. It kills the replica's process when the rule has
// taken effect.
func (a *environment) crash(ctx context.Context, s *replicaHarness, i *Injection, away bool, which faultproxy.Class, rule faultproxy.Rule, effect faultproxy.Action) error {
	if err := i.surge.startPod(ctx, true); err != nil {
		return err
	}
	defer i.surge.kill()
	if !away {
		if err := a.waitReady(ctx, i.surge, 2*a.options.LeaseDuration); err != nil {
			return err
		}
		if err := a.sleep(ctx, time.Second); err != nil {
			return err
		}
		if err := i.surge.disableRestart().Terminate(); err != nil {
			i.note("%v", err)
		}
	} else if err := a.waitMember(ctx, i.surge.pod); err != nil {
		return err
	}
	s.gateway.Set(which, rule)
	if err := a.hit(ctx, s, which, effect, a.options.LeaseDuration); err != nil {
		return err
	}
	p, err := s.running()
	if err != nil {
		return err
	}
	p.Kill()
	i.note("killed when a %v was hit", which)
	if err := a.sleep(ctx, time.Second); err != nil {
		return err
	}
	s.clearFaults() // delayed requests arrive now
	return a.sleep(ctx, a.options.LeaseDuration/2)
}

// waitMember waits until the Pod has a Lease, so that its member is about to join.
func (a *environment) waitMember(ctx context.Context, pod string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*a.options.LeaseDuration)
	defer cancel()
	return a.eventually(ctx, func(ctx context.Context) error { return a.leaseExists(ctx, pod) })
}
