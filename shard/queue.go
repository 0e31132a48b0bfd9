// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"fmt"
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
}

// Keyed may be implemented by the items of a queue. ShardKey returns the same key
// string as Config.Key returns for the object that the item refers to.
type Keyed interface{ ShardKey() string }

// QueueOption configures a queue that [NewQueue] creates.
type QueueOption[T comparable] func(*queueOptions[T])

type queueOptions[T comparable] struct {
	config clientworkqueue.TypedRateLimitingQueueConfig[T]
	key    func(T) string
}

// WithQueueConfig passes client-go's options to every layer of the queue: Name,
// MetricsProvider, Clock and DelayingQueue; see workqueue.Options.
func WithQueueConfig[T comparable](config clientworkqueue.TypedRateLimitingQueueConfig[T]) QueueOption[T] {
	return func(o *queueOptions[T]) { o.config = config }
}

// WithItemKey sets the function that returns the key string of an item, the same string as
// Config.Key returns for the object. The function must be pure. It is called for each Add
// and each Get.
func WithItemKey[T comparable](key func(item T) string) QueueOption[T] {
	return func(o *queueOptions[T]) { o.key = key }
}

// NewQueue creates a rate limiting queue that admits and hands out only what this
// member may work on. Items of the types cache.ObjectName, types.NamespacedName
// and string ("namespace/name") need no key function on rings by name or by
// namespace. Items of other types must implement [Keyed], or the queue needs [WithItemKey].
//
// If the key cannot be determined, [Sharder.Run] returns an error before anything starts.
func NewQueue[T comparable](s *Sharder, rateLimiter clientworkqueue.TypedRateLimiter[T], options ...QueueOption[T]) Queue[T] {
	var o queueOptions[T]
	for _, option := range options {
		option(&o)
	}
	point := pointOf(s, o.key)
	if point == nil {
		var item T
		s.fault("shard: NewQueue: items of type %T on a ring by %q: %w; use WithItemKey, or give the items a ShardKey method", item, s.cfg.Key.Name(), ErrNoItemKey)
		point = func(T) (uint64, error) { return 0, ErrNoItemKey }
	}
	q := workqueue.New(rateLimiter, workqueue.Options[T]{
		Ownership: s.ownership,
		Point:     point,
		Config:    o.config,
		Recorder:  &s.metrics.Queues,
	})
	s.member.Components.AddQueue(q)
	return q
}

// pointOf returns the function that hashes items, or nil if there is none. The
// functions for names do not allocate.
func pointOf[T comparable](s *Sharder, key func(T) string) func(T) (uint64, error) {
	if key != nil {
		return func(item T) (uint64, error) { return s.hash(key(item)), nil }
	}
	var item T
	if _, keyed := any(item).(Keyed); keyed {
		return func(item T) (uint64, error) { return s.hash(any(item).(Keyed).ShardKey()), nil }
	}
	var byPair func(namespace, name string) uint64
	switch s.cfg.Key.Name() {
	case ring.ByName.Name():
		byPair = ring.PointOfName
	case ring.ByNamespace.Name():
		byPair = func(namespace, name string) uint64 {
			if namespace == "" {
				return s.hash(name)
			}
			return s.hash(namespace)
		}
	default:
		return nil
	}
	var typed any
	switch any(item).(type) {
	case cache.ObjectName:
		typed = func(item cache.ObjectName) (uint64, error) { return byPair(item.Namespace, item.Name), nil }
	case types.NamespacedName:
		typed = func(item types.NamespacedName) (uint64, error) { return byPair(item.Namespace, item.Name), nil }
	case string:
		typed = func(item string) (uint64, error) {
			namespace, name, found := strings.Cut(item, "/")
			if !found {
				return byPair("", item), nil
			}
			if strings.Contains(name, "/") {
				return 0, fmt.Errorf("item %q is not namespace/name", item)
			}
			return byPair(namespace, name), nil
		}
	}
	point, _ := typed.(func(T) (uint64, error))
	return point
}
