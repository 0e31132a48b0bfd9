// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"fmt"
	"net/http"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// WrapTransport is for the Wrap of a rest.Config: the clients that are made of it
// don't send a mutating request whose context comes from the Context of a queue of
// [NewQueue] and has lost its partition, or whose member is fenced. Such a request
// fails with an error that is [ErrLostOwnership]. Both clocks are read for each
// mutating request, so that a process that was paused between its last check and the request
// does not send it. Other requests, and those with other contexts, pass.
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
	if cause := workqueue.Check(r.Context()); cause != nil {
		if r.Body != nil {
			_ = r.Body.Close() // a RoundTripper must, also when it fails
		}
		return nil, fmt.Errorf("%s %s was not sent: %w: %w", r.Method, r.URL.Path, ErrLostOwnership, cause)
	}
	return g.next.RoundTrip(r)
}

// WrappedRoundTripper lets client-go find the transport inside.
func (g *guard) WrappedRoundTripper() http.RoundTripper { return g.next }

// TokenFromContext returns the token of the partition that a piece of work belongs
// to, for a context from the Context of a queue: the resourceVersion of the write by
// which this member claimed it. Tokens of one partition strictly increase, as
// numbers, from owner to owner, so that a server can refuse the writes of an earlier one. It
// returns false for other contexts, and when the claim is gone.
func TokenFromContext(ctx context.Context) (string, bool) {
	p, ok := workqueue.FromContext(ctx)
	if !ok {
		return "", false
	}
	s, ok := p.Owner.(*Sharder)
	if !ok {
		return "", false
	}
	now := s.snapshot.Load()
	token := now.tokens[ring.PartitionOf(p.Point, now.partitions)]
	return token, token != ""
}
