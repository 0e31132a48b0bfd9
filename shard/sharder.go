// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/informer"
	"github.com/tom-ludwig/operator-scaling/shard/internal/cachesync"
	"github.com/tom-ludwig/operator-scaling/shard/internal/lease"
	"github.com/tom-ludwig/operator-scaling/shard/internal/member"
	"github.com/tom-ludwig/operator-scaling/shard/internal/metrics"
	"github.com/tom-ludwig/operator-scaling/shard/internal/podlock"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// Sharder represents this process on a ring. Create it with [New], create its
// informers and queues, then call [Sharder.Run]. All methods except Run may be called
// from any goroutine at any time.
type Sharder struct {
	cfg       Config
	api       clients // of the clientset, without its rate limiter
	calls     lease.Calls
	access    lease.Access
	hash      ring.Hash
	member    *member.Member
	metrics   *metrics.Metrics
	caches    cachesync.Caches // the informers as caches; none if fresh caches are turned off
	writes    *cachesync.WriteTracker
	ownership ownership
	acquirer  *workqueue.Acquirer
	pages     statusPages

	logger     atomic.Pointer[klog.Logger] // Run's; nil before Run
	unfiltered atomic.Bool                 // there is or was an informer with the key Unfiltered

	mu      sync.Mutex
	faults  []error // of NewInformer, WrapInformer and NewQueue; Run returns them; guarded by mu
	running bool    // guarded by mu
	// inFactories are the informers that InformerFor has registered, and the names of their keys;
	// guarded by mu.
	inFactories map[*informer.Informer]string
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
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if c, generated := client.(*kubernetes.Clientset); client == nil || generated && c == nil {
		return nil, errors.New("shard: the client is nil")
	}
	s := &Sharder{cfg: cfg, api: newClients(client), hash: ring.HashOf(cfg.Key), inFactories: map[*informer.Informer]string{}}
	leases := s.calls.Bounded(s.api.leases.Leases(cfg.Namespace))
	s.access = lease.Access{Leases: leases, Reviews: s.api.reviews.SelfSubjectAccessReviews(), Calls: &s.calls, Ring: cfg.Name, Namespace: cfg.Namespace}
	s.pages.turn = make(chan struct{}, 1)
	s.metrics = metrics.New(cfg.Name, s.metricValues)
	s.writes = cachesync.NewWriteTracker(&s.caches)
	settings := member.Config{
		Machine:         cfg.machine(),
		Lease:           lease.Config{Leases: leases, Namespace: cfg.Namespace, Ring: cfg.Name, Name: cfg.leaseName(), Labels: maps.Clone(cfg.LeaseLabels)},
		StopGracePeriod: cfg.StopGracePeriod, OnOverrun: cfg.OnOverrun,
		Access: s.access,
		Caches: &s.caches, Writes: s.writes, Metrics: s.metrics,
	}
	if cfg.OnChange != nil {
		settings.OnChange = func(c member.Change) {
			cfg.OnChange(Change{Kind: ChangeKind(c.Kind), Member: c.Member, Partitions: c.Partitions, Err: c.Err})
		}
	}
	settings.OnStop = func() { s.acquirer.Stop() }
	s.member = member.New(settings)
	s.ownership = ownership{s.member.Published, s}
	s.acquirer = workqueue.NewAcquirer(s.ownership, s.hash)
	s.member.Components.AddQueue(s.acquirer)
	return s, nil
}

// NewOrDie is [New], and panics if the configuration is invalid.
func NewOrDie(client kubernetes.Interface, cfg Config) *Sharder {
	s, err := New(client, cfg)
	if err != nil {
		panic(err)
	}
	return s
}

// Identity returns this member's identity as written on its Lease:
// "<pod>_<incarnation>". It changes when the member has lost its Lease and joins
// again, but never while work is in flight.
func (s *Sharder) Identity() string { return s.member.Published.View().Holder }

// PodName returns this member's name on the ring.
func (s *Sharder) PodName() string { return s.cfg.PodName }

// Config returns the configuration with its defaults.
func (s *Sharder) Config() Config { return s.cfg }

// Run joins the ring and takes part in it until the context is done. Then it
// drains the work in flight, releases what the member owns, voids its Lease and returns
// nil, after everything that Run started has ended. It waits for Config.OnChange and
// Config.OnOverrun no longer than Config.StopGracePeriod. Workers must continue to call
// Done until Run has returned, or at least for the items that they hold.
//
// The member joins the ring when all informers made with [NewInformer] and
// [WrapInformer] before Run have synced. Start them before Run or at the same time. If the
// member loses its Lease it stops all work and joins again. Informers and queues may be added
// later, too: a member that is on the ring does not wait for them, and their handlers see what it
// owns in their initial list. It forgets informers that have stopped, and queues that are shut
// down and empty.
//
// Run returns an error at once if the setup is invalid, and after a few seconds if access
// to Leases is denied. The errors that it may return later are listed with
// [ErrDrainTimeout]. It may be called once.
func (s *Sharder) Run(ctx context.Context) error {
	err := s.begin()
	if errors.Is(err, ErrAlreadyRun) {
		return err
	}
	defer s.acquirer.Stop()
	if err != nil {
		return err
	}
	logger := klog.LoggerWithValues(klog.FromContext(ctx), "ring", s.cfg.Name, "pod", s.cfg.PodName)
	s.logger.Store(&logger)
	ctx = klog.NewContext(ctx, logger)
	if err := s.access.Check(ctx); err != nil {
		return err
	}
	pod := member.Pod{UID: s.podUID(ctx)}
	if pod.UID != "" {
		pod.Owner = &metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: s.cfg.PodName, UID: types.UID(pod.UID)}
	}
	pod.Lock = podlock.New(podlock.Member{Namespace: s.cfg.Namespace, LeasePrefix: s.cfg.LeasePrefix, PodName: s.cfg.PodName, PodUID: pod.UID})
	return s.member.Run(ctx, pod)
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

// fault records an error in the setup. Run returns it, or it is logged if Run has begun.
func (s *Sharder) fault(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	s.mu.Lock()
	late := s.running
	s.faults = append(s.faults, err)
	s.mu.Unlock()
	if late {
		klog.Background().Error(err, "Invalid setup after Run has begun", "ring", s.cfg.Name)
	}
}

// podUID returns the configured UID of this member's Pod, or else reads it from the Pod.
// It returns "" if neither is available: the Lease then has no owner reference. It
// expires, and peers delete it.
func (s *Sharder) podUID(ctx context.Context) string {
	if s.cfg.PodUID != "" {
		return s.cfg.PodUID
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RenewDeadline/2)
	defer cancel()
	pod, err := lease.Call(ctx, &s.calls, func(ctx context.Context) (*corev1.Pod, error) {
		return s.api.pods.Pods(s.cfg.Namespace).Get(ctx, s.cfg.PodName, metav1.GetOptions{})
	}, nil)
	if err != nil {
		klog.FromContext(ctx).V(2).Info("The Lease has no owner reference: set "+EnvPodUID+" from the downward API (metadata.uid)", "err", err)
		return ""
	}
	return string(pod.UID)
}
