// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Direction is a set of directions in which bytes travel through a [Tunnel].
type Direction uint8

// The directions.
const (
	ToServer Direction = 1 << iota
	ToClient
	BothWays = ToServer | ToClient
)

// Cable is the state of a [Tunnel]. The zero value has no fault.
type Cable struct {
	// Refuse resets each new connection.
	Refuse bool
	// Stall lets nothing pass in these directions: no byte, no end of stream and no reset.
	// Connections stay open and new ones are accepted; the server does not see those
	// until ToServer passes again.
	Stall Direction
	// Delay is added to each chunk of up to 32 KiB, in both directions. The next chunk is
	// read after the delay.
	Delay time.Duration
}

// TunnelCounts counts what a [Tunnel] has done.
type TunnelCounts struct {
	Connections int // accepted and not refused
	Refused     int // by Cable.Refuse, or because the server refused
	Cut         int // connections that Tunnel.Cut has reset
	Stalled     int // chunks and ends of streams that were held by a stall
	Delayed     int // chunks and ends of streams that were delayed
}

// Tunnel forwards TCP connections to one address. Make it with [StartTunnel].
type Tunnel struct {
	listener *net.TCPListener
	target   string
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	work     sync.WaitGroup

	mu      sync.Mutex
	cable   Cable
	changed chan struct{} // closed and replaced when cable is
	pairs   map[*pair]struct{}
	counts  TunnelCounts
}

// pair is one connection through a tunnel.
type pair struct {
	tunnel *Tunnel
	client *net.TCPConn
	server *net.TCPConn  // nil before it is dialled; guarded by tunnel.mu
	cut    chan struct{} // closed when both connections were reset; guarded by tunnel.mu
	isCut  bool          // guarded by tunnel.mu
}

// StartTunnel listens on a loopback port and forwards each connection to target, a host and
// port. No server needs to listen there yet. The caller must call [Tunnel.Close].
func StartTunnel(target string) (*Tunnel, error) {
	if _, _, err := net.SplitHostPort(target); err != nil {
		return nil, fmt.Errorf("start a tunnel: %w", err)
	}
	l, err := listen()
	if err != nil {
		return nil, fmt.Errorf("start a tunnel to %s: %w", target, err)
	}
	t := &Tunnel{listener: l, target: target, changed: make(chan struct{}), pairs: map[*pair]struct{}{}}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.work.Go(t.accept)
	return t, nil
}

// Address returns the host and port to connect to.
func (t *Tunnel) Address() string { return t.listener.Addr().String() }

// Set replaces the state of the cable, for existing connections and for new ones.
func (t *Tunnel) Set(c Cable) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cable = c
	close(t.changed)
	t.changed = make(chan struct{})
}

// Cut resets all connections at both ends. To refuse new ones, set Refuse first.
func (t *Tunnel) Cut() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p := range t.pairs {
		if !p.isCut {
			t.counts.Cut++
		}
		p.resetBoth()
	}
}

// Counts returns the counts since the start.
func (t *Tunnel) Counts() TunnelCounts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts
}

// Close resets all connections and returns when everything has ended. Calling it
// again does nothing.
func (t *Tunnel) Close() {
	t.cancel()
	_ = t.listener.Close()
	t.mu.Lock()
	for p := range t.pairs {
		p.resetBoth()
	}
	t.mu.Unlock()
	t.work.Wait()
}

func (t *Tunnel) accept() {
	for t.ctx.Err() == nil {
		c, err := t.listener.AcceptTCP()
		if err != nil {
			// Closed, or out of file descriptors: retry a little later.
			select {
			case <-t.ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		p := &pair{tunnel: t, client: c, cut: make(chan struct{})}
		if t.begin(p) {
			t.work.Go(p.serve)
		} else {
			reset(c)
		}
	}
}

// begin reports whether a new connection is accepted.
func (t *Tunnel) begin(p *pair) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cable.Refuse || t.ctx.Err() != nil {
		t.counts.Refused++
		return false
	}
	t.counts.Connections++
	t.pairs[p] = struct{}{}
	return true
}

// resetBoth is called with the tunnel's lock.
func (p *pair) resetBoth() {
	reset(p.client)
	if p.server != nil {
		reset(p.server)
	}
	if !p.isCut {
		p.isCut = true
		close(p.cut)
	}
}

func (p *pair) serve() {
	t := p.tunnel
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.pairs, p)
		_ = p.client.Close()
		if p.server != nil {
			_ = p.server.Close()
		}
	}()
	if !p.pass(ToServer) || !p.dial() {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { p.copy(p.client, p.server, ToClient) })
	p.copy(p.server, p.client, ToServer)
	back.Wait()
}

// dial connects to the server. If that fails the client's connection is reset.
func (p *pair) dial() bool {
	var dialer net.Dialer
	c, err := dialer.DialContext(p.tunnel.ctx, "tcp", p.tunnel.target)
	p.tunnel.mu.Lock()
	defer p.tunnel.mu.Unlock()
	if err != nil {
		p.tunnel.counts.Refused++
		reset(p.client)
		return false
	}
	p.server = c.(*net.TCPConn)
	if p.isCut {
		reset(p.server)
	}
	return !p.isCut
}

// copy forwards one direction until it ends, and then forwards how it ended.
func (p *pair) copy(to, from *net.TCPConn, direction Direction) {
	chunk := make([]byte, 32<<10)
	for {
		n, readErr := from.Read(chunk)
		if !p.pass(direction) {
			return
		}
		if n > 0 {
			if _, err := to.Write(chunk[:n]); err != nil {
				// The information that the receiver has gone travels in the other direction.
				if p.pass(BothWays &^ direction) {
					reset(from)
				}
				return
			}
		}
		switch {
		case readErr == nil:
		case errors.Is(readErr, io.EOF):
			_ = to.CloseWrite() // fails if the peer has gone, which its reader notices
			return
		default:
			reset(to)
			return
		}
	}
}

// pass waits until the data just received may pass in a direction. It returns false if the
// connection was cut.
func (p *pair) pass(direction Direction) bool {
	t, came := p.tunnel, time.Now()
	stalled, delayed := false, false
	for {
		t.mu.Lock()
		cable, changed := t.cable, t.changed
		var wait <-chan time.Time
		switch rest := cable.Delay - time.Since(came); {
		case p.isCut:
			t.mu.Unlock()
			return false
		case cable.Stall&direction != 0:
			if !stalled {
				stalled = true
				t.counts.Stalled++
			}
		case rest > 0:
			if !delayed {
				delayed = true
				t.counts.Delayed++
			}
			wait = time.After(rest)
		default:
			t.mu.Unlock()
			return true
		}
		t.mu.Unlock()
		select {
		case <-wait:
		case <-changed:
		case <-p.cut:
		}
	}
}
