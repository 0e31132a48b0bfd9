// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// Keyed may be implemented by the items of a queue: ShardKey returns the key
// string of the object that the item stands for, as Config.Key would.
type Keyed interface{ ShardKey() string }

// QueueOption changes a queue that [NewQueue] makes.
type QueueOption[T comparable] func(*queueOptions[T])

type queueOptions[T comparable] struct {
	config clientworkqueue.TypedRateLimitingQueueConfig[T]
	key    func(T) string
}

// WithQueueConfig passes client-go's options on to every layer of the queue: Name,
// MetricsProvider, Clock and DelayingQueue; see workqueue.Options.
func WithQueueConfig[T comparable](config clientworkqueue.TypedRateLimitingQueueConfig[T]) QueueOption[T] {
	return func(o *queueOptions[T]) { o.config = config }
}

// WithItemKey says which key string an item stands for, as Config.Key would make
// it of the object. It must be pure, and is called for each Add and each Get.
func WithItemKey[T comparable](key func(item T) string) QueueOption[T] {
	return func(o *queueOptions[T]) { o.key = key }
}

// NewQueue makes a rate limiting queue that admits and hands out only what this
// member may work on. Items of the types cache.ObjectName, types.NamespacedName
// and string ("namespace/name") need no key function on rings by name or by
// namespace; items of other types implement [Keyed], or come with [WithItemKey].
//
// Where the key can't be told, [Sharder.Run] says so before anything starts.
func NewQueue[T comparable](s *Sharder, rateLimiter clientworkqueue.TypedRateLimiter[T], options ...QueueOption[T]) *workqueue.Queue[T] {
	var o queueOptions[T]
	for _, option := range options {
		option(&o)
	}
	point := pointOf(s, o.key)
	if point == nil {
		var item T
		s.fault("shard: NewQueue: items of type %T on a ring by %q: %w; use WithItemKey, or let the items have a method ShardKey", item, s.cfg.Key.Name(), ErrNoItemKey)
		point = func(T) (uint64, error) { return 0, ErrNoItemKey }
	}
	q := workqueue.New(rateLimiter, workqueue.Options[T]{
		Ownership: s,
		Point:     point,
		Config:    o.config,
		Recorder:  &s.metrics.queue,
	})
	s.add(nil, q)
	return q
}

// pointOf returns the function that hashes items, nil if there is none. The
// functions for names don't allocate.
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
