// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/test/faultproxy"
)

const (
	patience = 5 * time.Minute        // for conditions that must become true
	moment   = 150 * time.Millisecond // for events that must not happen: they would take far less

	lease   = "/apis/coordination.k8s.io/v1/namespaces/default/leases/a"
	leases  = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
	object  = "/apis/example.com/v1/namespaces/default/foos/a"
	objects = "/apis/example.com/v1/namespaces/default/foos"
)

// eventually waits until a condition becomes true in other goroutines.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", what)
		}
	}
}

// noGoroutinesLeft compares the number of goroutines at the time of the call with the
// number after the test and its other cleanups.
func noGoroutinesLeft(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		// The goroutines of net/http end a moment after their connections.
		deadline := time.Now().Add(patience)
		for runtime.NumGoroutine() > before {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// api is a small server. It responds to requests with its name and their body, and to
// watches with the events passed to send.
type api struct {
	name string
	*httptest.Server

	mu       sync.Mutex
	requests []string // method, path and body, in the order of arrival
	executed []string // those whose client was there until the end
	headers  []http.Header
	watchers map[chan string]struct{}
	held     chan struct{} // if not nil, responses wait until it is closed
}

func newAPI(t *testing.T, name string) *api {
	a := &api{name: name, watchers: map[chan string]struct{}{}}
	a.Server = httptest.NewServer(a)
	t.Cleanup(func() {
		a.Server.CloseClientConnections()
		a.Server.Close()
	})
	return a
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	events := make(chan string, 100)
	a.mu.Lock()
	request := r.Method + " " + r.URL.Path + " " + string(body)
	a.requests = append(a.requests, request)
	a.headers = append(a.headers, r.Header)
	held := a.held
	watch := r.URL.Query().Get("watch") != ""
	if watch {
		a.watchers[events] = struct{}{}
	}
	a.mu.Unlock()
	w.Header().Set("X-Server", a.name)
	if !watch {
		if held != nil {
			<-held
		}
		_, _ = fmt.Fprintf(w, "%s: %s", a.name, body)
		a.mu.Lock()
		defer a.mu.Unlock()
		if r.Context().Err() == nil {
			a.executed = append(a.executed, request)
		}
		return
	}
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.watchers, events)
	}()
	_ = http.NewResponseController(w).Flush()
	for {
		select {
		case e := <-events:
			_, _ = fmt.Fprintln(w, e)
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// send sends an event to all watches.
func (a *api) send(event string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for events := range a.watchers {
		events <- event
	}
}

// hold makes responses wait until the returned function is called.
func (a *api) hold() (release func()) {
	held := make(chan struct{})
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held = held
	return sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.held = nil
		close(held)
	})
}

// saw returns how many of the requests contain a text.
func (a *api) saw(text string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Count(strings.Join(a.requests, "\n"), text)
}

// did reports whether a request that contains a text was executed.
func (a *api) did(text string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Contains(strings.Join(a.executed, "\n"), text)
}

// start returns a server, a gateway to it and a client, which leave no goroutine.
func start(t *testing.T) (*api, *faultproxy.Gateway, *http.Client) {
	t.Helper()
	noGoroutinesLeft(t)
	server := newAPI(t, "one")
	return server, newGateway(t, server), newClient(t)
}

func newGateway(t *testing.T, upstreams ...*api) *faultproxy.Gateway {
	t.Helper()
	var configs []*rest.Config
	for _, a := range upstreams {
		configs = append(configs, &rest.Config{Host: a.URL, BearerToken: "gateway"})
	}
	g, err := faultproxy.StartGateway(1, configs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// newClient returns a client with its own connections, which end with the test.
func newClient(t *testing.T) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// result is the result of a request.
type result struct {
	code int
	body string
	err  error
}

// wasReset reports whether the connection was reset, and not closed normally.
func (r result) wasReset() bool {
	return errors.Is(r.err, syscall.ECONNRESET)
}

// ask sends one request and waits for the whole response.
func ask(ctx context.Context, client *http.Client, g *faultproxy.Gateway, method, path, body string) result {
	r, err := http.NewRequestWithContext(ctx, method, g.Config().Host+path, strings.NewReader(body))
	if err != nil {
		return result{err: err}
	}
	r.Header.Set("Authorization", "Bearer client")
	response, err := client.Do(r)
	if err != nil {
		return result{err: err}
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return result{response.StatusCode, string(text), err}
}

// send sends one request to which there may be no response. The test waits for it at the
// end.
func send(t *testing.T, ctx context.Context, client *http.Client, g *faultproxy.Gateway, method, path, body string) <-chan result {
	ctx, cancel := context.WithCancel(ctx)
	answer, done := make(chan result, 1), make(chan struct{})
	go func() {
		defer close(done)
		answer <- ask(ctx, client, g, method, path, body)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return answer
}

// watch opens a watch and returns its events, followed by the error with which it ended.
func watch(t *testing.T, client *http.Client, g *faultproxy.Gateway, path string) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.Config().Host+path+"?watch=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	events, done := make(chan string, 100), make(chan struct{})
	go func() {
		defer close(done)
		lines := bufio.NewScanner(response.Body)
		for lines.Scan() {
			events <- lines.Text()
		}
		err := lines.Err()
		if err == nil {
			err = io.EOF
		}
		events <- "error: " + err.Error()
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = response.Body.Close()
	})
	return events
}

// expect waits for the next event of a watch, or the response to a request.
func expect[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(patience):
		t.Fatalf("timed out: %s", what)
	}
	panic("not reached")
}

// silent fails the test if there is something to receive.
func silent[T any](t *testing.T, what string, from <-chan T) {
	t.Helper()
	select {
	case got := <-from:
		t.Fatalf("%s: got %v", what, got)
	case <-time.After(moment):
	}
}

func wantCount(t *testing.T, g *faultproxy.Gateway, class faultproxy.Class, effect faultproxy.Action, want int) {
	t.Helper()
	if got := g.Counts().Of(class, effect); got != want {
		t.Errorf("%v %v: %d, want %d; all:\n%v", class, effect, got, want, counts(g))
	}
}

// counts returns a line for each class and action that had a request.
func counts(g *faultproxy.Gateway) string {
	var s strings.Builder
	for class := faultproxy.LeaseWrite; class <= faultproxy.ObjectWatch; class <<= 1 {
		for action := faultproxy.Pass; action <= faultproxy.Fail; action++ {
			if n := g.Counts().Of(class, action); n > 0 {
				fmt.Fprintf(&s, "%v: %v %d\n", class, action, n)
			}
		}
	}
	return s.String()
}
