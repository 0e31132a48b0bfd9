// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy

import (
	"context"
	"net"
	"net/http"
)

// exchange is one request under way. The fields are guarded by the gateway's lock,
// except those that never change.
type exchange struct {
	class      Class        // never changes
	connection *net.TCPConn // never changes
	upstream   *upstream    // never changes
	first      *ruling      // what hit it when it came, or nil; never changes

	hit       *ruling // what hits it now, or nil
	answered  bool    // the head of the answer goes, or has gone, to the client
	carryOut  bool    // even if the client has gone
	wentLate  bool    // it was held or delayed, and then forwarded; written by its own goroutine only
	wasReset  bool
	discarded bool // its answer is being dropped, whatever rule comes next
}

func (x *exchange) isWatch() bool { return x.class&Watches != 0 }

// reset is called with the gateway's lock.
func (x *exchange) reset() {
	x.wasReset = true
	reset(x.connection)
}

// begin registers a request and draws whether the rule of its class hits it.
func (g *Gateway) begin(r *http.Request) *exchange {
	x := &exchange{class: classOf(r), connection: r.Context().Value(connectionKey{}).(*net.TCPConn)}
	g.mu.Lock()
	defer g.mu.Unlock()
	i := x.class.index()
	x.upstream = g.upstreams[g.routes[i]]
	if rule := g.rules[i]; g.draws(rule) {
		x.first, x.hit = rule, rule
	}
	g.underWay[x] = struct{}{}
	switch {
	case x.hit == nil:
		g.count(x, Passed)
	case x.hit.Action == Cut:
		g.count(x, WasCut)
		x.reset()
	case x.hit.Action == Fail:
		g.count(x, WasFailed)
	case x.hit.Action == DropAnswer:
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
	delete(g.underWay, x)
}

// draws says whether a rule does something to the next request. It is called with
// the gateway's lock.
func (g *Gateway) draws(rule *ruling) bool {
	if rule.Action == Pass {
		return false
	}
	return rule.Probability == 0 || rule.Probability == 1 || g.random.Float64() < rule.Probability
}

// replace applies the end of one rule and the beginning of the next to what is under
// way. It is called with the gateway's lock.
func (g *Gateway) replace(x *exchange, old, next *ruling) {
	if x.wasReset {
		return
	}
	if x.hit == old && old.Action == Stall && !old.Late {
		x.reset() // what it has missed must not come later
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
	case DropAnswer:
		if !x.answered {
			x.hit, x.discarded = next, true
			x.carryOut = !x.isWatch()
		}
	}
}

// count is called with the gateway's lock.
func (g *Gateway) count(x *exchange, effect Effect) { g.counts.of[x.class.index()][effect]++ }

func (g *Gateway) tally(x *exchange, effect Effect) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count(x, effect)
}

// cancelWithClient cancels what is forwarded when the client goes away, unless it
// must be carried out. The function that it returns must be called; it waits.
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
