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

func TestWrapTransport_SendsNoWriteAfterLossOfOwnership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		q := shard.NewQueue(a.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
		defer q.ShutDown()
		time.Sleep(5 * time.Second)
		var count sent
		transport := a.WrapTransport(&count)
		request := func(ctx context.Context, method string) error {
			body := &closer{Reader: strings.NewReader("{}")}
			r, err := http.NewRequestWithContext(ctx, method, "http://127.0.0.1/api/v1/namespaces/x/configmaps/y", body)
			if err != nil {
				t.Fatal(err)
			}
			_, err = transport.RoundTrip(r) //nolint:bodyclose // there is none
			if err != nil && !body.closed {
				t.Error("the body of a request that was not sent is not closed")
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

		// The member cannot renew. Its context may not have ended yet, but the clock shows that it is fenced.
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
			t.Error("a context that does not come from a queue has a token")
		}
		if err := a.end(); err != nil {
			t.Error(err)
		}
	})
}

// slow responds when the test allows it, or with the error of the context.
type slow chan struct{}

func (s slow) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-s:
		return &http.Response{StatusCode: http.StatusOK, Body: &closer{Reader: strings.NewReader("{}")}}, nil
	case <-r.Context().Done():
		return nil, context.Cause(r.Context())
	}
}

// The server may still carry out an aborted request, at any time. Therefore the drain
// waits for its response, and the fence does not.
func TestWrapTransport_DoesNotAbortAWriteForADrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := shardtest.NewCluster()
		a := start(t, cluster.Client("a"), "a")
		q := shard.NewQueue(a.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
		defer q.ShutDown()
		time.Sleep(5 * time.Second)
		server := make(slow)
		transport := a.WrapTransport(server)
		send := func(ctx context.Context, method string) <-chan error {
			responded := make(chan error, 1)
			go func() {
				r, err := http.NewRequestWithContext(ctx, method, "http://127.0.0.1/api/v1/namespaces/x/configmaps/y", nil)
				if err != nil {
					t.Error(err)
				}
				response, err := transport.RoundTrip(r)
				if err == nil {
					err = response.Body.Close()
				}
				responded <- err
			}()
			synctest.Wait()
			return responded
		}
		work := func() (cache.ObjectName, context.Context) {
			q.Add(cache.ObjectName{Namespace: "x", Name: "y"})
			got, _ := q.Get()
			return got, q.Context(context.Background(), got)
		}

		// The fence aborts the request, and so does the deadline of its context.
		item, ctx := work()
		write := send(ctx, http.MethodPut)
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		hasty := send(short, http.MethodPut)
		time.Sleep(2 * time.Second)
		if err := <-hasty; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a request past its deadline: %v", err)
		}
		cluster.Break("a", shardtest.Unreachable)
		time.Sleep(12 * time.Second)
		if err := <-write; !errors.Is(err, workqueue.ErrFenced) {
			t.Errorf("a request in progress at the fence: %v", err)
		}
		q.Done(item)
		cluster.Break("a", shardtest.None)
		time.Sleep(5 * time.Second)

		// The drain of a member that stops ends the context, and the read.
		item, ctx = work()
		write, read := send(ctx, http.MethodPut), send(ctx, http.MethodGet)
		ended := make(chan error, 1)
		go func() { ended <- a.end() }()
		time.Sleep(time.Second)
		if err := <-read; !errors.Is(err, workqueue.ErrDraining) {
			t.Errorf("a read in progress when the drain began: %v", err)
		}
		if !errors.Is(context.Cause(ctx), workqueue.ErrDraining) || len(write) > 0 || len(ended) > 0 {
			t.Errorf("the context has ended with %v; writes with a response: %d, member ended: %d", context.Cause(ctx), len(write), len(ended))
		}
		close(server)
		synctest.Wait()
		if err := <-write; err != nil {
			t.Errorf("a write in progress when the drain began: %v", err)
		}
		q.Done(item)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// SIGTERM cancels the parent of all contexts before the drain begins, and a worker may stop
// waiting and call Done. The next owner must not begin before the server has responded.
func TestWrapTransport_DoesNotAbortAWriteForItsCaller(t *testing.T) {
	for _, test := range []struct {
		name   string
		giveUp func(cancel, sigterm func(), done func())
		after  bool // Done is called after the response, as it should be
	}{
		{"the context of Run is cancelled", func(_, sigterm, _ func()) { sigterm() }, true},
		{"a derived context is cancelled", func(cancel, sigterm, _ func()) { cancel(); sigterm() }, true},
		{"a derived context is cancelled, later", func(cancel, sigterm, _ func()) {
			sigterm()
			time.Sleep(time.Second)
			cancel()
		}, true},
		{"the worker does not wait for the response", func(_, sigterm, done func()) { done(); sigterm() }, false},
		{"the worker does not wait for the response, later", func(cancel, sigterm, done func()) {
			sigterm()
			time.Sleep(time.Second)
			cancel()
			done()
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := shardtest.NewCluster()
				a, b := start(t, cluster.Client("a"), "a"), start(t, cluster.Client("b"), "b")
				q := shard.NewQueue(a.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
				defer q.ShutDown()
				time.Sleep(5 * time.Second)
				item := cache.ObjectName{Namespace: "x", Name: "y"}
				for i := 0; !a.OwnsKey(item.String()); i++ {
					item.Name = objectName(i)
				}
				q.Add(item)
				q.Get()
				run, sigterm := context.WithCancel(context.Background())
				defer sigterm()
				ctx, cancel := context.WithCancel(q.Context(run, item))
				defer cancel()
				server := make(slow)
				responded := make(chan error, 1)
				go func() {
					r, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://127.0.0.1/x/y", nil)
					if err != nil {
						t.Error(err)
					}
					response, err := a.WrapTransport(server).RoundTrip(r)
					if err == nil {
						err = response.Body.Close()
					}
					responded <- err
				}()
				synctest.Wait()
				test.giveUp(cancel, func() { sigterm(); a.stop() }, func() { q.Done(item) })
				time.Sleep(10 * time.Second)
				if b.OwnsKey(item.String()) || len(responded) > 0 {
					t.Errorf("while the server is working: b owns the object: %v; responses: %d", b.OwnsKey(item.String()), len(responded))
				}
				close(server)
				if err := <-responded; err != nil {
					t.Errorf("the write has ended with %v", err)
				}
				if test.after {
					q.Done(item)
				}
				time.Sleep(time.Second)
				if !b.OwnsKey(item.String()) {
					t.Error("b does not own the object after the response")
				}
				end(t, a, b)
			})
		})
	}
}

// If the caller ends its context before a request is sent, ownership is not lost. A worker
// that then left its item to the queue, as for a loss, would lose the item.
func TestWrapTransport_DistinguishesCancellationFromLossOfOwnership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(t, shardtest.NewCluster().Client("a"), "a")
		q := shard.NewQueue(a.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
		defer q.ShutDown()
		time.Sleep(5 * time.Second)
		q.Add(cache.ObjectName{Namespace: "x", Name: "y"})
		item, _ := q.Get()
		parent, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		ctx := q.Context(parent, item)
		time.Sleep(2 * time.Second)
		var count sent
		r, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://127.0.0.1/x/y", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.WrapTransport(&count).RoundTrip(r) //nolint:bodyclose // there is none
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, shard.ErrLostOwnership) || count != 0 {
			t.Errorf("error %v, %d sent", err, count)
		}
		q.Done(item)
		end(t, a)
	})
}
