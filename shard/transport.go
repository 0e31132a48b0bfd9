// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// WrapTransport is for the Wrap of a rest.Config: the clients that are made of it
// don't send a mutating request whose context comes from the Context of a queue of
// [NewQueue] and has lost its partition, or whose member is fenced. Such a request
// fails with an error that is [ErrLostOwnership]. Both clocks are read for each
// mutating request, so that a process that was paused between its last check and the request
// does not send it. Other requests, and those with other contexts, pass.
//
// A mutating request that is under way when its partition is to be handed over is
// not broken off, although its context has ended: the server might carry it out all
// the same, after the next owner has begun. The handover waits for the answer, as
// for any work; at the fence, at its deadline, and when anybody else ends its
// context, a request is broken off as usual.
//
// From the answers to writes the transport learns how far this member has written. The
// member that gets its partitions waits until its informers show as much; see
// Config.CacheWait. It can't learn that from answers that nobody reads.
//
//	config.Wrap(shard.WrapTransport)
func WrapTransport(next http.RoundTripper) http.RoundTripper {
	return &guard{next}
}

type guard struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return g.next.RoundTrip(r)
	}
	if cause := workqueue.Check(r.Context()); cause != nil && broken != refuseWrites {
		if r.Body != nil {
			_ = r.Body.Close() // a RoundTripper must, also when it fails
		}
		return nil, fmt.Errorf("%s %s was not sent: %w: %w", r.Method, r.URL.Path, ErrLostOwnership, cause)
	}
	permit, ok := workqueue.FromContext(r.Context())
	if !ok || broken == finishWrites {
		return g.next.RoundTrip(r)
	}
	ctx, done := outlive(r.Context(), permit.Owner)
	response, err := g.next.RoundTrip(r.WithContext(ctx))
	switch {
	case err != nil:
		done()
	case response.StatusCode == http.StatusSwitchingProtocols || response.Body == nil:
		// The body is a connection of the caller's, or there is none.
	default:
		answer := &answer{ReadCloser: response.Body, done: done}
		if s, ok := permit.Owner.(*Sharder); ok {
			answer.witness = newWitness(s, r, response)
		}
		response.Body = answer
	}
	return response, err
}

// fencePeriod is the time between two looks at the fence for a request whose
// partition is being drained.
const fencePeriod = 50 * time.Millisecond

// outlive returns a context that goes on when the context of the work ends because
// its partition is being drained. done must be called when the request has its answer.
func outlive(work context.Context, owner workqueue.Ownership) (ctx context.Context, done func()) {
	ctx = context.WithoutCancel(work)
	inTime := func() {}
	if deadline, ok := work.Deadline(); ok {
		ctx, inTime = context.WithDeadline(ctx, deadline)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(work, func() {
		cause := context.Cause(work)
		for errors.Is(cause, workqueue.ErrReleased) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(fencePeriod):
			}
			if owner.Fenced() {
				cause = workqueue.ErrFenced
			}
		}
		cancel(cause)
	})
	return ctx, func() {
		stop()
		cancel(nil)
		inTime()
	}
}

// answer is the body of a response: the request has its answer when it is closed.
type answer struct {
	io.ReadCloser
	done    func()
	witness *witness // nil if the answer tells nothing
}

// Read implements io.Reader.
func (a *answer) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if a.witness != nil {
		a.witness.take(p[:n])
		if errors.Is(err, io.EOF) {
			a.witness.end()
		}
	}
	return n, err
}

func (a *answer) Close() error {
	defer a.done()
	if a.witness != nil {
		a.witness.end() // who decodes an object may stop at its last byte
	}
	return a.ReadCloser.Close()
}

// WrappedRoundTripper lets client-go find the transport inside.
func (g *guard) WrappedRoundTripper() http.RoundTripper { return g.next }
