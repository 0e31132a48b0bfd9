// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

type sent int

func (s *sent) RoundTrip(*http.Request) (*http.Response, error) {
	*s++
	return &http.Response{StatusCode: http.StatusOK}, nil
}

type closer struct {
	*strings.Reader
	closed bool
}

func (c *closer) Close() error { c.closed = true; return nil }

func TestWrapTransport_SendsNoWriteOfWorkThatIsNotOwnedAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		q := shard.NewQueue(a.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
		defer q.ShutDown()
		time.Sleep(5 * time.Second)
		var count sent
		transport := shard.WrapTransport(&count)
		request := func(ctx context.Context, method string) error {
			body := &closer{Reader: strings.NewReader("{}")}
			r, err := http.NewRequestWithContext(ctx, method, "http://127.0.0.1/api/v1/namespaces/x/configmaps/y", body)
			if err != nil {
				t.Fatal(err)
			}
			_, err = transport.RoundTrip(r) //nolint:bodyclose // there is none
			if err != nil && !body.closed {
				t.Error("the body of a request that was not sent is left open")
			}
			return err
		}
		want := func(err, wanted error, n int) {
			t.Helper()
			if (wanted == nil) != (err == nil) || wanted != nil && (!errors.Is(err, wanted) || !errors.Is(err, shard.ErrLostOwnership)) || int(count) != n {
				t.Errorf("error %v, want %v; %d requests sent, want %d", err, wanted, count, n)
			}
		}
		item := cache.ObjectName{Namespace: "x", Name: "y"}
		q.Add(item)
		got, _ := q.Get()
		ctx := q.Context(context.Background(), got)
		want(request(ctx, http.MethodPut), nil, 1)
		want(request(context.Background(), http.MethodPut), nil, 2)
		token, ok := shard.TokenFromContext(ctx)
		if n, err := strconv.ParseUint(token, 10, 64); !ok || err != nil || n == 0 || token != a.Token("x/y") {
			t.Errorf("token %q %v", token, ok)
		}

		// The member can't renew. The context may not have ended yet, but the clock says enough.
		cluster.Break("a", shardtest.Unreachable)
		time.Sleep(12 * time.Second)
		want(request(ctx, http.MethodPut), workqueue.ErrFenced, 2)
		want(request(ctx, http.MethodDelete), workqueue.ErrFenced, 2)
		want(request(ctx, http.MethodGet), nil, 3)
		q.Done(got)
		want(request(ctx, http.MethodPut), workqueue.ErrFenced, 3)
		cluster.Break("a", shardtest.None)
		time.Sleep(5 * time.Second)

		q.Add(item)
		got, _ = q.Get()
		ctx = q.Context(context.Background(), got)
		want(request(ctx, http.MethodPost), nil, 4)
		q.Done(got)
		want(request(ctx, http.MethodPost), workqueue.ErrDone, 4)
		if _, ok := shard.TokenFromContext(context.Background()); ok {
			t.Error("a context that is of no queue has a token")
		}
		if err := a.end(); err != nil {
			t.Error(err)
		}
	})
}
