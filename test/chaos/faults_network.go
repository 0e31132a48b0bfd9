// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"net/http"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/faultproxy"
)

// cableOK is a cable without a fault.
var cableOK = faultproxy.Cable{}

var networkFaults = []kind{
	// Through a gateway, by request class.
	{"Lease writes: black hole", aGateway, requests(faultproxy.LeaseWrite, faultproxy.Rule{Action: faultproxy.Stall}, 2)},
	{"Lease writes: arrive two lease durations late", aGateway, requests(faultproxy.LeaseWrite, faultproxy.Rule{Action: faultproxy.Stall, Late: true}, 2)},
	{"Lease writes: responses lost", aGateway, requests(faultproxy.LeaseWrite, faultproxy.Rule{Action: faultproxy.DropResponse}, 1.5)},
	{"Lease writes: responses never arrive", aGateway, requests(faultproxy.LeaseWrite, faultproxy.Rule{Action: faultproxy.DropResponse, Hang: true}, 1.5)},
	{"Lease writes: half of the responses lost while partitions move", aSurgeReplica, moving(requests(faultproxy.LeaseWrite, faultproxy.Rule{Action: faultproxy.DropResponse, Probability: 0.5}, 0.5))},
	{"Lease writes: slow while partitions move", aSurgeReplica, moving(requests(faultproxy.LeaseWrite, faultproxy.Rule{Action: faultproxy.Delay, Delay: 400 * time.Millisecond, Late: true}, 0.5))},
	{"Lease reads: cut while partitions move", aSurgeReplica, moving(requests(faultproxy.LeaseRead, faultproxy.Rule{Action: faultproxy.Cut}, 0.5))},
	{"Lease watch: half open", aGateway, requests(faultproxy.LeaseWatch, faultproxy.Rule{Action: faultproxy.Stall}, 2)},
	{"Lease watch: half open while partitions move", aSurgeReplica, moving(requests(faultproxy.LeaseWatch, faultproxy.Rule{Action: faultproxy.Stall}, 0.5))},
	{"object watches: half open", aGateway, requests(faultproxy.ObjectWatch, faultproxy.Rule{Action: faultproxy.Stall}, 1)},
	{"object writes: responses lost", aGateway, requests(faultproxy.ObjectWrite, faultproxy.Rule{Action: faultproxy.DropResponse, Probability: 0.5}, 1)},
	{"object writes: black hole", aGateway, requests(faultproxy.ObjectWrite, faultproxy.Rule{Action: faultproxy.Stall}, 0.8)},
	{"everything: cut", aGateway, requests(faultproxy.Requests, faultproxy.Rule{Action: faultproxy.Cut}, 2)},
	{"everything: black hole", aGateway, requests(faultproxy.Requests, faultproxy.Rule{Action: faultproxy.Stall}, 2)},
	{"everything: 429", aGateway, requests(faultproxy.Requests, faultproxy.Rule{Action: faultproxy.Fail, Status: http.StatusTooManyRequests, Probability: 0.7}, 1)},
	{"everything: 500", aGateway, requests(faultproxy.Requests, faultproxy.Rule{Action: faultproxy.Fail, Status: http.StatusInternalServerError, Probability: 0.7}, 1)},
	{"slow watches, and a member is killed", theFleet, func(ctx context.Context, a *environment, _ *replicaHarness, i *Injection) error {
		// A member that sees late that a peer was evicted tries to evict it too.
		defer a.slowWatches(250 * time.Millisecond)()
		if err := i.surge.startPod(ctx, true); err != nil {
			return err
		}
		if err := a.waitReady(ctx, i.surge, 2*a.options.LeaseDuration); err != nil {
			i.note("%v", err)
		}
		i.surge.kill()
		return a.sleep(ctx, a.options.LeaseDuration+3*time.Second)
	}},
	{"slow watches, while members join and leave", theFleet, func(ctx context.Context, a *environment, _ *replicaHarness, i *Injection) error {
		// Partitions are released, and a moment later a member joins. A member that has
		// seen only the release claims what the new member has claimed.
		defer a.slowWatches(900 * time.Millisecond)()
		leaving, coming := a.surgeReplicas[0], a.surgeReplicas[1]
		if err := leaving.startPod(ctx, true); err != nil {
			return err
		}
		// This depends on timing: repeat until claims were contested, but not forever.
		before := a.total().Contested
		for n := 0; n < 4 || n < 16 && a.total().Contested == before; n++ {
			if err := a.waitReady(ctx, leaving, 2*a.options.LeaseDuration); err != nil {
				i.note("%v", err)
			}
			if err := coming.startPod(ctx, true); err != nil {
				return err
			}
			if err := a.sleep(ctx, a.between(100*time.Millisecond, 700*time.Millisecond)); err != nil {
				return err
			}
			if err := leaving.stop(); err != nil {
				i.note("%v", err)
			}
			leaving, coming = coming, leaving
			a.ask(ctx, time.Second)
		}
		return leaving.stop()
	}},

	// Through a tunnel: end-to-end TLS and HTTP/2, all requests on one connection.
	{"cable: cut", aTunnel, func(ctx context.Context, a *environment, s *replicaHarness, _ *Injection) error {
		s.tunnel.Cut()
		return a.sleep(ctx, a.options.LeaseDuration/2)
	}},
	{"cable: cut, connections refused", aTunnel, cable(faultproxy.Cable{Refuse: true}, 2)},
	{"cable: half open for half the renew deadline", aTunnel, cable(faultproxy.Cable{Stall: faultproxy.BothWays}, 0.3)},
	{"cable: half open", aTunnel, cable(faultproxy.Cable{Stall: faultproxy.BothWays}, 2)},
	{"cable: no request reaches the server", aTunnel, cable(faultproxy.Cable{Stall: faultproxy.ToServer}, 2)},
	{"cable: no response comes back", aTunnel, cable(faultproxy.Cable{Stall: faultproxy.ToClient}, 2)},
	{"cable: slow", aTunnel, cable(faultproxy.Cable{Delay: 150 * time.Millisecond}, 1)},
}

// slowWatches delays the Lease watches of the replicas with a gateway, each by a different
// time, until the returned function is called.
func (a *environment) slowWatches(least time.Duration) (clearFaults func()) {
	for n, s := range a.replicas {
		if s.gateway != nil {
			slow := faultproxy.Rule{Action: faultproxy.Delay, Delay: least + time.Duration(n)*50*time.Millisecond}
			s.gateway.Set(faultproxy.LeaseWatch, slow)
		}
	}
	return func() {
		for _, s := range a.replicas {
			s.clearFaults()
		}
	}
}

// requests sets a rule on a gateway for a number of lease durations.
func requests(which faultproxy.Class, rule faultproxy.Rule, durations float64) func(context.Context, *environment, *replicaHarness, *Injection) error {
	return func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		before := s.gateway.Counts()
		s.gateway.Set(which, rule)
		if rule.Action == faultproxy.Cut {
			s.gateway.Cut(which)
		}
		err := a.sleep(ctx, time.Duration(durations*float64(a.options.LeaseDuration)))
		s.clearFaults()
		hits := 0
		i.toHit = true
		for _, effect := range []faultproxy.Action{faultproxy.Cut, faultproxy.Stall, faultproxy.Delay, faultproxy.Fail, faultproxy.DropResponse} {
			hits += s.gateway.Counts().Of(which, effect) - before.Of(which, effect)
		}
		i.hits += hits
		i.note("%d hit", hits)
		return err
	}
}

// moving runs a fault on one replica while the surge replica joins, and again while it
// leaves.
func moving(fault func(context.Context, *environment, *replicaHarness, *Injection) error) func(context.Context, *environment, *replicaHarness, *Injection) error {
	return func(ctx context.Context, a *environment, s *replicaHarness, i *Injection) error {
		if err := i.surge.startPod(ctx, true); err != nil {
			return err
		}
		// A process takes about a second to join.
		err := a.sleep(ctx, 500*time.Millisecond)
		if err == nil {
			err = fault(ctx, a, s, i)
		}
		if err == nil {
			err = a.waitReady(ctx, i.surge, 2*a.options.LeaseDuration)
		}
		p := i.surge.disableRestart()
		if terminateErr := p.Terminate(); terminateErr != nil {
			i.note("%v", terminateErr)
		}
		if faultErr := fault(ctx, a, s, i); err == nil {
			err = faultErr
		}
		select { // a second signal would end it immediately
		case <-p.Exited():
			i.note("the surge replica exited with code %d", p.ExitCode())
		case <-time.After(a.options.LeaseDuration + drainTimeout):
			i.note("the surge replica did not exit")
			p.Kill()
		}
		return err
	}
}

// cable sets the state of a tunnel for a number of lease durations.
func cable(state faultproxy.Cable, durations float64) func(context.Context, *environment, *replicaHarness, *Injection) error {
	return func(ctx context.Context, a *environment, s *replicaHarness, _ *Injection) error {
		s.tunnel.Set(state)
		if state.Refuse {
			s.tunnel.Cut()
		}
		return a.sleep(ctx, time.Duration(durations*float64(a.options.LeaseDuration)))
	}
}
