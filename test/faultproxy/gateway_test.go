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
	noGoroutinesLeft(t)
	server := newAPI(t, "one")
	g, client := newGateway(t, server), newClient(t)

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
		do   func(*testing.T, *api, *faultproxy.Gateway)
		want string
	}{
		{"N4_IsResetAtTheEnd", func(t *testing.T, _ *api, g *faultproxy.Gateway) {
			set(t, g, faultproxy.Requests, faultproxy.Rule{})
		}, "connection reset by peer"},
		{"IsResetByTheNextRule", func(t *testing.T, _ *api, g *faultproxy.Gateway) {
			set(t, g, faultproxy.LeaseWatch, faultproxy.Rule{Action: faultproxy.Stall, Late: true})
		}, "connection reset by peer"},
		{"IsResetByCut", func(_ *testing.T, _ *api, g *faultproxy.Gateway) {
			g.Cut(faultproxy.LeaseWatch)
		}, "connection reset by peer"},
	} {
		t.Run(end.name, func(t *testing.T) {
			noGoroutinesLeft(t)
			server := newAPI(t, "one")
			g, client := newGateway(t, server), newClient(t)
			events, others := watch(t, client, g, leases), watch(t, client, g, object)

			set(t, g, faultproxy.LeaseWatch, faultproxy.Rule{Action: faultproxy.Stall})
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
			wantCount(t, g, faultproxy.LeaseWatch, faultproxy.WasStalled, 1)
			end.do(t, server, g)
			if got := expect(t, "the end", events); !strings.Contains(got, end.want) {
				t.Errorf("the watch got %q, want %q", got, end.want)
			}
		})
	}
}

// A watch that has missed nothing is reset too, because this cannot be known.
func TestN4_AQuietWatchIsResetAtTheEndOfAStall(t *testing.T) {
	noGoroutinesLeft(t)
	server := newAPI(t, "one")
	g, client := newGateway(t, server), newClient(t)
	events := watch(t, client, g, leases)
	set(t, g, faultproxy.LeaseWatch, faultproxy.Rule{Action: faultproxy.Stall})
	set(t, g, faultproxy.LeaseWatch, faultproxy.Rule{})
	if got := expect(t, "the end", events); !strings.Contains(got, "reset") {
		t.Errorf("the watch got %q, want a reset", got)
	}
}

func TestN4_AStalledRequestNeverReachesTheServer(t *testing.T) {
	noGoroutinesLeft(t)
	server := newAPI(t, "one")
	g, client := newGateway(t, server), newClient(t)

	set(t, g, faultproxy.Writes, faultproxy.Rule{Action: faultproxy.Stall})
	answer := start(t, t.Context(), client, g, http.MethodPut, lease, "stalled")
	silent(t, "a stalled write", answer)
	set(t, g, faultproxy.Requests, faultproxy.Rule{})
	if got := expect(t, "the end of a stalled write", answer); !got.wasReset() {
		t.Errorf("got %v, want a reset", got)
	}
	if got := ask(t.Context(), client, g, http.MethodPut, lease, "later"); got.err != nil {
		t.Error(got.err)
	}
	if n := server.saw("stalled"); n != 0 {
		t.Errorf("the server saw it %d times", n)
	}
}

// A response that is in flight when a stall starts does not arrive.
func TestN3_AStallHoldsResponses(t *testing.T) {
	for _, rule := range []faultproxy.Rule{{Action: faultproxy.Stall}, {Action: faultproxy.Stall, Late: true}} {
		t.Run(rule.String(), func(t *testing.T) {
			noGoroutinesLeft(t)
			server := newAPI(t, "one")
			release := server.hold()
			t.Cleanup(release)
			g, client := newGateway(t, server), newClient(t)

			answer := start(t, t.Context(), client, g, http.MethodPut, lease, "x")
			eventually(t, "the server has the request", func() bool { return server.saw("x") == 1 })
			set(t, g, faultproxy.LeaseWrite, rule)
			release()
			silent(t, "an answer during a stall", answer)
			set(t, g, faultproxy.LeaseWrite, faultproxy.Rule{})
			got := expect(t, "the end", answer)
			if rule.Late && got.err != nil || !rule.Late && !got.wasReset() {
				t.Errorf("got %v", got)
			}
		})
	}
}

// The client does not learn either that the server closed the connection.
func TestN3_AStallHidesAMissingResponse(t *testing.T) {
	noGoroutinesLeft(t)
	server := newAPI(t, "one")
	release := server.hold()
	t.Cleanup(release)
	g, client := newGateway(t, server), newClient(t)
	answer := start(t, t.Context(), client, g, http.MethodPut, lease, "x")
	eventually(t, "the server has the request", func() bool { return server.saw("x") == 1 })
	set(t, g, faultproxy.LeaseWrite, faultproxy.Rule{Action: faultproxy.Stall, Late: true})
	server.CloseClientConnections()
	silent(t, "a request during a stall", answer)
	set(t, g, faultproxy.LeaseWrite, faultproxy.Rule{})
	if got := expect(t, "the end", answer); !got.wasReset() {
		t.Errorf("got %v, want a reset", got)
	}
	wantCount(t, g, faultproxy.LeaseWrite, faultproxy.Unreachable, 1)
}

// A request that is being delayed when a stall starts does not pass.
func TestN3_AStallHoldsDelayedRequests(t *testing.T) {
	noGoroutinesLeft(t)
	server := newAPI(t, "one")
	g, client := newGateway(t, server), newClient(t)
	set(t, g, faultproxy.ObjectWrite, faultproxy.Rule{Action: faultproxy.Delay, Delay: 2 * time.Second})
	answer := start(t, t.Context(), client, g, http.MethodPut, object, "x")
	eventually(t, "the request has arrived", func() bool { return g.Counts().Of(faultproxy.ObjectWrite, faultproxy.WasDelayed) == 1 })
	set(t, g, faultproxy.ObjectWrite, faultproxy.Rule{Action: faultproxy.Stall})
	time.Sleep(2 * time.Second)
	silent(t, "a request during a stall", answer)
	set(t, g, faultproxy.ObjectWrite, faultproxy.Rule{})
	if got := expect(t, "the end", answer); !got.wasReset() {
		t.Errorf("got %v, want a reset", got)
	}
	if n := server.saw("x"); n != 0 {
		t.Errorf("the server saw it %d times", n)
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
				set(t, g, faultproxy.LeaseWrite, rule)
				ctx, giveUp := context.WithCancel(t.Context())
				answer := start(t, ctx, client, g, http.MethodPut, lease, "late")
				effect := faultproxy.WasStalled
				if rule.Action == faultproxy.Delay {
					effect = faultproxy.WasDelayed
				}
				eventually(t, "the request has arrived", func() bool { return g.Counts().Of(faultproxy.LeaseWrite, effect) == 1 })
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
				set(t, g, faultproxy.LeaseWrite, next)
				eventually(t, "the server has it", func() bool { return server.saw("late") == 1 })
				release()
				eventually(t, "it is counted", func() bool { return g.Counts().Of(faultproxy.LeaseWrite, faultproxy.CarriedOut) == 1 })
				wantCount(t, g, faultproxy.LeaseWrite, faultproxy.WentLate, 1)
			})
		}
	}
}

func TestN5_ALateWatchDeliversMissedEvents(t *testing.T) {
	noGoroutinesLeft(t)
	server := newAPI(t, "one")
	g, client := newGateway(t, server), newClient(t)
	events := watch(t, client, g, leases)
	set(t, g, faultproxy.LeaseWatch, faultproxy.Rule{Action: faultproxy.Stall, Late: true})
	server.send("first")
	server.send("second")
	silent(t, "a stalled watch", events)
	set(t, g, faultproxy.LeaseWatch, faultproxy.Rule{})
	server.send("third")
	for _, want := range []string{"first", "second", "third"} {
		if got := expect(t, want, events); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// A request whose client gives up is not forwarded, unless the rule has Late set.
func TestDelayAfterTheClientHasGone(t *testing.T) {
	noGoroutinesLeft(t)
	server := newAPI(t, "one")
	g, client := newGateway(t, server), newClient(t)
	set(t, g, faultproxy.ObjectWrite, faultproxy.Rule{Action: faultproxy.Delay, Delay: time.Hour})
	ctx, giveUp := context.WithCancel(t.Context())
	answer := start(t, ctx, client, g, http.MethodPatch, object, "x")
	eventually(t, "the request has arrived", func() bool { return g.Counts().Of(faultproxy.ObjectWrite, faultproxy.WasDelayed) == 1 })
	giveUp()
	expect(t, "the client gives up", answer)
	g.Close()
	if n := server.saw("x"); n != 0 {
		t.Error("the server saw it")
	}
}

func TestDelay(t *testing.T) {
	noGoroutinesLeft(t)
	server := newAPI(t, "one")
	g, client := newGateway(t, server), newClient(t)
	events := watch(t, client, g, object)
	set(t, g, faultproxy.Objects, faultproxy.Rule{Action: faultproxy.Delay, Delay: moment})
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
	wantCount(t, g, faultproxy.ObjectWatch, faultproxy.WasDelayed, 1)
}

func TestN6_DroppedResponse(t *testing.T) {
	noGoroutinesLeft(t)
	server := newAPI(t, "one")
	g, client := newGateway(t, server), newClient(t)
	running := watch(t, client, g, leases)
	set(t, g, faultproxy.Leases, faultproxy.Rule{Action: faultproxy.DropResponse})
	if got := ask(t.Context(), client, g, http.MethodPut, lease, "done"); !got.wasReset() {
		t.Errorf("got %v, want a reset", got)
	}
	if n := server.saw("done"); n != 1 {
		t.Errorf("the server saw it %d times, want once", n)
	}
	wantCount(t, g, faultproxy.LeaseWrite, faultproxy.ResponseDropped, 1)
	wantCount(t, g, faultproxy.LeaseWrite, faultproxy.CarriedOut, 1)
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
				set(t, g, faultproxy.LeaseWrite, rule)
			}
			ctx, giveUp := context.WithCancel(t.Context())
			answer := start(t, ctx, client, g, http.MethodPut, lease, "done")
			eventually(t, "the server has it", func() bool { return server.saw("done") == 1 })
			if under == "one in flight" {
				set(t, g, faultproxy.LeaseWrite, rule)
			}
			giveUp()
			expect(t, "the client gives up", answer)
			set(t, g, faultproxy.LeaseWrite, faultproxy.Rule{})
			time.Sleep(moment) // enough time for a wrong cancellation
			release()
			eventually(t, "it was executed", func() bool { return g.Counts().Of(faultproxy.LeaseWrite, faultproxy.CarriedOut) == 1 })
		})
	}
}

func TestN6_DroppedResponseThatHangs(t *testing.T) {
	noGoroutinesLeft(t)
	server := newAPI(t, "one")
	g, client := newGateway(t, server), newClient(t)
	set(t, g, faultproxy.LeaseWrite, faultproxy.Rule{Action: faultproxy.DropResponse, Hang: true})
	answer := start(t, t.Context(), client, g, http.MethodPut, lease, "done")
	eventually(t, "it was executed", func() bool { return g.Counts().Of(faultproxy.LeaseWrite, faultproxy.CarriedOut) == 1 })
	silent(t, "a dropped answer", answer)
	set(t, g, faultproxy.LeaseWrite, faultproxy.Rule{})
	if got := expect(t, "the end", answer); !got.wasReset() {
		t.Errorf("got %v, want a reset", got)
	}
}

func TestN7_CutAndFail(t *testing.T) {
	noGoroutinesLeft(t)
	server := newAPI(t, "one")
	g, client := newGateway(t, server), newClient(t)
	events := watch(t, client, g, object)

	set(t, g, faultproxy.Objects, faultproxy.Rule{Action: faultproxy.Cut})
	if got := expect(t, "the end of the watch", events); !strings.Contains(got, "reset") {
		t.Errorf("the watch got %q, want a reset", got)
	}
	if got := ask(t.Context(), client, g, http.MethodPost, object, "cut"); !got.wasReset() {
		t.Errorf("got %v, want a reset", got)
	}
	wantCount(t, g, faultproxy.ObjectWatch, faultproxy.WasCut, 1)
	for _, code := range []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable} {
		set(t, g, faultproxy.Objects, faultproxy.Rule{Action: faultproxy.Fail, Status: code})
		if got := ask(t.Context(), client, g, http.MethodPost, object, "failed"); got.code != code || !strings.Contains(got.body, `"kind":"Status"`) {
			t.Errorf("got %v, want a status of %d", got, code)
		}
	}
	wantCount(t, g, faultproxy.ObjectWrite, faultproxy.WasFailed, 3)
	if n := server.saw(http.MethodPost); n != 0 {
		t.Errorf("the server saw %d requests", n)
	}
	set(t, g, faultproxy.Objects, faultproxy.Rule{})
	if got := ask(t.Context(), client, g, http.MethodPost, object, "passes"); got.err != nil {
		t.Errorf("after the rule has ended: %v", got.err)
	}
}

func TestN8_Probability(t *testing.T) {
	noGoroutinesLeft(t)
	server := newAPI(t, "one")
	run := func() (hits string) {
		g, client := newGateway(t, server), newClient(t)
		set(t, g, faultproxy.ObjectWrite, faultproxy.Rule{Action: faultproxy.Fail, Status: 500, Probability: 0.5})
		for range 64 {
			if ask(t.Context(), client, g, http.MethodPost, object, "").code == 500 {
				hits += "x"
			} else {
				hits += "."
			}
		}
		n := strings.Count(hits, "x")
		wantCount(t, g, faultproxy.ObjectWrite, faultproxy.WasFailed, n)
		wantCount(t, g, faultproxy.ObjectWrite, faultproxy.Passed, 64-n)
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
	noGoroutinesLeft(t)
	server := newAPI(t, "one")
	g, client := newGateway(t, server), newClient(t)
	server.Close()
	if got := ask(t.Context(), client, g, http.MethodPut, lease, ""); !got.wasReset() {
		t.Errorf("got %v, want a reset and no response of the proxy itself", got)
	}
	wantCount(t, g, faultproxy.LeaseWrite, faultproxy.Unreachable, 1)
}

func TestN10_CloseEndsRequestsInFlight(t *testing.T) {
	noGoroutinesLeft(t)
	server := newAPI(t, "one")
	g, client := newGateway(t, server), newClient(t)
	running, stalled := watch(t, client, g, object), watch(t, client, g, leases)
	set(t, g, faultproxy.LeaseWatch, faultproxy.Rule{Action: faultproxy.Stall, Late: true})
	set(t, g, faultproxy.LeaseWrite, faultproxy.Rule{Action: faultproxy.Stall, Late: true})
	set(t, g, faultproxy.LeaseRead, faultproxy.Rule{Action: faultproxy.Delay, Delay: time.Hour, Late: true})
	set(t, g, faultproxy.ObjectWrite, faultproxy.Rule{Action: faultproxy.DropResponse, Hang: true})
	answers := []<-chan result{
		start(t, t.Context(), client, g, http.MethodPut, lease, "held"),
		start(t, t.Context(), client, g, http.MethodGet, lease, ""),
		start(t, t.Context(), client, g, http.MethodPut, object, "dropped"),
	}
	server.send("event")
	eventually(t, "all are in flight", func() bool {
		c := g.Counts()
		return c.Of(faultproxy.LeaseWrite, faultproxy.WasStalled)+c.Of(faultproxy.LeaseRead, faultproxy.WasDelayed)+
			c.Of(faultproxy.ObjectWrite, faultproxy.ResponseDropped) == 3
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
		if g, err := faultproxy.StartGateway(faultproxy.GatewayConfig{Upstreams: upstreams}); err == nil {
			g.Close()
			t.Errorf("%s: no error", name)
		}
	}
}
