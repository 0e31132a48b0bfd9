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

// listWatch answers the first list late.
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
// given time. Those that were deleted before are left out.
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

// server takes what reconciles write, through shard's transport. It carries out each
// request that has reached it, whether or not its sender still waits for the answer.
type server struct {
	fleet   *fleet
	pending sync.WaitGroup

	mu   sync.Mutex
	rand *rand.Rand
	last map[string]write // by key
	n    int
}

// writes counts what was carried out.
func (s *server) writes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

type write struct {
	token  uint64
	writer string
}

// write sends what a worker has to say of an object.
func (s *server) write(ctx context.Context, r *replica, key string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://127.0.0.1/"+key, nil)
	if err != nil {
		return err
	}
	token, _ := shard.TokenFromContext(ctx)
	request.Header.Set("Token", token)
	request.Header.Set("Writer", r.name)
	answer, err := shard.WrapTransport(s).RoundTrip(request)
	if err != nil {
		return err
	}
	return answer.Body.Close()
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

// commit carries a write out, and judges it.
func (s *server) commit(key, token, writer string) {
	s.fleet.mu.Lock()
	everyone := s.fleet.everyone
	s.fleet.mu.Unlock()
	for _, other := range everyone {
		if other.name != writer && other.at(key) {
			s.fleet.problem("%s writes to %s while %s is at work on it", writer, key, other.name)
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
	case n >= last.token: // else a request that its process has given up at a fence
		s.last[key] = write{n, writer}
	}
}

// wire is a clientset whose requests about Leases take their time. It may go dead:
// then nothing is answered that was sent since.
type faultyClient struct {
	*fake.Clientset
	mu   sync.Mutex
	rand *rand.Rand
	dead bool
	slow time.Duration

	plan func(verb string) trip // nil: at random
	late time.Duration          // with a plan: how late watches show what has happened
	sent map[string]int         // requests by verb
}

// trip is one request's way to the server and back.
type trip struct {
	there, back time.Duration
	err         error // of a request that does not get there
}

// never is longer than any sender waits.
const never = time.Hour

// newPlannedWire returns a wire on which a function decides what becomes of each request.
// A server carries out what has reached it, also if the sender has given up.
func newPlannedWire(client *fake.Clientset, plan func(verb string) trip) *faultyClient {
	w := newFaultyClient(client, 0)
	w.plan = plan
	return w
}

// replan decides otherwise from now on.
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

// delay makes watches show events late from now on.
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

// requests returns how many were sent with one of some verbs.
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

// set makes the wire dead, slow, or well.
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
	wire *faultyClient
}

func (c coordination) Leases(namespace string) clientcoordinationv1.LeaseInterface {
	return leases{c.CoordinationV1Interface.Leases(namespace), c.wire}
}

type leases struct {
	clientcoordinationv1.LeaseInterface
	wire *faultyClient
}

// send delays a request on its way there and back. One on a dead wire gets no answer
// until its sender gives up, and may have been carried out; the kernel gives up at last.
func send[T any](ctx context.Context, w *faultyClient, verb string, patience time.Duration, f func() (T, error)) (answer T, err error) {
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
		answer, err = f() // also if the sender has given up meanwhile
	}
	if dead {
		back = patience
	}
	pause(ctx, back)
	if ctx.Err() != nil || dead {
		var none T
		return none, fmt.Errorf("%w: %w", shardtest.ErrFault, ctx.Err())
	}
	return answer, err
}

// carry sends a request on a planned trip.
func carry[T any](ctx context.Context, way trip, f func() (T, error)) (answer T, err error) {
	if way.err != nil {
		return answer, way.err
	}
	arrived := make(chan func() (T, error), 1)
	time.AfterFunc(way.there, func() {
		answer, err := f()
		arrived <- func() (T, error) { return answer, err }
	})
	select {
	case result := <-arrived:
		if pause(ctx, way.back); ctx.Err() == nil {
			return result()
		}
	case <-ctx.Done():
	}
	return answer, ctx.Err()
}

func (l leases) Get(ctx context.Context, name string, o metav1.GetOptions) (*coordinationv1.Lease, error) {
	return send(ctx, l.wire, "get", 15*time.Minute, func() (*coordinationv1.Lease, error) { return l.LeaseInterface.Get(ctx, name, o) })
}

func (l leases) Create(ctx context.Context, lease *coordinationv1.Lease, o metav1.CreateOptions) (*coordinationv1.Lease, error) {
	return send(ctx, l.wire, "create", 15*time.Minute, func() (*coordinationv1.Lease, error) { return l.LeaseInterface.Create(ctx, lease, o) })
}

func (l leases) Update(ctx context.Context, lease *coordinationv1.Lease, o metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	return send(ctx, l.wire, "update", 15*time.Minute, func() (*coordinationv1.Lease, error) { return l.LeaseInterface.Update(ctx, lease, o) })
}

func (l leases) Delete(ctx context.Context, name string, o metav1.DeleteOptions) error {
	_, err := send(ctx, l.wire, "delete", 15*time.Minute, func() (struct{}, error) { return struct{}{}, l.LeaseInterface.Delete(ctx, name, o) })
	return err
}

func (l leases) List(ctx context.Context, o metav1.ListOptions) (*coordinationv1.LeaseList, error) {
	return send(ctx, l.wire, "list", 30*time.Second, func() (*coordinationv1.LeaseList, error) { return l.LeaseInterface.List(ctx, o) })
}

// Watch is only on a planned wire another one than that of the clientset.
func (l leases) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	if !l.wire.planned() {
		return l.LeaseInterface.Watch(ctx, o)
	}
	events, err := send(ctx, l.wire, "watch", 0, func() (watch.Interface, error) { return l.LeaseInterface.Watch(ctx, o) })
	if err != nil {
		return nil, err
	}
	return newLateWatch(events, l.wire.lateness), nil
}

// lateWatch shows each event some time after it happened, as an API server does whose
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
