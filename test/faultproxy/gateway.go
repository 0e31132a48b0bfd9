// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"

	"k8s.io/client-go/rest"
)

// GatewayConfig configures a [Gateway].
type GatewayConfig struct {
	// Upstreams are the servers, at least one, each with the credentials that the gateway
	// uses. Requests go to the first one until [Gateway.Route] changes that.
	Upstreams []*rest.Config
	// Seed determines which requests a rule with a probability affects.
	Seed uint64
}

// Gateway forwards HTTP requests to API servers. Make it with [StartGateway].
type Gateway struct {
	upstreams []*upstream
	server    *http.Server
	url       string
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	work      sync.WaitGroup // the server, and each connection

	mu       sync.Mutex
	random   *rand.Rand
	rules    [classes]*ruling
	routes   [classes]int
	inFlight map[*exchange]struct{}
	counts   Counts
}

// ruling is a rule in force.
type ruling struct {
	Rule
	ended chan struct{} // closed when it is replaced
}

// StartGateway listens on a loopback port. It does not check whether the servers are
// reachable. The caller must call [Gateway.Close].
func StartGateway(c GatewayConfig) (*Gateway, error) {
	if len(c.Upstreams) == 0 {
		return nil, errors.New("start a gateway: no upstream")
	}
	g := &Gateway{
		random:   rand.New(rand.NewPCG(c.Seed, 0)),
		inFlight: map[*exchange]struct{}{},
	}
	for i := range g.rules {
		g.rules[i] = &ruling{ended: make(chan struct{})}
	}
	for _, config := range c.Upstreams {
		u, err := newUpstream(config)
		if err != nil {
			return nil, fmt.Errorf("start a gateway to %s: %w", config.Host, err)
		}
		g.upstreams = append(g.upstreams, u)
	}
	l, err := listen()
	if err != nil {
		return nil, fmt.Errorf("start a gateway: %w", err)
	}
	g.url = "http://" + l.Addr().String()
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.server = &http.Server{
		Handler:     http.HandlerFunc(g.serve),
		ConnContext: withConnection,
		ConnState:   g.follow,
		ErrorLog:    log.New(io.Discard, "", 0),
	}
	g.work.Go(func() { _ = g.server.Serve(l) }) // returns when Close is called
	return g, nil
}

// URL returns the address to send requests to.
func (g *Gateway) URL() string { return g.url }

// Config returns a new client configuration for the gateway. It has no credentials, no TLS
// and client-go's default rate limits.
func (g *Gateway) Config() *rest.Config { return &rest.Config{Host: g.url} }

// Set replaces the rule of the given classes. Their old rule ends, even if the new one is
// equal, and the new one applies to requests in flight as described at its [Action]. The
// error wraps [ErrRule]; in that case nothing has changed.
func (g *Gateway) Set(which Class, rule Rule) error {
	if err := rule.validate(); err != nil {
		return fmt.Errorf("set %q for %v: %w", rule, which, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.rules {
		if which&(1<<i) == 0 {
			continue
		}
		old := g.rules[i]
		g.rules[i] = &ruling{Rule: rule, ended: make(chan struct{})}
		for x := range g.inFlight {
			if x.class.index() == i {
				g.replace(x, old, g.rules[i])
			}
		}
		close(old.ended)
	}
	return nil
}

// Cut resets the connections of all requests in flight of the given classes, once. The
// rules do not change, and clients may connect again.
func (g *Gateway) Cut(which Class) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for x := range g.inFlight {
		if x.class&which != 0 && !x.wasReset {
			g.count(x, WasCut)
			x.reset()
		}
	}
}

// Route sends new requests of the given classes to one of the upstreams, by its index in
// [GatewayConfig]. Running watches stay on their upstream: use [Gateway.Cut] to make
// clients restart them. It panics if there is no such upstream.
func (g *Gateway) Route(which Class, upstream int) {
	_ = g.upstreams[upstream]
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.routes {
		if which&(1<<i) != 0 {
			g.routes[i] = upstream
		}
	}
}

// Counts returns the counts since the start.
func (g *Gateway) Counts() Counts {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.counts
}

// Close ends all connections and returns when everything has ended. Requests that are still
// held no longer reach the server. Calling it again does nothing.
func (g *Gateway) Close() {
	g.cancel()
	_ = g.server.Close() // the rest of it ends with the connections
	g.work.Wait()
	for _, u := range g.upstreams {
		u.connections.CloseIdleConnections()
	}
}

type connectionKey struct{}

// withConnection makes the connection available to the handler, which may reset it.
func withConnection(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, c.(*net.TCPConn))
}

// follow counts connections, so that Close can wait until their goroutines end.
func (g *Gateway) follow(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		g.work.Add(1)
		if g.ctx.Err() != nil {
			_ = c.Close() // accepted during Close, which may not have seen it
		}
	case http.StateClosed:
		g.work.Done()
	}
}
