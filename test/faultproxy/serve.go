// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

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
	r.ContentLength = int64(len(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Body, _ = r.GetBody()

	x, end := g.begin(r)
	defer end()
	if x.first != nil && x.first.Action == Fail {
		fail(w, r, x.first.Status)
		return
	}
	complete := false
	defer func() {
		if !complete { // the client sees the end of a connection, never a response of the proxy itself
			g.mu.Lock()
			defer g.mu.Unlock()
			x.reset()
		}
	}()
	proxy := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(x.upstream.base)
			p.Out.Header.Del("Authorization") // the client's
		},
		Transport:     x,
		FlushInterval: -1, // N2
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:      discard,
	}
	proxy.ServeHTTP(w, r)
	complete = true
}

// RoundTrip forwards the request to the server when its rule lets it pass. After an error,
// the client's connection must be reset.
func (x *exchange) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := x.admit(); err != nil {
		return nil, err
	}
	response, forwardErr := x.upstream.RoundTrip(r.WithContext(x.forwarded))
	delivers, err := x.answer() // a stall also hides a missing response
	if forwardErr != nil {
		return nil, forwardErr
	}
	body := response.Body
	response.Body = &responseBody{body, x}
	if err == nil && !delivers {
		err = x.drop(body)
	}
	if err != nil {
		_ = body.Close()
		return nil, err
	}
	return response, nil
}

// until waits for a channel. It returns errOver if the context ends first.
func until[T any](ctx context.Context, c <-chan T) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return errOver
	}
}

// admit waits until the rule that affects a new request lets it pass to the server. A stall
// that starts while a request is being delayed holds it too.
func (x *exchange) admit() error {
	for rule := x.first; rule != nil; {
		switch rule.Action {
		case Cut:
			return errOver
		case Stall:
			if err := x.hold(rule); err != nil {
				return err
			}
		case Delay:
			if err := until(x.forwarded, time.After(rule.Delay)); err != nil {
				return err
			}
		default:
			return nil
		}
		if rule.Late {
			return nil
		}
		if rule = x.rule(); rule != nil && rule.Action != Stall {
			return nil
		}
	}
	return nil
}

// hold waits until a stall ends.
func (x *exchange) hold(stall *ruling) error {
	if err := until(x.forwarded, stall.ended); err != nil || !stall.Late {
		return errOver // Set has reset the connection
	}
	return nil
}

// answer waits while a response of the server is stalled. It reports whether the client
// must get it.
func (x *exchange) answer() (delivers bool, err error) {
	for {
		x.gateway.mu.Lock()
		hit, dropped := x.hit, x.dropped
		stalled := hit != nil && hit.Action == Stall
		x.answered = x.answered || !dropped && !stalled
		x.gateway.mu.Unlock()
		if dropped || !stalled {
			return !dropped, nil
		}
		if err := x.hold(hit); err != nil {
			return false, err
		}
	}
}

// drop reads a response from the server that the client does not get.
func (x *exchange) drop(body io.Reader) error {
	if !x.isWatch() {
		if _, err := io.Copy(io.Discard, body); err != nil {
			return err
		}
	}
	x.gateway.mu.Lock()
	x.gateway.counts[x.class.index()][DropResponse]++
	x.gateway.mu.Unlock()
	if rule := x.rule(); rule != nil && rule.Hang {
		_ = until(x.client, rule.ended)
	}
	return errOver
}

// responseBody is the body of a server's response. It applies the rules to each part that
// arrives after the headers, and to its end.
type responseBody struct {
	io.ReadCloser
	*exchange
}

func (b *responseBody) Read(p []byte) (int, error) {
	began := time.Now()
	n, readErr := b.ReadCloser.Read(p)
	// Data that is available immediately arrived while the part before it was delayed.
	// Delaying it again would make a busy stream fall behind more and more.
	const alreadyThere = time.Millisecond // shorter than the time until a server sends something new
	delayed := time.Since(began) < alreadyThere
	for {
		rule := b.rule()
		var err error
		switch {
		case rule != nil && rule.Action == Stall:
			err = b.hold(rule)
		case rule != nil && rule.Action == Delay && b.isWatch() && !delayed:
			delayed = true
			err = until(b.forwarded, time.After(rule.Delay))
		default:
			return n, readErr
		}
		if err != nil {
			return 0, err
		}
	}
}

// fail responds like an API server that refuses a request.
func fail(w http.ResponseWriter, r *http.Request, code int) {
	status := apierrors.NewGenericServerResponse(code, r.Method, schema.GroupResource{}, "", "", 0, false).ErrStatus
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	if code == http.StatusTooManyRequests {
		status.Details.RetryAfterSeconds = 1
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(status) // fails if the client has gone
}
