// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// forwardTimeout ends a request, but not a watch, to which the server does not respond. It
// is longer than the longest time that kube-apiserver takes.
const forwardTimeout = 90 * time.Second

// errOver means that a response must not be delivered: a rule has reset the connection, or
// the client has gone, or the gateway is being closed.
var errOver = errors.New("the exchange is over")

// serve handles one request.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request) {
	// Read the whole body: only after that does the HTTP server notice that a client has gone.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	x := g.begin(r)
	defer g.end(x)
	if x.first != nil && x.first.Action == Fail {
		fail(w, x.first.Status)
		return
	}
	if err := g.admit(r.Context(), x); err == nil {
		err = g.forward(w, r, x, body)
		if err == nil {
			return
		}
		if !errors.Is(err, errOver) && r.Context().Err() == nil && g.ctx.Err() == nil {
			g.lockAndCount(x, Unreachable)
		}
	}
	// The client sees the end of a connection, never a response of the proxy itself.
	g.mu.Lock()
	x.reset()
	g.mu.Unlock()
	panic(http.ErrAbortHandler)
}

// admit waits until the rule that affects a new request lets it pass to the server. A stall
// that starts while a request is being delayed holds it too.
func (g *Gateway) admit(client context.Context, x *exchange) error {
	for rule := x.first; rule != nil; {
		var wait <-chan time.Time
		var ended <-chan struct{}
		switch rule.Action {
		case Cut:
			return errOver
		case Stall:
			ended = rule.ended
		case Delay:
			wait = time.After(rule.Delay)
		default:
			return nil
		}
		gone := client.Done()
		if rule.Late && !x.isWatch() {
			gone = nil
		}
		select {
		case <-wait:
		case <-ended:
			if !rule.Late {
				return errOver // Set has reset the connection
			}
		case <-gone:
			return errOver
		case <-g.ctx.Done():
			return errOver
		}
		g.mu.Lock()
		late := rule.Late
		if late {
			x.wentLate = true
			g.count(x, WentLate)
		}
		rule = x.hit
		g.mu.Unlock()
		if late || rule == nil || rule.Action != Stall {
			return nil
		}
	}
	return nil
}

// forward sends a request to the server and the response to the client. After an error, the
// client's connection must be reset.
func (g *Gateway) forward(w http.ResponseWriter, r *http.Request, x *exchange, body []byte) error {
	ctx, cancel := context.WithCancel(g.ctx)
	defer g.cancelWithClient(r.Context(), x, cancel)()
	if !x.isWatch() {
		timeout := time.AfterFunc(forwardTimeout, cancel)
		defer timeout.Stop()
	}
	response, forwardErr := x.upstream.forward(ctx, r, body)
	if forwardErr == nil {
		defer func() { _ = response.Body.Close() }()
		g.carriedOut(x, response.StatusCode, x.wentLate)
	}
	answers, err := g.answer(r.Context(), x) // a stall also hides a missing response
	switch {
	case forwardErr != nil:
		return forwardErr
	case err != nil:
		return err
	case !answers:
		return g.drop(r.Context(), x, response)
	}
	for name, values := range response.Header {
		w.Header()[name] = values
	}
	for _, name := range hopByHop {
		w.Header().Del(name)
	}
	w.WriteHeader(response.StatusCode)
	flush := http.NewResponseController(w).Flush
	if err := flush(); err != nil {
		return errOver
	}
	chunk := make([]byte, 32<<10)
	for {
		began := time.Now()
		n, readErr := response.Body.Read(chunk)
		// Data that is available immediately arrived while the chunk before it was delayed.
		// Delaying it again would make a busy stream fall behind more and more.
		waited := time.Since(began) < alreadyThere
		if err := g.chunk(r.Context(), x, waited); err != nil {
			return err
		}
		if n > 0 {
			if _, err := w.Write(chunk[:n]); err != nil {
				return errOver
			}
			if err := flush(); err != nil {
				return errOver
			}
		}
		if errors.Is(readErr, io.EOF) {
			return nil
		}
		if readErr != nil {
			return readErr
		}
	}
}

// answer waits while a response of the server is stalled. It reports whether the client
// must get it.
func (g *Gateway) answer(client context.Context, x *exchange) (bool, error) {
	for {
		g.mu.Lock()
		hit, discarded := x.hit, x.discarded
		stalled := hit != nil && hit.Action == Stall
		if !discarded && !stalled {
			x.answered = true
		}
		g.mu.Unlock()
		switch {
		case discarded:
			return false, nil
		case !stalled:
			return true, nil
		}
		if err := g.hold(client, x, hit); err != nil {
			return false, err
		}
	}
}

// alreadyThere is shorter than the time until a server sends something new.
const alreadyThere = time.Millisecond

// chunk waits while a part of a response after its headers, or its end, is stalled, or
// delayed if it has not been delayed yet.
func (g *Gateway) chunk(client context.Context, x *exchange, delayed bool) error {
	for {
		g.mu.Lock()
		hit := x.hit
		g.mu.Unlock()
		switch {
		case hit != nil && hit.Action == Stall:
			if err := g.hold(client, x, hit); err != nil {
				return err
			}
		case hit != nil && hit.Action == Delay && x.isWatch() && !delayed:
			delayed = true
			select {
			case <-time.After(hit.Delay):
			case <-client.Done():
				return errOver
			case <-g.ctx.Done():
				return errOver
			}
		default:
			return nil
		}
	}
}

// hold waits until a stall ends.
func (g *Gateway) hold(client context.Context, x *exchange, stall *ruling) error {
	select {
	case <-stall.ended:
	case <-client.Done():
		return errOver
	case <-g.ctx.Done():
		return errOver
	}
	if !stall.Late {
		return errOver // Set has reset the connection
	}
	g.lockAndCount(x, WentLate)
	return nil
}

// drop reads a response from the server that the client does not get.
func (g *Gateway) drop(client context.Context, x *exchange, response *http.Response) error {
	if !x.isWatch() {
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return err
		}
	}
	g.carriedOut(x, response.StatusCode, !x.wentLate) // once
	g.lockAndCount(x, ResponseDropped)
	g.mu.Lock()
	hit := x.hit
	g.mu.Unlock()
	if hit == nil || !hit.Hang {
		return errOver
	}
	select {
	case <-hit.ended:
	case <-client.Done():
	case <-g.ctx.Done():
	}
	return errOver
}

// carriedOut counts a request that the server has executed under a rule.
func (g *Gateway) carriedOut(x *exchange, status int, counts bool) {
	if counts && !x.isWatch() && status < http.StatusMultipleChoices {
		g.lockAndCount(x, CarriedOut)
	}
}

// fail responds like an API server that refuses a request.
func fail(w http.ResponseWriter, code int) {
	status := metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure,
		Code:     int32(code),
		Message:  fmt.Sprintf("a rule of the fault proxy returns %d", code),
	}
	switch code {
	case http.StatusTooManyRequests:
		const seconds = 1
		status.Reason = metav1.StatusReasonTooManyRequests
		status.Details = &metav1.StatusDetails{RetryAfterSeconds: seconds}
		w.Header().Set("Retry-After", fmt.Sprint(seconds))
	case http.StatusInternalServerError:
		status.Reason = metav1.StatusReasonInternalError
	case http.StatusServiceUnavailable:
		status.Reason = metav1.StatusReasonServiceUnavailable
	case http.StatusGatewayTimeout:
		status.Reason = metav1.StatusReasonTimeout
	case http.StatusForbidden:
		status.Reason = metav1.StatusReasonForbidden
	case http.StatusConflict:
		status.Reason = metav1.StatusReasonConflict
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(status) // fails if the client has gone
}
