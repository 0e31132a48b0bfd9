// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/tom-ludwig/operator-scaling/test/faultproxy"
)

func TestN2_WithoutAFaultEverythingPassesImmediately(t *testing.T) {
	server, g, client := start(t)

	got := ask(t.Context(), client, g, http.MethodPut, lease+"?timeout=1s", "content")
	if got.err != nil || got.body != "one: content" {
		t.Errorf("got %v, want the server's response", got)
	}
	events := watch(t, client, g, leases) // returns when the headers of the response have arrived
	for _, event := range []string{"first", "second"} {
		server.send(event)
		if got := expect(t, event, events); got != event {
			t.Errorf("got %q, want %q", got, event)
		}
	}
	server.mu.Lock()
	defer server.mu.Unlock()
	if got := server.headers[0].Get("Authorization"); got != "Bearer gateway" {
		t.Errorf("the server got the credentials %q, want the gateway's", got)
	}
}

func TestN3_HalfOpenWatch(t *testing.T) {
	for _, end := range []struct {
		name string
		do   func(*faultproxy.Gateway)
	}{
		{"N4_IsResetAtTheEnd", func(g *faultproxy.Gateway) { g.Set(faultproxy.Requests, faultproxy.Rule{}) }},
		{"IsResetByTheNextRule", func(g *faultproxy.Gateway) {
			g.Set(faultproxy.LeaseWatch, faultproxy.Rule{Action: faultproxy.Stall, Late: true})
		}},
		{"IsResetByCut", func(g *faultproxy.Gateway) { g.Cut(faultproxy.LeaseWatch) }},
	} {
		t.Run(end.name, func(t *testing.T) {
			server, g, client := start(t)
			events, others := watch(t, client, g, leases), watch(t, client, g, objects)

			g.Set(faultproxy.LeaseWatch, faultproxy.Rule{Action: faultproxy.Stall})
			server.send("missed")
			if got := expect(t, "the other class", others); got != "missed" {
				t.Errorf("the watch of objects got %q", got)
			}
			silent(t, "a stalled watch", events)
			server.CloseClientConnections() // the end of the stream is held as well
			silent(t, "a stalled watch whose server has gone", events)
			if got := ask(t.Context(), client, g, http.MethodPut, lease, "x"); got.err != nil {
				t.Errorf("writes must pass: %v", got.err)
			}
			wantCount(t, g, faultproxy.LeaseWatch, faultproxy.Stall, 1)
			end.do(g)
			if got := expect(t, "the end", events); !strings.Contains(got, "connection reset by peer") {
				t.Errorf("the watch got %q, want a reset", got)
			}
		})
	}
}

// A write does not pass a stall, whatever it waits for when the stall begins. Afterwards, its
// connection is reset, and a request that was held before it reached the server never does.
func TestN3_N4_AStallHoldsAWrite(t *testing.T) {
	stall, late := faultproxy.Rule{Action: faultproxy.Stall}, faultproxy.Rule{Action: faultproxy.Stall, Late: true}
	delay := faultproxy.Rule{Action: faultproxy.Delay, Delay: 2 * time.Second}
	respond := func(_ *api, release func()) { release() }
	for name, c := range map[string]struct {
		before, stall faultproxy.Rule
		meanwhile     func(server *api, release func())
		seen          int // by the server
		answered      bool
	}{
		"a new request":                     {stall, faultproxy.Rule{}, nil, 0, false},
		"a delayed request":                 {delay, stall, func(*api, func()) { time.Sleep(delay.Delay) }, 0, false},
		"a response":                        {faultproxy.Rule{}, stall, respond, 1, false},
		"a response that is delivered late": {faultproxy.Rule{}, late, respond, 1, true},
		// The client does not learn either that the server closed the connection.
		"a missing response": {faultproxy.Rule{}, late, func(server *api, _ func()) { server.CloseClientConnections() }, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			server, g, client := start(t)
			release := server.hold()
			t.Cleanup(release)
			g.Set(faultproxy.LeaseWrite, c.before)
			answer := send(t, t.Context(), client, g, http.MethodPut, lease, "x")
			if c.before.Action == faultproxy.Pass {
				eventually(t, "the server has the request", func() bool { return server.saw("x") == 1 })
			} else {
				eventually(t, "the gateway has the request", func() bool { return g.Counts().Of(faultproxy.LeaseWrite, c.before.Action) == 1 })
			}
			if c.stall.Action == faultproxy.Stall {
				g.Set(faultproxy.LeaseWrite, c.stall)
			}
			if c.meanwhile != nil {
				c.meanwhile(server, release)
			}
			silent(t, "a write during a stall", answer)
			release()
			g.Set(faultproxy.Requests, faultproxy.Rule{})
			if got := expect(t, "the end", answer); c.answered && got.err != nil || !c.answered && !got.wasReset() {
				t.Errorf("got %v", got)
			}
			if got := ask(t.Context(), client, g, http.MethodPut, lease, "later"); got.err != nil {
				t.Error(got.err)
			}
			if n := server.saw("leases/a x"); n != c.seen {
				t.Errorf("the server saw it %d times, want %d", n, c.seen)
			}
		})
	}
}

func TestN5_LateWriteAfterTheClientHasGone(t *testing.T) {
	for _, rule := range []faultproxy.Rule{
		{Action: faultproxy.Stall, Late: true},
		{Action: faultproxy.Delay, Delay: moment, Late: true},
	} {
		for _, next := range []faultproxy.Rule{
			{},
			{Action: faultproxy.Cut},
			{Action: faultproxy.Stall},
			{Action: faultproxy.DropResponse},
		} {
			t.Run(rule.String()+" then "+next.String(), func(t *testing.T) {
				noGoroutinesLeft(t)
				server := newAPI(t, "one")
				release := server.hold() // the client gives up before a response is possible
				t.Cleanup(release)
				g, client := newGateway(t, server), newClient(t)
				g.Set(faultproxy.LeaseWrite, rule)
				ctx, giveUp := context.WithCancel(t.Context())
				answer := send(t, ctx, client, g, http.MethodPut, lease, "late")
				eventually(t, "the request has arrived", func() bool { return g.Counts().Of(faultproxy.LeaseWrite, rule.Action) == 1 })
				giveUp()
				if got := expect(t, "the client gives up", answer); !errors.Is(got.err, context.Canceled) {
					t.Errorf("got %v", got)
				}
				if rule.Action == faultproxy.Stall {
					time.Sleep(moment)
					if n := server.saw("late"); n != 0 {
						t.Fatal("not held")
					}
				}
				g.Set(faultproxy.LeaseWrite, next)
				eventually(t, "the server has it", func() bool { return server.saw("late") == 1 })
				release()
				eventually(t, "it is executed", func() bool { return server.did("late") })
			})
		}
	}
}

func TestN5_ALateWatchDeliversMissedEvents(t *testing.T) {
	server, g, client := start(t)
	events := watch(t, client, g, leases)
	g.Set(faultproxy.LeaseWatch, faultproxy.Rule{Action: faultproxy.Stall, Late: true})
	server.send("first")
	server.send("second")
	silent(t, "a stalled watch", events)
	g.Set(faultproxy.LeaseWatch, faultproxy.Rule{})
	server.send("third")
	for _, want := range []string{"first", "second", "third"} {
		if got := expect(t, want, events); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// A watch that has missed nothing is reset too, because this cannot be known.
func TestN4_AQuietWatchIsResetAtTheEndOfAStall(t *testing.T) {
	_, g, client := start(t)
	events := watch(t, client, g, leases)
	g.Set(faultproxy.LeaseWatch, faultproxy.Rule{Action: faultproxy.Stall})
	g.Set(faultproxy.LeaseWatch, faultproxy.Rule{})
	if got := expect(t, "the end", events); !strings.Contains(got, "reset") {
		t.Errorf("the watch got %q, want a reset", got)
	}
}

// A request whose client gives up is not forwarded, unless the rule has Late set.
func TestDelayAfterTheClientHasGone(t *testing.T) {
	server, g, client := start(t)
	g.Set(faultproxy.ObjectWrite, faultproxy.Rule{Action: faultproxy.Delay, Delay: time.Hour})
	ctx, giveUp := context.WithCancel(t.Context())
	answer := send(t, ctx, client, g, http.MethodPatch, object, "x")
	eventually(t, "the request has arrived", func() bool { return g.Counts().Of(faultproxy.ObjectWrite, faultproxy.Delay) == 1 })
	giveUp()
	expect(t, "the client gives up", answer)
	g.Close()
	if n := server.saw("x"); n != 0 {
		t.Error("the server saw it")
	}
}

func TestDelay(t *testing.T) {
	server, g, client := start(t)
	events := watch(t, client, g, objects)
	g.Set(faultproxy.Objects, faultproxy.Rule{Action: faultproxy.Delay, Delay: moment})
	begin := time.Now()
	if got := ask(t.Context(), client, g, http.MethodGet, object, ""); got.err != nil {
		t.Error(got.err)
	}
	if took := time.Since(begin); took < moment {
		t.Errorf("a request took %v, want at least %v", took, moment)
	}
	begin = time.Now()
	server.send("event")
	expect(t, "an event", events)
	if took := time.Since(begin); took < moment {
		t.Errorf("an event took %v, want at least %v", took, moment)
	}
	wantCount(t, g, faultproxy.ObjectWatch, faultproxy.Delay, 1)
}

func TestN6_DroppedResponse(t *testing.T) {
	server, g, client := start(t)
	running := watch(t, client, g, leases)
	g.Set(faultproxy.Leases, faultproxy.Rule{Action: faultproxy.DropResponse})
	if got := ask(t.Context(), client, g, http.MethodPut, lease, "done"); !got.wasReset() {
		t.Errorf("got %v, want a reset", got)
	}
	if n := server.saw("done"); n != 1 {
		t.Errorf("the server saw it %d times, want once", n)
	}
	wantCount(t, g, faultproxy.LeaseWrite, faultproxy.DropResponse, 1)
	if !server.did("done") {
		t.Error("the server did not execute it")
	}
	server.send("event")
	if got := expect(t, "an event", running); got != "event" {
		t.Errorf("a watch that started before got %q", got)
	}
	if got := ask(t.Context(), client, g, http.MethodGet, leases+"?watch=1", ""); got.err == nil {
		t.Errorf("a new watch got %v", got)
	}
}

func TestN6_DroppedResponseAfterTheClientHasGone(t *testing.T) {
	for _, under := range []string{"a new request", "one in flight"} {
		t.Run(under, func(t *testing.T) {
			noGoroutinesLeft(t)
			server := newAPI(t, "one")
			release := server.hold()
			t.Cleanup(release)
			g, client := newGateway(t, server), newClient(t)
			rule := faultproxy.Rule{Action: faultproxy.DropResponse}
			if under == "a new request" {
				g.Set(faultproxy.LeaseWrite, rule)
			}
			ctx, giveUp := context.WithCancel(t.Context())
			answer := send(t, ctx, client, g, http.MethodPut, lease, "done")
			eventually(t, "the server has it", func() bool { return server.saw("done") == 1 })
			if under == "one in flight" {
				g.Set(faultproxy.LeaseWrite, rule)
			}
			giveUp()
			expect(t, "the client gives up", answer)
			g.Set(faultproxy.LeaseWrite, faultproxy.Rule{})
			time.Sleep(moment) // enough time for a wrong cancellation
			release()
			eventually(t, "it was executed", func() bool { return server.did("done") })
		})
	}
}

func TestN6_DroppedResponseThatHangs(t *testing.T) {
	server, g, client := start(t)
	g.Set(faultproxy.LeaseWrite, faultproxy.Rule{Action: faultproxy.DropResponse, Hang: true})
	answer := send(t, t.Context(), client, g, http.MethodPut, lease, "done")
	eventually(t, "it was executed", func() bool { return server.did("done") })
	silent(t, "a dropped answer", answer)
	g.Set(faultproxy.LeaseWrite, faultproxy.Rule{})
	if got := expect(t, "the end", answer); !got.wasReset() {
		t.Errorf("got %v, want a reset", got)
	}
}

func TestN7_CutAndFail(t *testing.T) {
	server, g, client := start(t)
	events := watch(t, client, g, objects)

	g.Set(faultproxy.Objects, faultproxy.Rule{Action: faultproxy.Cut})
	if got := expect(t, "the end of the watch", events); !strings.Contains(got, "reset") {
		t.Errorf("the watch got %q, want a reset", got)
	}
	if got := ask(t.Context(), client, g, http.MethodPost, object, "cut"); !got.wasReset() {
		t.Errorf("got %v, want a reset", got)
	}
	wantCount(t, g, faultproxy.ObjectWatch, faultproxy.Cut, 1)
	for _, code := range []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable} {
		g.Set(faultproxy.Objects, faultproxy.Rule{Action: faultproxy.Fail, Status: code})
		if got := ask(t.Context(), client, g, http.MethodPost, object, "failed"); got.code != code || !strings.Contains(got.body, `"kind":"Status"`) {
			t.Errorf("got %v, want a status of %d", got, code)
		}
	}
	wantCount(t, g, faultproxy.ObjectWrite, faultproxy.Fail, 3)
	if n := server.saw(http.MethodPost); n != 0 {
		t.Errorf("the server saw %d requests", n)
	}
	g.Set(faultproxy.Objects, faultproxy.Rule{})
	if got := ask(t.Context(), client, g, http.MethodPost, object, "passes"); got.err != nil {
		t.Errorf("after the rule has ended: %v", got.err)
	}
}

func TestN8_Probability(t *testing.T) {
	noGoroutinesLeft(t)
	server := newAPI(t, "one")
	run := func() (hits string) {
		g, client := newGateway(t, server), newClient(t)
		g.Set(faultproxy.ObjectWrite, faultproxy.Rule{Action: faultproxy.Fail, Status: 500, Probability: 0.5})
		for range 64 {
			if ask(t.Context(), client, g, http.MethodPost, object, "").code == 500 {
				hits += "x"
			} else {
				hits += "."
			}
		}
		n := strings.Count(hits, "x")
		wantCount(t, g, faultproxy.ObjectWrite, faultproxy.Fail, n)
		wantCount(t, g, faultproxy.ObjectWrite, faultproxy.Pass, 64-n)
		return hits
	}
	first, second := run(), run()
	if first != second {
		t.Errorf("the same seed hit\n%s and\n%s", first, second)
	}
	if n := strings.Count(first, "x"); n < 16 || n > 48 {
		t.Errorf("%d of 64 requests were affected", n)
	}
}

func TestRoute(t *testing.T) {
	noGoroutinesLeft(t)
	one, two := newAPI(t, "one"), newAPI(t, "two")
	g, client := newGateway(t, one, two), newClient(t)
	g.Route(faultproxy.LeaseRead, 1)
	for path, want := range map[string]string{lease: "two: ", object: "one: "} {
		if got := ask(t.Context(), client, g, http.MethodGet, path, ""); got.body != want {
			t.Errorf("GET %s: got %v, want %q", path, got, want)
		}
	}
	g.Route(faultproxy.Requests, 0)
	if got := ask(t.Context(), client, g, http.MethodGet, lease, ""); got.body != "one: " {
		t.Errorf("routed back: got %v", got)
	}
}

func TestUnreachable(t *testing.T) {
	server, g, client := start(t)
	server.Close()
	if got := ask(t.Context(), client, g, http.MethodPut, lease, ""); !got.wasReset() {
		t.Errorf("got %v, want a reset and no response of the proxy itself", got)
	}
}

func TestN10_CloseEndsRequestsInFlight(t *testing.T) {
	server, g, client := start(t)
	running, stalled := watch(t, client, g, objects), watch(t, client, g, leases)
	g.Set(faultproxy.LeaseWatch, faultproxy.Rule{Action: faultproxy.Stall, Late: true})
	g.Set(faultproxy.LeaseWrite, faultproxy.Rule{Action: faultproxy.Stall, Late: true})
	g.Set(faultproxy.LeaseRead, faultproxy.Rule{Action: faultproxy.Delay, Delay: time.Hour, Late: true})
	g.Set(faultproxy.ObjectWrite, faultproxy.Rule{Action: faultproxy.DropResponse, Hang: true})
	answers := []<-chan result{
		send(t, t.Context(), client, g, http.MethodPut, lease, "held"),
		send(t, t.Context(), client, g, http.MethodGet, lease, ""),
		send(t, t.Context(), client, g, http.MethodPut, object, "dropped"),
	}
	server.send("event")
	eventually(t, "all are in flight", func() bool {
		c := g.Counts()
		return c.Of(faultproxy.LeaseWrite|faultproxy.LeaseRead, faultproxy.Stall, faultproxy.Delay)+c.Of(faultproxy.ObjectWrite, faultproxy.DropResponse) == 3
	})
	g.Close()
	g.Close()
	expect(t, "an event", running)
	for _, events := range []<-chan string{running, stalled} {
		if got := expect(t, "the end of a watch", events); !strings.HasPrefix(got, "error") {
			t.Errorf("got %q", got)
		}
	}
	for _, answer := range answers {
		if got := expect(t, "the end of a request", answer); got.err == nil {
			t.Errorf("got %v", got)
		}
	}
	if n := server.saw("held"); n != 0 {
		t.Error("a held request was forwarded")
	}
}

func TestStartGatewayRejectsInvalidConfig(t *testing.T) {
	for name, upstreams := range map[string][]*rest.Config{
		"no upstream": nil,
		"bad host":    {{Host: "http://a b"}},
	} {
		if g, err := faultproxy.StartGateway(1, upstreams...); err == nil {
			g.Close()
			t.Errorf("%s: no error", name)
		}
	}
}
