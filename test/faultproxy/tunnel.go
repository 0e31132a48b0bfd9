// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
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
}

// pair is one connection through a tunnel.
type pair struct {
	tunnel *Tunnel
	client *net.TCPConn
	server *net.TCPConn    // nil before it is dialled; guarded by tunnel.mu
	cut    context.Context // ends when both connections were reset
	setCut context.CancelFunc
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
		p.setCut()
		reset(p.client)
		if p.server != nil {
			reset(p.server)
		}
	}
}

// Close resets all connections and returns when everything has ended. Calling it
// again does nothing.
func (t *Tunnel) Close() {
	t.cancel()
	_ = t.listener.Close()
	t.Cut()
	t.work.Wait()
}

func (t *Tunnel) accept() {
	for t.ctx.Err() == nil {
		c, err := t.listener.AcceptTCP()
		if err != nil {
			// Closed, or out of file descriptors: retry a little later.
			_ = until(t.ctx, time.After(10*time.Millisecond))
			continue
		}
		t.mu.Lock()
		if t.cable.Refuse || t.ctx.Err() != nil {
			reset(c)
		} else {
			p := &pair{tunnel: t, client: c}
			p.cut, p.setCut = context.WithCancel(context.Background())
			t.pairs[p] = struct{}{}
			t.work.Go(p.serve)
		}
		t.mu.Unlock()
	}
}

func (p *pair) serve() {
	t := p.tunnel
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.pairs, p)
		p.setCut()
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
	c, err := dialer.DialContext(p.cut, "tcp", p.tunnel.target)
	if err != nil {
		reset(p.client)
		return false
	}
	p.tunnel.mu.Lock()
	defer p.tunnel.mu.Unlock()
	p.server = c.(*net.TCPConn)
	if p.cut.Err() != nil {
		reset(p.server)
	}
	return p.cut.Err() == nil
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
	for came := time.Now(); p.cut.Err() == nil; {
		p.tunnel.mu.Lock()
		cable, changed := p.tunnel.cable, p.tunnel.changed
		p.tunnel.mu.Unlock()
		var wait <-chan time.Time
		if cable.Stall&direction == 0 {
			rest := cable.Delay - time.Since(came)
			if rest <= 0 {
				return true
			}
			wait = time.After(rest)
		}
		select {
		case <-wait:
		case <-changed:
		case <-p.cut.Done():
		}
	}
	return false
}

// listen takes a loopback port below the ephemeral port range, and outside the ranges of
// the control plane and of the replicas. No other process therefore gets the port between
// two runs of the same schedule.
func listen() (*net.TCPListener, error) {
	const low, high, tries = 32000, 32700, 200
	for range tries {
		address := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: low + rand.IntN(high-low)}
		if l, err := net.ListenTCP("tcp4", address); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("no free port between %d and %d on 127.0.0.1", low, high)
}

// reset closes a connection with a TCP reset, so that its peer gets an error and not the
// end of the stream. It may be called during a read or a write, and more than once.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // fails if it is already closed, as does Close
	_ = c.Close()
}
