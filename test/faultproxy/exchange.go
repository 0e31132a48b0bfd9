// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy

import (
	"context"
	"net"
	"net/http"
)

// exchange is one request in flight. The gateway's lock guards the fields of the second
// group.
type exchange struct {
	gateway    *Gateway
	class      Class
	connection *net.TCPConn
	upstream   *upstream
	first      *ruling         // the rule that affected it when it arrived, or nil
	client     context.Context // ends when the client has gone
	forwarded  context.Context // the same, unless carryOut is set; ends with the gateway

	hit      *ruling // the rule that affects it now, or nil
	answered bool    // the headers of the response are being or were sent to the client
	carryOut bool    // execute it even if the client has gone
	wasReset bool
	dropped  bool // its response is being dropped, regardless of the next rule
}

func (x *exchange) isWatch() bool { return x.class&Watches != 0 }

// reset is called with the gateway's lock.
func (x *exchange) reset() {
	x.wasReset = true
	reset(x.connection)
}

// begin registers a request and decides whether the rule of its class affects it. The
// caller must call the returned function.
func (g *Gateway) begin(r *http.Request) (x *exchange, end func()) {
	x = &exchange{gateway: g, class: classOf(r), connection: r.Context().Value(connectionKey{}).(*net.TCPConn), client: r.Context()}
	var cancel context.CancelFunc
	x.forwarded, cancel = context.WithCancel(g.ctx)
	clientGone := make(chan struct{})
	unregister := context.AfterFunc(x.client, func() {
		defer close(clientGone)
		g.mu.Lock()
		defer g.mu.Unlock()
		if !x.carryOut {
			cancel()
		}
	})

	g.mu.Lock()
	defer g.mu.Unlock()
	i := x.class.index()
	x.upstream = g.upstreams[g.routes[i]]
	g.inFlight[x] = struct{}{}
	if rule := g.rules[i]; g.draws(rule) {
		x.first = rule
		x.apply(rule)
	} else {
		g.counts[i][Pass]++
	}
	return x, func() {
		if !unregister() {
			<-clientGone
		}
		cancel()
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.inFlight, x)
	}
}

// draws decides at random whether a rule affects the next request. It is called with the
// gateway's lock.
func (g *Gateway) draws(rule *ruling) bool {
	if rule.Action == Pass {
		return false
	}
	return rule.Probability == 0 || rule.Probability == 1 || g.random.Float64() < rule.Probability
}

// replace applies the end of one rule and the start of the next to a request in flight. It
// is called with the gateway's lock.
func (x *exchange) replace(old, next *ruling) {
	if x.wasReset {
		return
	}
	if x.hit == old && old.Action == Stall && !old.Late {
		x.reset() // what it has missed must not arrive later
		return
	}
	x.hit = nil
	if !x.gateway.draws(next) || next.Action == Fail ||
		next.Action == Delay && !x.isWatch() || next.Action == DropResponse && x.answered {
		return
	}
	x.apply(next)
}

// apply makes a rule affect the request. It is called with the gateway's lock.
func (x *exchange) apply(rule *ruling) {
	x.hit = rule
	x.carryOut = x.carryOut || !x.isWatch() && (rule.Late || rule.Action == DropResponse)
	switch rule.Action {
	case DropResponse:
		x.dropped = true
		return // counted later
	case Cut:
		x.reset()
	}
	x.gateway.counts[x.class.index()][rule.Action]++
}

// rule returns the rule that affects the request now, or nil.
func (x *exchange) rule() *ruling {
	x.gateway.mu.Lock()
	defer x.gateway.mu.Unlock()
	return x.hit
}
