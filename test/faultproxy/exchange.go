// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy

import (
	"context"
	"net"
	"net/http"
)

// exchange is one request in flight. The gateway's lock guards the fields, except those
// that never change.
type exchange struct {
	class      Class        // never changes
	connection *net.TCPConn // never changes
	upstream   *upstream    // never changes
	first      *ruling      // the rule that affected it when it arrived, or nil; never changes

	hit       *ruling // the rule that affects it now, or nil
	answered  bool    // the headers of the response are being or were sent to the client
	carryOut  bool    // execute it even if the client has gone
	wentLate  bool    // it was held or delayed, and then forwarded; written only by its own goroutine
	wasReset  bool
	discarded bool // its response is being dropped, regardless of the next rule
}

func (x *exchange) isWatch() bool { return x.class&Watches != 0 }

// reset is called with the gateway's lock.
func (x *exchange) reset() {
	x.wasReset = true
	reset(x.connection)
}

// begin registers a request and decides whether the rule of its class affects it.
func (g *Gateway) begin(r *http.Request) *exchange {
	x := &exchange{class: classOf(r), connection: r.Context().Value(connectionKey{}).(*net.TCPConn)}
	g.mu.Lock()
	defer g.mu.Unlock()
	i := x.class.index()
	x.upstream = g.upstreams[g.routes[i]]
	if rule := g.rules[i]; g.draws(rule) {
		x.first, x.hit = rule, rule
	}
	g.inFlight[x] = struct{}{}
	switch {
	case x.hit == nil:
		g.count(x, Passed)
	case x.hit.Action == Cut:
		g.count(x, WasCut)
		x.reset()
	case x.hit.Action == Fail:
		g.count(x, WasFailed)
	case x.hit.Action == DropResponse:
		x.discarded = true
		x.carryOut = !x.isWatch()
	case x.hit.Action == Stall:
		g.count(x, WasStalled)
		x.carryOut = x.hit.Late && !x.isWatch()
	case x.hit.Action == Delay:
		g.count(x, WasDelayed)
		x.carryOut = x.hit.Late && !x.isWatch()
	}
	return x
}

func (g *Gateway) end(x *exchange) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.inFlight, x)
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
func (g *Gateway) replace(x *exchange, old, next *ruling) {
	if x.wasReset {
		return
	}
	if x.hit == old && old.Action == Stall && !old.Late {
		x.reset() // what it has missed must not arrive later
		return
	}
	x.hit = nil
	if !g.draws(next) {
		return
	}
	switch next.Action {
	case Cut:
		g.count(x, WasCut)
		x.reset()
	case Stall:
		x.hit = next
		x.carryOut = x.carryOut || (next.Late && !x.isWatch())
		g.count(x, WasStalled)
	case Delay:
		if x.isWatch() {
			x.hit = next
			g.count(x, WasDelayed)
		}
	case DropResponse:
		if !x.answered {
			x.hit, x.discarded = next, true
			x.carryOut = !x.isWatch()
		}
	}
}

// count is called with the gateway's lock.
func (g *Gateway) count(x *exchange, effect Effect) { g.counts.of[x.class.index()][effect]++ }

func (g *Gateway) lockAndCount(x *exchange, effect Effect) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count(x, effect)
}

// cancelWithClient cancels a forwarded request when the client disconnects, unless the
// request must be executed. The caller must call the returned function, which waits.
func (g *Gateway) cancelWithClient(client context.Context, x *exchange, cancel context.CancelFunc) (stop func()) {
	done := make(chan struct{})
	unregister := context.AfterFunc(client, func() {
		defer close(done)
		g.mu.Lock()
		defer g.mu.Unlock()
		if !x.carryOut {
			cancel()
		}
	})
	return func() {
		if !unregister() {
			<-done
		}
		cancel()
	}
}
