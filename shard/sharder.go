// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"

	"github.com/tom-ludwig/operator-scaling/informer"
	"github.com/tom-ludwig/operator-scaling/shard/internal/cachesync"
	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/metrics"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// Sharder represents this process on a ring. Create it with [New], create its
// informers and queues, then call [Sharder.Run]. All methods except Run may be called
// from any goroutine at any time.
type Sharder struct {
	cfg     Config
	client  kubernetes.Interface
	api     clients // of client, without its rate limiter
	hash    ring.Hash
	started time.Time // start of the monotonic clock

	// Published by the loop.
	snapshot atomic.Pointer[snapshot]
	deadline atomic.Pointer[claim.Time] // the fence; nil while fenced
	status   atomic.Pointer[status]
	holder   atomic.Pointer[string]
	metrics  *metrics.Metrics

	caches cachesync.Caches        // the informers as caches
	writes *cachesync.WriteTracker // by work whose requests go through WrapTransport

	mu        sync.Mutex // guards the fields below; not held while calling other code
	faults    []error    // of NewInformer, WrapInformer and NewQueue; Run returns them
	informers []*informer.Informer
	queues    []queue
	running   bool
	added     chan struct{} // capacity 1: informers or queues were added
	ask       chan func(*loop)
}

// queue has the methods of a *workqueue.Queue, of any item type, that the loop needs.
type queue interface {
	Readmit()
	Drain(draining func(point uint64) bool)
	FenceIf(fenced func() bool)
	InFlight() []workqueue.Work
	OnDone(func())
	Parked() int
}

// New applies the defaults, validates the configuration and returns a Sharder. It starts
// nothing and sends nothing: until Run, this member owns nothing.
//
// Any clientset from [kubernetes.NewForConfig] is suitable, with client-go's default limit
// of 5 requests a second and bursts of 10, and workers may use it, too: the requests of a
// member use the clientset's HTTP client, address and content type, but do not wait in
// its rate limiter. A clientset that is not client-go's own, for instance a wrapper, is
// used as it is. Build the clientset that it wraps from a rest.Config with QPS -1, which
// means no limit. With a limit of 5 requests a second everything works, but later: a
// member that has to evict 60 others by itself needs 13 seconds more.
func New(client kubernetes.Interface, cfg Config) (*Sharder, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if c, generated := client.(*kubernetes.Clientset); client == nil || generated && c == nil {
		return nil, errors.New("shard: the client is nil")
	}
	s := &Sharder{
		cfg:     cfg,
		client:  client,
		api:     newClients(client),
		hash:    ring.HashOf(cfg.Key),
		started: time.Now(),
		added:   make(chan struct{}, 1),
		ask:     make(chan func(*loop)),
	}
	s.snapshot.Store(emptySnapshot(cfg.parameters()))
	s.status.Store(&status{})
	s.newHolder()
	s.writes = cachesync.NewWriteTracker(&s.caches)
	s.metrics = metrics.New(cfg.Name, s.metricValues)
	return s, nil
}

// newHolder sets a new identity, for a new incarnation.
func (s *Sharder) newHolder() string {
	holder := s.cfg.PodName + "_" + string(uuid.NewUUID())
	s.holder.Store(&holder)
	return holder
}

// Identity returns this member's identity as written on its Lease:
// "<pod>_<incarnation>". It changes when the member has lost its Lease and joins
// again, but never while work is in flight.
func (s *Sharder) Identity() string { return *s.holder.Load() }

// PodName returns this member's name on the ring.
func (s *Sharder) PodName() string { return s.cfg.PodName }

// Config returns the configuration with its defaults.
func (s *Sharder) Config() Config { return s.cfg }

// fault records an error in the setup. Run returns it.
func (s *Sharder) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, fmt.Errorf(format, args...))
}

// add registers an informer or a queue.
func (s *Sharder) add(i *informer.Informer, q queue) {
	s.mu.Lock()
	if i != nil {
		s.informers = append(s.informers, i)
	}
	if q != nil {
		s.queues = append(s.queues, q)
	}
	s.mu.Unlock()
	select {
	case s.added <- struct{}{}:
	default:
	}
}

// components returns the registered informers and queues.
func (s *Sharder) components() ([]*informer.Informer, []queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.informers[:len(s.informers):len(s.informers)], s.queues[:len(s.queues):len(s.queues)]
}

// begin makes sure that Run is called only once, and returns the errors in the setup.
func (s *Sharder) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running {
		return fmt.Errorf("shard: ring %s: %w", s.cfg.Name, ErrAlreadyRun)
	}
	if err := errors.Join(s.faults...); err != nil {
		return err
	}
	s.running = true
	return nil
}

// inspect runs f on the loop's goroutine, which owns all state. It returns
// false if the loop does not accept f before the context ends.
func (s *Sharder) inspect(ctx context.Context, f func(*loop)) bool {
	done := make(chan struct{})
	select {
	case s.ask <- func(l *loop) { defer close(done); f(l) }:
		<-done // the loop has accepted it and will run it
		return true
	case <-ctx.Done():
		return false
	}
}
