// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/informer"
)

// NewInformer has the parameters of cache.NewSharedIndexInformer. The handlers of the
// informer see only the objects that this member may work on, by the ring's key. The
// store, and therefore the listers, hold all objects.
//
// Register the informer in a generated factory with InformerFor, so that listers and
// Informer() use it too, or run it yourself.
func NewInformer(s *Sharder, lw cache.ListerWatcher, exampleObject runtime.Object, defaultEventHandlerResyncPeriod time.Duration, indexers cache.Indexers) cache.SharedIndexInformer {
	return wrap(s, cache.NewSharedIndexInformer(lw, exampleObject, defaultEventHandlerResyncPeriod, indexers), s.cfg.Key, exampleObject)
}

// WrapInformer makes a sharded informer from an existing one, for instance one from a
// factory. The key determines which member owns an object: use the ring's own key for the
// objects that are reconciled, and [ByController] for their dependents.
// Add the handlers to the informer that is returned. Run either of the two informers, or
// the factory that the inner one comes from.
//
// [Sharder.Run] returns an error if the key cannot be used on this ring. If Run has already
// begun, the informer shows its handlers nothing, and this is logged.
func WrapInformer(s *Sharder, inner cache.SharedIndexInformer, key Key) cache.SharedIndexInformer {
	return wrap(s, inner, key, nil)
}

// wrap is WrapInformer for objects such as the example. With a nil example the kind is
// read from the objects themselves.
func wrap(s *Sharder, inner cache.SharedIndexInformer, key Key, example any) cache.SharedIndexInformer {
	owner := informer.Ownership(s.ownership)
	resolved, err := key.Resolve(s.cfg.Key)
	if err != nil {
		s.fault("shard: WrapInformer: %w", err)
		resolved, owner = ByName, nothing{}
	}
	i := informer.Wrap(inner, informer.Options{
		Ownership: owner,
		Point: func(obj any) (uint64, error) {
			o, err := meta.Accessor(obj)
			if err != nil {
				return 0, fmt.Errorf("hash an object: %w", err)
			}
			return resolved.Point(o, s.hash), nil
		},
		DeletionWindow: s.cfg.DeletionWindow,
		Recorder:       &s.metrics.Informers,
	})
	s.caches.Add(i, example)
	s.member.Components.AddInformer(i)
	return i
}
