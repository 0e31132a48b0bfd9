// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/example-controller/operator"
	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// recorder records what an operator works on, under which token, and when it owned which partitions. It also adds the
// simulated work.
type recorder struct {
	log      *worklog.Writer
	delay    time.Duration
	blocks   bool // when the member is fenced, changed does not return
	operator *operator.Operator
}

// attach must be called before the operator runs.
func (r *recorder) attach(op *operator.Operator) {
	r.operator = op
	sync := op.Controller.SyncHandler
	op.Controller.SyncHandler = func(ctx context.Context, key cache.ObjectName) (err error) {
		ended := r.log.Work(r.record(key))
		defer func() { ended(err) }()
		if r.delay > 0 {
			select {
			case <-time.After(r.delay):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return sync(context.WithValue(ctx, contextKey{}, key), key)
	}
}

// record describes the work on a Foo. The version is the generation and not the resourceVersion, which also changes when the
// controller writes the status.
func (r *recorder) record(key cache.ObjectName) worklog.Record {
	name := key.String()
	record := worklog.Record{Key: name, Token: r.operator.Sharder.Token(name)}
	foo, err := r.operator.Controller.Foos.Foos(key.Namespace).Get(key.Name)
	switch {
	case err == nil:
		record.Version = strconv.FormatInt(foo.Generation, 10)
	case apierrors.IsNotFound(err):
		record.Version = worklog.Gone
	}
	return record
}

// contextKey is the key under which the context of work has the name of the Foo.
type contextKey struct{}

// wrapTransport is for the Wrap method of a rest.Config. Below the Sharder's WrapTransport, it records only requests that are sent.
func (r *recorder) wrapTransport(next http.RoundTripper) http.RoundTripper {
	return &transport{recorder: r, next: next}
}

type transport struct {
	recorder *recorder
	next     http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	if key, ok := request.Context().Value(contextKey{}).(cache.ObjectName); ok && request.Method != http.MethodGet {
		name := key.String()
		t.recorder.log.Append(worklog.Record{Event: worklog.Write, Key: name, Token: t.recorder.operator.Sharder.Token(name)})
	}
	return t.next.RoundTrip(request)
}

// WrappedRoundTripper gives client-go access to the wrapped transport.
func (t *transport) WrappedRoundTripper() http.RoundTripper { return t.next }

// events maps the changes of this member that are recorded.
var events = map[shard.ChangeKind]worklog.Event{
	shard.Joined:    worklog.Join,
	shard.Activated: worklog.Activate,
	shard.Released:  worklog.Release,
	shard.Fenced:    worklog.Fence,
	shard.Unfenced:  worklog.Resume,
	shard.Left:      worklog.Leave,
}

// changed is the function for shard.Config.OnChange.
func (r *recorder) changed(c shard.Change) {
	if event, ok := events[c.Kind]; ok {
		r.log.Append(worklog.Record{Event: event, Member: c.Member, Partitions: c.Partitions})
	}
	if r.blocks && c.Kind == shard.Fenced {
		select {}
	}
}
