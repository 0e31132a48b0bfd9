// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/faultproxy"
	"github.com/tom-ludwig/operator-scaling/test/foos"
)

var killAPIServer = act(func(f *fault) { f.cp.APIServer.Kill() })

func startAPIServer(ctx context.Context, f *fault) error { return f.cp.APIServer.Start(ctx) }

func outage(ctx context.Context, f *fault) error {
	f.note("for %v", f.options.Outage)
	return foos.Sleep(ctx, f.options.Outage)
}

// route routes requests to the first or the second API server.
func route(which faultproxy.Class, server int) step {
	return act(func(f *fault) {
		f.target.gateway.Route(which, server)
		f.target.gateway.Cut(which)
	})
}

// etcdCable sets the state of the connection between the second API server and etcd.
func etcdCable(state faultproxy.Cable) step {
	return act(func(f *fault) { f.etcdLine.Set(state) })
}

// stale routes requests to the second API server, then disconnects that server from etcd.
// Its watch cache becomes stale, and the server does not notice. It catches up afterwards.
func stale(which faultproxy.Class) step {
	return steps(route(which, 1), stay(time.Second), etcdCable(faultproxy.Cable{Stall: faultproxy.BothWays}), leases(2),
		etcdCable(faultproxy.Cable{}), stay(time.Second), route(which, 0))
}
