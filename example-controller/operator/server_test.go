// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener for connections within the process.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error { close(p); return nil }
func (pipes) Addr() net.Addr { return &net.TCPAddr{} }

// A client keeps no connection for long that it does not use.
func TestServer_ClosesIdleConnections(t *testing.T) {
	const request = "GET / HTTP/1.1\r\nHost: foo\r\n\r\n"
	for name, use := range map[string]func(net.Conn){
		"sends nothing":         func(net.Conn) {},
		"sends half a request":  func(c net.Conn) { fmt.Fprint(c, request[:20]) },
		"sends half a body":     func(c net.Conn) { fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: foo\r\nContent-Length: 10\r\n\r\nfive") },
		"stops after a request": func(c net.Conn) { fmt.Fprint(c, request); _, _ = io.ReadFull(c, make([]byte, 1<<20)) },
		"does not read":         func(c net.Conn) { fmt.Fprint(c, request) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, err := listen("127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.ReadAll(r.Body)
					_, _ = io.Copy(w, strings.NewReader(strings.Repeat("x", 1<<20)))
				}))
				if err != nil {
					t.Fatal(err)
				}
				_ = s.listener.Close() // its address is not needed
				listener := make(pipes, 1)
				s.listener = listener
				closed := make(chan struct{})
				s.http.ConnState = func(_ net.Conn, state http.ConnState) {
					if state == http.StateClosed {
						close(closed)
					}
				}
				go s.run(func(err error) { t.Error(err) })
				client, server := net.Pipe()
				listener <- server
				go use(client)
				select {
				case <-closed:
				case <-time.After(5 * time.Minute):
					t.Error("the connection is still open after five minutes")
				}
				_ = client.Close()
				s.shutdown()
			})
		})
	}
}
