// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"regexp"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// WrapTransport is for the Wrap method of a rest.Config, from which the workers' clients are
// made:
//
//	config.Wrap(s.WrapTransport)
//
// It does three things.
//
// It keeps work that has lost its object from writing. A mutating request whose context comes
// from the Context of a queue from [NewQueue] is not sent if this member has lost the partition
// or is fenced. It then fails with an error that is [ErrLostOwnership]. Both clocks are read
// for each of these requests, so that a process that was paused between its last check and the
// request does not send it.
//
// It keeps caches fresh: it reads the resourceVersions in the responses to all writes, whatever
// their contexts. The member that gains a partition waits until its informers have reached
// them; see Config.CacheSyncTimeout. Report writes by other clients with [Sharder.Observe].
// The transport learns nothing from a response that the caller does not read, nor from servers
// behind the proxy subresources.
//
// It treats mutating requests that belong to no work as Config.OutsideWrites says.
//
// Only the fence and the request's deadline abort a mutating request of a piece of work. A drain
// does not abort it, nor does the cancellation of a context that was derived from the
// queue's, for instance on SIGTERM: the server might still carry out the request, after
// the next owner has begun. The handover waits for the response, even if the worker does
// not wait and calls Done.
//
// A caller that cancels such a request therefore still receives its response, when it
// arrives. To stop waiting for a server that does not respond, set a deadline: on the
// context, as http.Client.Timeout, or as Timeout of the rest.Config. After a deadline there
// is no guarantee: the server may carry out the request while another member works on the
// object, and only a resourceVersion or a token ([StampToken]) makes it fail. The guarantee
// holds if the deadline is longer than the server's slowest response (60 s by default, see
// --request-timeout of kube-apiserver).
// A handover waits at most for Config.DrainGrace and Config.DrainTimeout.
//
// A request that was not sent because its caller's context had ended fails with the
// cause of that context, and not with [ErrLostOwnership]: the worker must retry its item.
//
// A process with two rings wraps its configuration with both Sharders, or has a client for each.
func (s *Sharder) WrapTransport(next http.RoundTripper) http.RoundTripper {
	return &guard{s, next}
}

// Observe reports an object as the API server has returned it in response to a write, by a
// client that [Sharder.WrapTransport] does not wrap. The member that gains the partition then
// waits for that version, as for those that the transport has seen. Call it before the work
// ends.
// Nil is ignored.
func (s *Sharder) Observe(written metav1.Object) {
	if v := reflect.ValueOf(written); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return
	}
	s.writes.Note(written)
}

type guard struct {
	s    *Sharder
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return g.next.RoundTrip(r)
	}
	if cause := workqueue.Check(r.Context()); cause != nil {
		return nil, refuse(r, cause)
	}
	assignment, ok := workqueue.FromContext(r.Context())
	if !ok {
		if cause := g.s.outsideWrite(r); cause != nil {
			return nil, refuse(r, cause)
		}
		response, err := g.next.RoundTrip(r)
		if err == nil && response.Body != nil && response.StatusCode != http.StatusSwitchingProtocols {
			response.Body = g.s.observe(r, response)
		}
		return response, err
	}
	// From here until its response the request counts as work in flight: the caller may
	// return earlier, and call Done.
	ctx, cancel := outlive(r.Context())
	responded, end, cause := assignment.Begin(cancel)
	if cause != nil {
		cancel(cause)
		return nil, refuse(r, cause)
	}
	defer responded() // the server has carried out the request when the response header arrives
	done := func() {
		end()
		cancel(nil)
	}
	response, err := g.next.RoundTrip(r.WithContext(ctx))
	switch {
	case err != nil || response.Body == nil:
		done()
	case response.StatusCode == http.StatusSwitchingProtocols:
		end() // the body is a connection that belongs to the caller
	default:
		response.Body = &trackedBody{ReadCloser: g.s.observe(r, response), done: done}
	}
	return response, err
}

// observe returns the body of a response to a write, from which this member learns how far it has
// written when the caller reads it. What a proxied server responds with is not an object of this
// API server, whatever it looks like.
func (s *Sharder) observe(r *http.Request, response *http.Response) io.ReadCloser {
	if proxied.MatchString(r.URL.Path) {
		return response.Body
	}
	return s.writes.Observe(response)
}

// proxied matches the paths of the proxy subresources.
var proxied = regexp.MustCompile(`(^|/)api/v1/(namespaces/[^/]+/(pods|services)|nodes)/[^/]+/proxy(/|$)`)

// outsideWrite applies Config.OutsideWrites to a mutating request that belongs to no work. It
// returns the reason why the request must not be sent, or nil.
func (s *Sharder) outsideWrite(r *http.Request) error {
	if workqueue.InWork(r.Context()) || neverWork.MatchString(r.URL.Path) || isDryRun(r) {
		return nil
	}
	s.metrics.OutsideWrite()
	switch s.cfg.OutsideWrites {
	case LogOutsideWrites:
		klog.FromContext(r.Context()).Info("A write belongs to no work, so another member may be working on the object", "ring", s.cfg.Name, "method", r.Method, "path", r.URL.Path)
	case RefuseOutsideWrites:
		return ErrOutsideWork
	}
	return nil
}

// neverWork matches the paths of writes that do not change what members work on: Leases, Events,
// and reviews and tokens, which store nothing.
// The API server may be behind a path prefix.
var neverWork = regexp.MustCompile(`(^|/)apis/(coordination|events|authentication|authorization)\.k8s\.io/v[0-9a-z]+/|(^|/)api/v1/(namespaces/[^/]+/)?events(/[^/]+)?$|/serviceaccounts/[^/]+/token$`)

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

// outlive returns a context for a request of a piece of work. It does not end with the
// request's own context, but at its deadline. The queue cancels it at the fence and, after the
// response header has arrived, at Done.
func outlive(request context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(request))
	deadline, ok := request.Deadline()
	if !ok {
		return ctx, cancel
	}
	ctx, inTime := context.WithDeadline(ctx, deadline)
	return ctx, func(cause error) {
		cancel(cause)
		inTime()
	}
}

// trackedBody is the body of a response. The response is complete when the body is closed
// or has been read to its end.
type trackedBody struct {
	io.ReadCloser
	done func()
}

// Read implements io.Reader.
func (a *trackedBody) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if err != nil {
		a.done() // net/http reuses a connection whose body was read to the end, even without Close
	}
	return n, err
}

func (a *trackedBody) Close() error {
	defer a.done()
	return a.ReadCloser.Close()
}

// WrappedRoundTripper gives client-go access to the wrapped transport.
func (g *guard) WrappedRoundTripper() http.RoundTripper { return g.next }
