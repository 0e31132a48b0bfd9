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
	"net/http/httptest"
	"net/url"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// Gateway forwards HTTP requests to API servers. Make it with [StartGateway].
type Gateway struct {
	upstreams []*upstream
	server    *httptest.Server
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc

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

// upstream is a server that a gateway forwards to.
type upstream struct {
	base              *url.URL
	connections       *http.Transport
	http.RoundTripper // connections, with the credentials of the configuration
}

type connectionKey struct{}

var discard = log.New(io.Discard, "", 0)

// StartGateway listens on a loopback port. The upstreams are the servers, at least one,
// each with the credentials that the gateway uses. Requests go to the first one until
// [Gateway.Route] changes that. It does not check whether the servers are reachable. The
// seed determines which requests a rule with a probability affects. The caller must call
// [Gateway.Close].
func StartGateway(seed uint64, upstreams ...*rest.Config) (*Gateway, error) {
	if len(upstreams) == 0 {
		return nil, errors.New("start a gateway: no upstream")
	}
	g := &Gateway{random: rand.New(rand.NewPCG(seed, 0)), inFlight: map[*exchange]struct{}{}}
	for i := range g.rules {
		g.rules[i] = &ruling{ended: make(chan struct{})}
	}
	for _, config := range upstreams {
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
	g.ctx, g.cancel = context.WithCancel(context.Background())
	// Its Close waits for every connection.
	g.server = &httptest.Server{Listener: l, Config: &http.Server{
		Handler: http.HandlerFunc(g.serve),
		// The handler may reset the connection.
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connectionKey{}, c.(*net.TCPConn))
		},
		ErrorLog: discard,
	}}
	g.server.Start()
	return g, nil
}

func newUpstream(config *rest.Config) (*upstream, error) {
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, err
	}
	tls, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, err
	}
	// Not rest.TransportFor, whose result is shared and outlives the gateway. HTTP/1.1,
	// because there a held watch does not block other requests. The timeout is longer than
	// the longest time that kube-apiserver takes.
	connections := &http.Transport{
		TLSClientConfig: tls, DisableCompression: true, MaxIdleConnsPerHost: 32, ResponseHeaderTimeout: 90 * time.Second,
	}
	authenticated, err := rest.HTTPWrappersForConfig(config, connections)
	return &upstream{base, connections, authenticated}, err
}

// Config returns a new client configuration for the gateway. It has no credentials, no TLS
// and client-go's default rate limits.
func (g *Gateway) Config() *rest.Config { return &rest.Config{Host: g.server.URL} }

// Set replaces the rule of the given classes. Their old rule ends, even if the new one is
// equal, and the new one applies to requests in flight as described at its [Action]. It
// panics if the rule is invalid.
func (g *Gateway) Set(which Class, rule Rule) {
	if err := rule.validate(); err != nil {
		panic(fmt.Sprintf("set %q for %v: %v", rule, which, err))
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
				x.replace(old, g.rules[i])
			}
		}
		close(old.ended)
	}
}

// Cut resets the connections of all requests in flight of the given classes, once. The
// rules do not change, and clients may connect again.
func (g *Gateway) Cut(which Class) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for x := range g.inFlight {
		if x.class&which != 0 && !x.wasReset {
			g.counts[x.class.index()][Cut]++
			x.reset()
		}
	}
}

// Route sends new requests of the given classes to one of the upstreams, by its index in
// the call of [StartGateway]. Running watches stay on their upstream: use [Gateway.Cut] to
// make clients restart them. It panics if there is no such upstream.
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

// Close ends all connections and returns when everything has ended. Requests that are still
// held no longer reach the server. Calling it again does nothing.
func (g *Gateway) Close() {
	g.cancel()
	g.server.CloseClientConnections()
	g.server.Close()
	for _, u := range g.upstreams {
		u.connections.CloseIdleConnections()
	}
}

// Counts counts on how many requests each action had an effect since the start of the
// gateway. Pass counts requests that no rule affected when they arrived.
type Counts [classes][actions]int

// Counts returns a copy of the counts.
func (g *Gateway) Counts() Counts {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.counts
}

// Of returns how many requests of the given classes were affected by one of the actions.
func (c Counts) Of(which Class, effects ...Action) (sum int) {
	for i := range c {
		for _, a := range effects {
			if which&(1<<i) != 0 {
				sum += c[i][a]
			}
		}
	}
	return sum
}
