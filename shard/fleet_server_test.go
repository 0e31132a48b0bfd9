// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// server receives the writes of the reconciles, through shard's transport. It carries out
// each request that has reached it, whether or not its sender still waits for the response.
type server struct {
	fleet   *fleet
	pending sync.WaitGroup

	mu   sync.Mutex
	rand *rand.Rand
	last map[string]write // by key
	n    int
}

// writes counts the writes that were carried out.
func (s *server) writes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

type write struct {
	token  uint64
	writer string
}

// write sends a worker's write of an object.
func (s *server) write(ctx context.Context, r *replica, key string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://127.0.0.1/"+key, nil)
	if err != nil {
		return err
	}
	token, _ := shard.TokenFromContext(ctx)
	request.Header.Set("Token", token)
	request.Header.Set("Writer", r.name)
	response, err := r.WrapTransport(s).RoundTrip(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// RoundTrip implements http.RoundTripper.
func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	limit := int64(50 * time.Millisecond)
	if s.rand.IntN(10) == 0 {
		limit = int64(2 * time.Second)
	}
	there, back := time.Duration(s.rand.Int64N(limit)), time.Duration(s.rand.Int64N(limit))
	s.mu.Unlock()
	key, token, writer := strings.TrimPrefix(r.URL.Path, "/"), r.Header.Get("Token"), r.Header.Get("Writer")
	s.pending.Go(func() {
		time.Sleep(there)
		s.commit(key, token, writer)
	})
	select {
	case <-time.After(there + back):
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("{}"))}, nil
	case <-r.Context().Done():
		return nil, context.Cause(r.Context())
	}
}

// commit carries out a write, and checks it.
func (s *server) commit(key, token, writer string) {
	s.fleet.mu.Lock()
	everyone := s.fleet.everyone
	s.fleet.mu.Unlock()
	for _, other := range everyone {
		if other.name != writer && other.at(key) {
			s.fleet.problem("%s writes to %s while %s is working on it", writer, key, other.name)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	n, err := strconv.ParseUint(token, 10, 64)
	switch last := s.last[key]; {
	case err != nil:
		s.fleet.problem("%s writes to %s with the token %q", writer, key, token)
	case n <= last.token && writer != last.writer:
		s.fleet.problem("%s writes to %s with token %d after %s with token %d", writer, key, n, last.writer, last.token)
	case n >= last.token: // a lower token comes from a request that its process has aborted at a fence
		s.last[key] = write{n, writer}
	}
}

// faultyClient is a clientset whose requests for Leases are delayed. It may become dead:
// then the requests that are sent since get no response.
type faultyClient struct {
	networkClient
	mu   sync.Mutex
	rand *rand.Rand
	dead bool
	slow time.Duration
	none bool // every request is refused
	deaf int  // how many of the next requests do not return when their contexts end

	plan func(verb string) trip // nil: at random
	late time.Duration          // with a plan: the delay of watch events
	sent map[string]int         // requests by verb
}

// trip describes the delays and errors of one request on the way to the server and back.
type trip struct {
	there, back time.Duration
	err         error           // of a request that does not reach the server
	deaf        <-chan struct{} // until it is closed, the request does not return, even if its context ends; nil: it does
}

// never is a delay that is longer than any sender waits.
const never = time.Hour

// newPlannedClient returns a client for which a function decides what happens to each
// request. A server carries out the requests that have reached it, even if the sender no
// longer waits.
func newPlannedClient(client *fake.Clientset, plan func(verb string) trip) *faultyClient {
	w := newFaultyClient(client, 0)
	w.plan = plan
	return w
}

// replan replaces that function.
func (w *faultyClient) replan(plan func(verb string) trip) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.plan = plan
}

func (w *faultyClient) planned() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.plan != nil
}

// delay makes watches show events late, from now on.
func (w *faultyClient) delay(late time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.late = late
}

func (w *faultyClient) lateness() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.late
}

// requests returns how many requests with one of the verbs were sent.
func (w *faultyClient) requests(verbs ...string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, verb := range verbs {
		n += w.sent[verb]
	}
	return n
}

func newFaultyClient(client *fake.Clientset, seed uint64) *faultyClient {
	w := &faultyClient{rand: rand.New(rand.NewPCG(seed, seed)), slow: 5 * time.Millisecond, sent: map[string]int{}}
	w.networkClient = networkClient{client, w}
	return w
}

// set makes the client dead, slow, or healthy.
func (w *faultyClient) set(dead bool, slow time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead, w.slow, w.deaf = dead, max(slow, 5*time.Millisecond), 0
	w.none = false
}

// refuse lets the server answer each request with a 403.
func (w *faultyClient) refuse() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.none = true
}

// deafness is how long a request takes that ignores its context.
const deafness = 15 * time.Minute

// ignoreContexts lets the next few requests ignore their contexts.
func (w *faultyClient) ignoreContexts() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = 5
}

// send delays a request on its way to the server and back. If the client is dead, a request
// gets no response until its sender stops waiting or the kernel times out, but it may have
// been carried out. Without a plan, watches are not delayed.
func (w *faultyClient) send(ctx context.Context, verb string, _ *coordinationv1.Lease, call func() error) (err error) {
	w.mu.Lock()
	if w.plan == nil && verb == "watch" {
		w.mu.Unlock()
		return call()
	}
	w.sent[verb]++
	if w.plan != nil {
		trip := w.plan(verb)
		w.mu.Unlock()
		return carry(ctx, trip, call)
	}
	dead, lost := w.dead, w.rand.IntN(2) == 0
	there, back := time.Duration(w.rand.Int64N(int64(w.slow))), time.Duration(w.rand.Int64N(int64(w.slow)))
	if w.none {
		w.mu.Unlock()
		return errNoRole
	}
	if w.deaf > 0 {
		w.deaf--
		w.mu.Unlock()
		time.Sleep(deafness)
		if !lost {
			return call() // late
		}
		return shardtest.ErrFault
	}
	w.mu.Unlock()
	pause(ctx, there)
	if !dead || !lost {
		err = call() // even if the sender no longer waits
	}
	if dead {
		back = 15 * time.Minute
		if verb == "list" {
			back = 30 * time.Second
		}
	}
	pause(ctx, back)
	if ctx.Err() != nil || dead {
		return fmt.Errorf("%w: %w", shardtest.ErrFault, ctx.Err())
	}
	return err
}

// carry sends a request as its trip describes.
func carry(ctx context.Context, way trip, call func() error) error {
	if way.deaf != nil {
		<-way.deaf
		return shardtest.ErrFault
	}
	if way.err != nil {
		return way.err
	}
	arrived := make(chan error, 1)
	time.AfterFunc(way.there, func() { arrived <- call() })
	select {
	case err := <-arrived:
		if pause(ctx, way.back); ctx.Err() == nil {
			return err
		}
	case <-ctx.Done():
	}
	return ctx.Err()
}

// stream delays the events of a watch if the client is planned.
func (w *faultyClient) stream(events watch.Interface) watch.Interface {
	if !w.planned() {
		return events
	}
	return newLateWatch(events, w.lateness)
}

// lateWatch shows each event some time after it happened, like an API server whose
// own watch of etcd lags.
type lateWatch struct {
	watch.Interface
	out     chan watch.Event
	stopped chan struct{}
	once    sync.Once
}

func newLateWatch(inner watch.Interface, late func() time.Duration) *lateWatch {
	w := &lateWatch{Interface: inner, out: make(chan watch.Event), stopped: make(chan struct{})}
	type shown struct {
		event watch.Event
		at    time.Time
	}
	line := make(chan shown, 10_000)
	go func() {
		defer close(line)
		for e := range inner.ResultChan() {
			line <- shown{e, time.Now().Add(late())}
		}
	}()
	go func() {
		defer close(w.out)
		for e := range line {
			select {
			case <-time.After(time.Until(e.at)):
			case <-w.stopped:
				return
			}
			select {
			case w.out <- e.event:
			case <-w.stopped:
				return
			}
		}
	}()
	return w
}

// ResultChan implements watch.Interface.
func (w *lateWatch) ResultChan() <-chan watch.Event { return w.out }

// Stop implements watch.Interface.
func (w *lateWatch) Stop() {
	w.once.Do(func() {
		close(w.stopped)
		w.Interface.Stop()
	})
}
