// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// Queue is client-go's rate limiting queue, and the contexts of the work on its items.
// Package workqueue documents its guarantees. All methods may be called from any goroutine.
type Queue[T comparable] interface {
	clientworkqueue.TypedRateLimitingInterface[T]

	// Context returns a context for the work on an item that Get has handed out. It ends
	// with the cause [ErrDraining] when the item's partition is to be handed over, with
	// [ErrFenced] at the fence, and at Done. It does not end when its parent is cancelled,
	// because a drain is not an abort; it ends at its parent's deadline, and has its values.
	Context(parent context.Context, item T) context.Context
	// AddGained is Add for objects that this member has gained, as a handler learns from
	// [HandlerFuncs].GainedFunc. Live events and retries do not wait behind them: while others
	// wait, one item in eight that Get returns is a gained one. Otherwise the order is that in
	// which items were added, as in client-go.
	AddGained(item T)
	// GetWithContext is Get and Context in one call. After a shutdown it returns the parent.
	GetWithContext(parent context.Context) (item T, work context.Context, shutdown bool)
}

// WorkContext returns the Context of an item that the queue has handed out, if the queue is a
// [Queue], and otherwise the parent. With it, a controller runs on client-go's queues too.
func WorkContext[T comparable](parent context.Context, queue clientworkqueue.TypedInterface[T], item T) context.Context {
	if q, ok := queue.(interface {
		Context(context.Context, T) context.Context
	}); ok {
		return q.Context(parent, item)
	}
	return parent
}

// AddGained is [Queue].AddGained, if the queue is a [Queue], and otherwise Add.
func AddGained[T comparable](queue clientworkqueue.TypedInterface[T], item T) {
	if q, ok := queue.(interface{ AddGained(T) }); ok {
		q.AddGained(item)
	} else {
		queue.Add(item)
	}
}

// Keyed may be implemented by the items of a queue. ShardKey returns the same key
// string as [Sharder.KeyOf] returns for the object that the item refers to.
type Keyed interface{ ShardKey() string }

// QueueOption configures a queue that [NewQueue] creates.
type QueueOption[T comparable] func(*queueOptions[T])

type queueOptions[T comparable] struct {
	config      clientworkqueue.TypedRateLimitingQueueConfig[T]
	key         func(T) string
	onMisrouted func(T)
}

// WithQueueConfig passes client-go's options to every layer of the queue: Name,
// MetricsProvider, Clock and DelayingQueue; see workqueue.Options.
func WithQueueConfig[T comparable](config clientworkqueue.TypedRateLimitingQueueConfig[T]) QueueOption[T] {
	return func(o *queueOptions[T]) { o.config = config }
}

// WithItemKey sets the function that returns the key string of an item, the same string as
// [Sharder.KeyOf] returns for the object. The function must be pure. It is called for each Add. If
// it panics, the item is handed out on the member on which it was added, whichever that is.
func WithItemKey[T comparable](key func(item T) string) QueueOption[T] {
	return func(o *queueOptions[T]) { o.key = key }
}

// WithMisroutedHook sets a function that is called with each item that Add has dropped
// although the ring had been stable for 30 s: another member owns its partition,
// and has to add it itself. Without the function, the first such item of a queue is logged:
// usually the key of the item is not the key of the object that it was made from, so that no
// member works on it. Items of handlers that see the objects of all members are misrouted
// without harm. So nothing is logged if the Sharder has an informer with the key [Unfiltered];
// give queues of other such handlers a function that does nothing. The function must not block.
func WithMisroutedHook[T comparable](hook func(item T)) QueueOption[T] {
	return func(o *queueOptions[T]) { o.onMisrouted = hook }
}

// NewQueue creates a rate limiting queue that admits and hands out only what this
// member may work on. Items of the types cache.ObjectName, types.NamespacedName
// and string ("namespace/name") need no key function on rings by name or by
// namespace. Items of other types must implement [Keyed], or the queue needs [WithItemKey].
// In a queue of an interface type, such as any, each item is treated as its own type requires.
//
// An item whose key cannot be determined, although the type of the queue's items does not show it,
// belongs to no partition: a struct of your own in a queue of type any, or a string such as
// "kind/namespace/name". To drop it would lose work, so the member on which it was added hands it
// out. For such items the guarantees G1 and G3 do not hold: other members may work on the object at
// the same time, and no handover waits for the work. The first of them is logged, and they are
// counted in sharding_queue_items_total{result="malformed"}. With [WithItemKey] there are none:
//
//	shard.WithItemKey(func(item any) string { r := item.(request); return r.namespace + "/" + r.name })
//
// If the key cannot be determined, [Sharder.Run] returns an error before anything starts. A
// queue that is created when Run has already begun then drops every item, and this is logged.
func NewQueue[T comparable](s *Sharder, rateLimiter clientworkqueue.TypedRateLimiter[T], options ...QueueOption[T]) Queue[T] {
	var o queueOptions[T]
	for _, option := range options {
		option(&o)
	}
	reports := &queueReports[T]{QueueCounters: &s.metrics.Queues, s: s, name: o.config.Name, onMisrouted: o.onMisrouted}
	point := pointOf(s, o.key, reports)
	owner := workqueue.Ownership(s.ownership)
	if point == nil {
		var item T
		s.fault("shard: NewQueue: items of type %T on a ring by %q: %w; use WithItemKey, or give the items a ShardKey method", item, s.cfg.Key.Name(), ErrNoItemKey)
		point, owner = func(T) (uint64, error) { return 0, nil }, nothing{s}
	}
	if rateLimiter == nil {
		s.fault("shard: NewQueue: the rate limiter is nil")
		rateLimiter = clientworkqueue.DefaultTypedControllerRateLimiter[T]() // never used: Run returns the error
	}
	q := workqueue.New(rateLimiter, workqueue.Options[T]{
		Ownership:    owner,
		Point:        point,
		Config:       o.config,
		Recorder:     reports,
		OnForeignAdd: reports.foreignAdd,
	})
	s.member.Components.AddQueue(q)
	return q
}

// NewQueueWithConfig is [NewQueue] with client-go's options, like
// workqueue.NewTypedRateLimitingQueueWithConfig.
func NewQueueWithConfig[T comparable](s *Sharder, rateLimiter clientworkqueue.TypedRateLimiter[T], config clientworkqueue.TypedRateLimitingQueueConfig[T], options ...QueueOption[T]) Queue[T] {
	return NewQueue(s, rateLimiter, append([]QueueOption[T]{WithQueueConfig(config)}, options...)...)
}

// NewQueueFor is [NewQueue] for a controller that is given informers and knows of no Sharder: it
// creates a queue of the Sharder that has made the informer. For an informer that is not sharded
// it creates client-go's queue, so that the controller works without sharding too. See [WorkContext].
func NewQueueFor[T comparable](informer cache.SharedInformer, rateLimiter clientworkqueue.TypedRateLimiter[T], options ...QueueOption[T]) clientworkqueue.TypedRateLimitingInterface[T] {
	if s := sharderOf(informer); s != nil {
		return NewQueue(s, rateLimiter, options...)
	}
	var o queueOptions[T]
	for _, option := range options {
		option(&o)
	}
	return clientworkqueue.NewTypedRateLimitingQueueWithConfig(rateLimiter, o.config)
}

// pointOf returns the function that hashes items, or nil if there is none. The
// functions for names do not allocate.
func pointOf[T comparable](s *Sharder, key func(T) string, reports *queueReports[T]) func(T) (uint64, error) {
	if key != nil {
		return func(item T) (uint64, error) { return s.hash(key(item)), nil }
	}
	byPair := pairHash(s)
	ofName := func(namespace, name string) (uint64, error) {
		if namespace != "" {
			if !reports.namespaced.Load() {
				reports.namespaced.Store(true)
			}
		} else if reports.namespaced.Load() {
			reports.noNamespace(name)
		}
		return byPair(namespace, name), nil
	}
	ofString := func(item string) (uint64, error) {
		namespace, name, found := strings.Cut(item, "/")
		if !found {
			return ofName("", item)
		}
		if strings.Contains(name, "/") {
			return 0, fmt.Errorf("item %q is not namespace/name", item)
		}
		return ofName(namespace, name)
	}
	if reflect.TypeFor[T]().Kind() == reflect.Interface {
		return func(item T) (uint64, error) {
			switch item := any(item).(type) {
			case Keyed:
				return s.hash(item.ShardKey()), nil
			case cache.ObjectName:
				if byPair != nil {
					return ofName(item.Namespace, item.Name)
				}
			case types.NamespacedName:
				if byPair != nil {
					return ofName(item.Namespace, item.Name)
				}
			case string:
				if byPair != nil {
					return ofString(item)
				}
			}
			return 0, fmt.Errorf("item of type %T on a ring by %q: %w", item, s.cfg.Key.Name(), ErrNoItemKey)
		}
	}
	var item T
	if _, keyed := any(item).(Keyed); keyed {
		return func(item T) (uint64, error) { return s.hash(any(item).(Keyed).ShardKey()), nil }
	}
	if byPair == nil {
		return nil
	}
	var typed any
	switch any(item).(type) {
	case cache.ObjectName:
		typed = func(item cache.ObjectName) (uint64, error) { return ofName(item.Namespace, item.Name) }
	case types.NamespacedName:
		typed = func(item types.NamespacedName) (uint64, error) { return ofName(item.Namespace, item.Name) }
	case string:
		typed = ofString
	}
	point, _ := typed.(func(T) (uint64, error))
	return point
}

// pairHash returns the function that hashes a namespaced name, or nil if the ring's key is not
// made of it.
func pairHash(s *Sharder) func(namespace, name string) uint64 {
	switch s.cfg.Key.Name() {
	case ring.ByName.Name():
		return ring.PointOfName
	case ring.ByNamespace.Name():
		return func(namespace, name string) uint64 {
			if namespace == "" {
				return s.hash(name)
			}
			return s.hash(namespace)
		}
	}
	return nil
}
