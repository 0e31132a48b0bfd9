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
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clientcoordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/cache"
	cachetesting "k8s.io/client-go/tools/cache/testing"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// objects are the ConfigMaps that a fleet works on.
type objects struct {
	source *cachetesting.FakeControllerSource

	mu   sync.Mutex
	maps map[string]*corev1.ConfigMap // by key; the last state of those that were deleted, too
	gone map[string]time.Time
}

func newObjects() *objects {
	return &objects{source: cachetesting.NewFakeControllerSource(), maps: map[string]*corev1.ConfigMap{}, gone: map[string]time.Time{}}
}

// listWatch returns a ListerWatcher whose first list is late.
func (o *objects) listWatch(late time.Duration) cache.ListerWatcher {
	var once sync.Once
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			once.Do(func() { pause(ctx, late) })
			return o.source.List(options)
		},
		WatchFuncWithContext: func(_ context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return o.source.Watch(options)
		},
	}
}

// write creates or changes an object.
func (o *objects) write(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := "default/" + name
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	_, deleted := o.gone[key]
	if o.maps[key] == nil || deleted {
		o.source.Add(cm)
	} else {
		o.source.Modify(cm)
	}
	o.maps[key] = cm
	delete(o.gone, key)
}

// remove deletes an object.
func (o *objects) remove(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := "default/" + name
	if _, deleted := o.gone[key]; !deleted && o.maps[key] != nil {
		o.source.Delete(o.maps[key].DeepCopy())
		o.gone[key] = time.Now()
	}
}

// versions returns the version of each object: "gone" if it was deleted after the
// given time. Objects that were deleted before are left out.
func (o *objects) versions(since time.Time) map[string]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	versions := map[string]string{}
	for key, cm := range o.maps {
		at, gone := o.gone[key]
		switch {
		case !gone:
			versions[key] = cm.ResourceVersion
		case at.After(since):
			versions[key] = "gone"
		}
	}
	return versions
}

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
	response, err := shard.WrapTransport(s).RoundTrip(request)
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
	*fake.Clientset
	mu   sync.Mutex
	rand *rand.Rand
	dead bool
	slow time.Duration

	plan func(verb string) trip // nil: at random
	late time.Duration          // with a plan: the delay of watch events
	sent map[string]int         // requests by verb
}

// trip describes the delays and errors of one request on the way to the server and back.
type trip struct {
	there, back time.Duration
	err         error // of a request that does not reach the server
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
	return &faultyClient{Clientset: client, rand: rand.New(rand.NewPCG(seed, seed)), slow: 5 * time.Millisecond, sent: map[string]int{}}
}

// set makes the client dead, slow, or healthy.
func (w *faultyClient) set(dead bool, slow time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead, w.slow = dead, max(slow, 5*time.Millisecond)
}

func (w *faultyClient) CoordinationV1() clientcoordinationv1.CoordinationV1Interface {
	return coordination{w.Clientset.CoordinationV1(), w}
}

type coordination struct {
	clientcoordinationv1.CoordinationV1Interface
	client *faultyClient
}

func (c coordination) Leases(namespace string) clientcoordinationv1.LeaseInterface {
	return leases{c.CoordinationV1Interface.Leases(namespace), c.client}
}

type leases struct {
	clientcoordinationv1.LeaseInterface
	client *faultyClient
}

// send delays a request on its way to the server and back. If the client is dead, a request
// gets no response until its sender stops waiting or the kernel times out, but it may have
// been carried out.
func send[T any](ctx context.Context, w *faultyClient, verb string, timeout time.Duration, f func() (T, error)) (response T, err error) {
	w.mu.Lock()
	w.sent[verb]++
	if w.plan != nil {
		trip := w.plan(verb)
		w.mu.Unlock()
		return carry(ctx, trip, f)
	}
	dead, lost := w.dead, w.rand.IntN(2) == 0
	there, back := time.Duration(w.rand.Int64N(int64(w.slow))), time.Duration(w.rand.Int64N(int64(w.slow)))
	w.mu.Unlock()
	pause(ctx, there)
	if !dead || !lost {
		response, err = f() // even if the sender no longer waits
	}
	if dead {
		back = timeout
	}
	pause(ctx, back)
	if ctx.Err() != nil || dead {
		var none T
		return none, fmt.Errorf("%w: %w", shardtest.ErrFault, ctx.Err())
	}
	return response, err
}

// carry sends a request as its trip describes.
func carry[T any](ctx context.Context, way trip, f func() (T, error)) (response T, err error) {
	if way.err != nil {
		return response, way.err
	}
	arrived := make(chan func() (T, error), 1)
	time.AfterFunc(way.there, func() {
		response, err := f()
		arrived <- func() (T, error) { return response, err }
	})
	select {
	case result := <-arrived:
		if pause(ctx, way.back); ctx.Err() == nil {
			return result()
		}
	case <-ctx.Done():
	}
	return response, ctx.Err()
}

func (l leases) Get(ctx context.Context, name string, o metav1.GetOptions) (*coordinationv1.Lease, error) {
	return send(ctx, l.client, "get", 15*time.Minute, func() (*coordinationv1.Lease, error) { return l.LeaseInterface.Get(ctx, name, o) })
}

func (l leases) Create(ctx context.Context, lease *coordinationv1.Lease, o metav1.CreateOptions) (*coordinationv1.Lease, error) {
	return send(ctx, l.client, "create", 15*time.Minute, func() (*coordinationv1.Lease, error) { return l.LeaseInterface.Create(ctx, lease, o) })
}

func (l leases) Update(ctx context.Context, lease *coordinationv1.Lease, o metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	return send(ctx, l.client, "update", 15*time.Minute, func() (*coordinationv1.Lease, error) { return l.LeaseInterface.Update(ctx, lease, o) })
}

func (l leases) Delete(ctx context.Context, name string, o metav1.DeleteOptions) error {
	_, err := send(ctx, l.client, "delete", 15*time.Minute, func() (struct{}, error) { return struct{}{}, l.LeaseInterface.Delete(ctx, name, o) })
	return err
}

func (l leases) List(ctx context.Context, o metav1.ListOptions) (*coordinationv1.LeaseList, error) {
	return send(ctx, l.client, "list", 30*time.Second, func() (*coordinationv1.LeaseList, error) { return l.LeaseInterface.List(ctx, o) })
}

// Watch differs from that of the clientset only if the client is planned.
func (l leases) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	if !l.client.planned() {
		return l.LeaseInterface.Watch(ctx, o)
	}
	events, err := send(ctx, l.client, "watch", 0, func() (watch.Interface, error) { return l.LeaseInterface.Watch(ctx, o) })
	if err != nil {
		return nil, err
	}
	return newLateWatch(events, l.client.lateness), nil
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
