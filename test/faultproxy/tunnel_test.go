// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/faultproxy"
)

func newTunnel(t *testing.T, target string) *faultproxy.Tunnel {
	t.Helper()
	tunnel, err := faultproxy.StartTunnel(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tunnel.Close)
	return tunnel
}

// line is one end of a connection. The test can wait for what it receives.
type line struct {
	net.Conn
	received chan string // ends with the error
}

func newLine(t *testing.T, c net.Conn) line {
	l := line{c, make(chan string, 100)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 1024)
		for {
			n, err := c.Read(buffer)
			if n > 0 {
				l.received <- string(buffer[:n])
			}
			switch {
			case errors.Is(err, syscall.ECONNRESET):
				l.received <- "reset"
			case err != nil:
				l.received <- err.Error()
			default:
				continue
			}
			return
		}
	}()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	return l
}

func (l line) send(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(l, text); err != nil {
		t.Fatal(err)
	}
}

func (l line) want(t *testing.T, text string) {
	t.Helper()
	if got := expect(t, text, l.received); got != text {
		t.Errorf("got %q, want %q", got, text)
	}
}

// server accepts connections that arrive through a tunnel.
func newServer(t *testing.T) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// startTunnel returns a server and a tunnel to it, which leave no goroutine.
func startTunnel(t *testing.T) (net.Listener, *faultproxy.Tunnel) {
	t.Helper()
	noGoroutinesLeft(t)
	server := newServer(t)
	return server, newTunnel(t, server.Addr().String())
}

func dial(t *testing.T, tunnel *faultproxy.Tunnel) line {
	t.Helper()
	c, err := net.Dial("tcp", tunnel.Address())
	if err != nil {
		t.Fatal(err)
	}
	return newLine(t, c)
}

// wantRefused fails the test unless a new connection is reset, immediately or a little
// later.
func wantRefused(t *testing.T, tunnel *faultproxy.Tunnel) {
	t.Helper()
	if c, err := net.Dial("tcp", tunnel.Address()); err == nil {
		newLine(t, c).want(t, "reset")
	} else if !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
}

func accept(t *testing.T, server net.Listener) line {
	t.Helper()
	_ = server.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	c, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return newLine(t, c)
}

// TLS and HTTP/2 are end-to-end, with the server's own certificate.
func TestN2_TunnelPassesHTTP2(t *testing.T) {
	noGoroutinesLeft(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, r.Proto+strings.ToUpper(string(body)))
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	tunnel := newTunnel(t, server.Listener.Addr().String())
	body := strings.Repeat("a", 1<<20)
	response, err := server.Client().Post("https://"+tunnel.Address(), "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if got, err := io.ReadAll(response.Body); err != nil || string(got) != "HTTP/2.0"+strings.ToUpper(body) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

func TestN2_TunnelPassesTheEndOfAStream(t *testing.T) {
	server, tunnel := startTunnel(t)
	a := dial(t, tunnel)
	b := accept(t, server)
	a.send(t, "last words")
	_ = a.Conn.(*net.TCPConn).CloseWrite()
	b.want(t, "last words")
	b.want(t, "EOF")
	b.send(t, "a response") // the other direction is still open
	a.want(t, "a response")

	a = dial(t, tunnel)
	b = accept(t, server)
	_ = b.Conn.(*net.TCPConn).SetLinger(0)
	_ = b.Close()
	a.want(t, "reset")
}

func TestN1_TunnelCutAndRefuse(t *testing.T) {
	server, tunnel := startTunnel(t)
	a := dial(t, tunnel)
	b := accept(t, server)
	a.send(t, "before")
	b.want(t, "before")

	tunnel.Set(faultproxy.Cable{Refuse: true})
	tunnel.Cut()
	a.want(t, "reset")
	b.want(t, "reset")
	wantRefused(t, tunnel)

	tunnel.Set(faultproxy.Cable{})
	a = dial(t, tunnel)
	b = accept(t, server)
	a.send(t, "after")
	b.want(t, "after")
}

func TestN3_TunnelStallsOneWay(t *testing.T) {
	for name, stall := range map[string]faultproxy.Direction{
		"to the server": faultproxy.ToServer, "to the client": faultproxy.ToClient, "both ways": faultproxy.BothWays,
	} {
		t.Run(name, func(t *testing.T) {
			server, tunnel := startTunnel(t)
			a := dial(t, tunnel)
			b := accept(t, server)

			tunnel.Set(faultproxy.Cable{Stall: stall})
			a.send(t, "request")
			b.send(t, "answer")
			for direction, end := range map[faultproxy.Direction]struct {
				line
				text string
			}{faultproxy.ToServer: {b, "request"}, faultproxy.ToClient: {a, "answer"}} {
				if stall&direction != 0 {
					silent(t, "a stalled direction", end.received)
				} else {
					end.want(t, end.text)
				}
			}
			// N4: TCP retransmits lost data.
			tunnel.Set(faultproxy.Cable{})
			if stall&faultproxy.ToServer != 0 {
				b.want(t, "request")
			}
			if stall&faultproxy.ToClient != 0 {
				a.want(t, "answer")
			}
		})
	}
}

// Neither end learns that the other has gone.
func TestN3_TunnelHidesTheEndOfAStream(t *testing.T) {
	for _, how := range []string{"closed", "reset", "cut by a reset of the receiver"} {
		t.Run(how, func(t *testing.T) {
			server, tunnel := startTunnel(t)
			a := dial(t, tunnel)
			b := accept(t, server)
			stall := faultproxy.BothWays
			if how == "cut by a reset of the receiver" {
				stall = faultproxy.ToServer
			}
			tunnel.Set(faultproxy.Cable{Stall: stall})
			if how != "closed" {
				_ = a.Conn.(*net.TCPConn).SetLinger(0)
			}
			_ = a.Close()
			b.send(t, "are you there?")
			silent(t, "the server", b.received)
			tunnel.Set(faultproxy.Cable{})
			if got := expect(t, "the end", b.received); got != "EOF" && got != "reset" {
				t.Errorf("got %q, want the end of the stream", got)
			}
		})
	}
}

// A connection that is opened during a stall is accepted, and works afterwards.
func TestN3_TunnelConnectDuringAStall(t *testing.T) {
	server, tunnel := startTunnel(t)
	tunnel.Set(faultproxy.Cable{Stall: faultproxy.ToServer})
	a := dial(t, tunnel)
	a.send(t, "hello")
	_ = server.(*net.TCPListener).SetDeadline(time.Now().Add(moment))
	if c, err := server.Accept(); err == nil {
		_ = c.Close()
		t.Error("the server saw a connection")
	}
	tunnel.Set(faultproxy.Cable{})
	accept(t, server).want(t, "hello")
}

func TestTunnelDelay(t *testing.T) {
	server, tunnel := startTunnel(t)
	a := dial(t, tunnel)
	b := accept(t, server)
	tunnel.Set(faultproxy.Cable{Delay: moment})
	begin := time.Now()
	a.send(t, "ping")
	b.want(t, "ping")
	b.send(t, "pong")
	a.want(t, "pong")
	if took := time.Since(begin); took < 2*moment {
		t.Errorf("the round trip took %v, want at least %v", took, 2*moment)
	}
	// When the delay ends, waiting ends as well.
	tunnel.Set(faultproxy.Cable{Delay: time.Hour})
	a.send(t, "ping")
	silent(t, "a delayed message", b.received)
	tunnel.Set(faultproxy.Cable{})
	b.want(t, "ping")
}

func TestTunnelToAnUnusedPort(t *testing.T) {
	server, tunnel := startTunnel(t)
	_ = server.Close()
	wantRefused(t, tunnel)
}

func TestN10_TunnelCloseEndsConnections(t *testing.T) {
	server, tunnel := startTunnel(t)
	running := dial(t, tunnel)
	far := accept(t, server)
	running.send(t, "x")
	far.want(t, "x")
	tunnel.Set(faultproxy.Cable{Stall: faultproxy.BothWays, Delay: time.Hour})
	waiting := dial(t, tunnel)
	running.send(t, "y")
	silent(t, "a stalled message", far.received) // long enough for both to be in flight
	tunnel.Close()
	tunnel.Close()
	for _, l := range []line{running, far, waiting} {
		l.want(t, "reset")
	}
	if c, err := net.Dial("tcp", tunnel.Address()); err == nil {
		_ = c.Close()
		t.Error("the port is still open")
	}
}

func TestStartTunnelRejectsInvalidAddress(t *testing.T) {
	var address *net.AddrError
	if tunnel, err := faultproxy.StartTunnel("127.0.0.1"); !errors.As(err, &address) {
		if err == nil {
			tunnel.Close()
		}
		t.Errorf("an address without a port: %v", err)
	}
}
