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
// A mutating request that is under way is broken off at the fence and at its deadline,
// and by nothing else: not by a drain, and not by whoever cancels a context that was
// derived from the queue's, on SIGTERM for instance. The server might carry it out all
// the same, after the next owner has begun. The handover waits for the answer, even
// if the worker does not and calls Done.
//
// So who cancels a mutating request on purpose gets its answer nevertheless, when it
// comes. To stop waiting for a server that does not answer takes a deadline: that of the
// context, http.Client.Timeout, or Timeout of the rest.Config. Behind a deadline there is
// no promise: the server may carry out the request when another member works on the
// object, and only a resourceVersion or a token ([StampToken]) makes it fail. A deadline
// that is longer than the server takes for its slowest answer (60 s, unless
// kube-apiserver's --request-timeout says otherwise) leaves the promise whole.
// A handover waits for Config.DrainTimeout at the most.
//
// A request that was not sent because its caller's context had ended fails with the
// cause of that, and not with [ErrLostOwnership]: its item is the worker's to retry.
//
// From the answers to writes the transport learns how far this member has written. The
// member that gets its partitions waits until its informers show as much; see
// Config.CacheSyncTimeout. It can't learn that from answers that nobody reads.
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
	permit, ok := workqueue.FromContext(r.Context())
	if !ok {
		return g.next.RoundTrip(r)
	}
	if cause := workqueue.Check(r.Context()); cause != nil {
		return nil, refuse(r, cause)
	}
	// From here until its answer the request counts as work in flight: its caller may be
	// gone before, and Done called.
	answered, cause := permit.Begin()
	if cause != nil {
		return nil, refuse(r, cause)
	}
	defer answered() // when the head of the answer is there, the server has carried it out
	head := make(chan struct{})
	defer close(head)
	ctx, done, letGo := outlive(r.Context(), permit, head)
	response, err := g.next.RoundTrip(r.WithContext(ctx))
	switch {
	case err != nil || response.Body == nil:
		done()
	case response.StatusCode == http.StatusSwitchingProtocols:
		letGo() // the body is a connection of the caller's
	default:
		answer := &trackedBody{ReadCloser: response.Body, done: done}
		if s, ok := permit.Owner.(*Sharder); ok {
			answer.observer = newResponseObserver(s, r, response)
		}
		response.Body = answer
	}
	return response, err
}

// refuse returns the error of a request that is not sent.
func refuse(r *http.Request, cause error) error {
	if r.Body != nil {
		_ = r.Body.Close() // a RoundTripper must, also when it fails
	}
	for _, lost := range []error{workqueue.ErrDraining, workqueue.ErrFenced, workqueue.ErrDone} {
		if errors.Is(cause, lost) {
			return fmt.Errorf("%s %s was not sent: %w: %w", r.Method, r.URL.Path, ErrLostOwnership, cause)
		}
	}
	return fmt.Errorf("%s %s was not sent: %w", r.Method, r.URL.Path, cause)
}

// fencePeriod is the time between two looks at the fence for a request whose work
// has ended for another reason.
const fencePeriod = 50 * time.Millisecond

// outlive returns a context for a request of a piece of work. It ends at the deadline of
// the request's own context and at the fence, and once the head of the answer is there,
// at Done too. One of these must be called: done when the answer was read; or letGo, after
// which nothing but the deadline ends the context.
func outlive(request context.Context, permit workqueue.Assignment, head <-chan struct{}) (ctx context.Context, done, letGo func()) {
	ctx = context.WithoutCancel(request)
	inTime := func() {}
	if deadline, ok := request.Deadline(); ok {
		ctx, inTime = context.WithDeadline(ctx, deadline)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	left := make(chan struct{})
	work := permit.Context() // the request's may be one that the caller has derived
	stop := context.AfterFunc(work, func() {
		cause, over := context.Cause(work), head
		if errors.Is(cause, workqueue.ErrDraining) {
			over = nil // the work may not be done yet
		}
		for !errors.Is(cause, workqueue.ErrFenced) {
			select {
			case <-ctx.Done():
				return
			case <-left:
				return
			case <-over:
				cancel(cause)
				return
			case <-time.After(fencePeriod):
			}
			if permit.Owner.Fenced() {
				cause = workqueue.ErrFenced
			}
		}
		cancel(cause)
	})
	letGo = func() {
		close(left)
		stop()
	}
	return ctx, func() {
		stop()
		cancel(nil)
		inTime()
	}, letGo
}

// answer is the body of a response: the request has its answer when it is closed, or was
// read to its end.
type trackedBody struct {
	io.ReadCloser
	done     func()
	observer *responseObserver // nil if the answer tells nothing
}

// Read implements io.Reader.
func (a *trackedBody) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if a.observer != nil {
		a.observer.take(p[:n])
		if errors.Is(err, io.EOF) {
			a.observer.end()
		}
	}
	if err != nil {
		a.done() // who reads to the end need not close, for net/http to use the connection again
	}
	return n, err
}

func (a *trackedBody) Close() error {
	defer a.done()
	if a.observer != nil {
		a.observer.end() // who decodes an object may stop at its last byte
	}
	return a.ReadCloser.Close()
}

// WrappedRoundTripper lets client-go find the transport inside.
func (g *guard) WrappedRoundTripper() http.RoundTripper { return g.next }
