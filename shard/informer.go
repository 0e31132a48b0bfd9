// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"maps"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/informer"
	"github.com/tom-ludwig/operator-scaling/shard/internal/cachesync"
)

// Handlers that learn more than a plain informer can report.
type (
	// ReleaseHandler is an optional interface of a handler that must know when this member
	// loses an object to another member, for example to free what it keeps per object.
	ReleaseHandler = informer.ReleaseHandler
	// GainHandler is an optional interface of a handler that treats objects that this member
	// has gained in another way than new ones.
	GainHandler = informer.GainHandler
	// HandlerFuncs is cache.ResourceEventHandlerFuncs with two more functions. Its fields are
	// AddFunc, UpdateFunc, DeleteFunc, ReleasedFunc(obj), for objects that went to another member,
	// and GainedFunc(obj), which is called instead of AddFunc for objects that came from one. Nil
	// means AddFunc.
	HandlerFuncs = informer.HandlerFuncs
)

// NewInformer has the parameters of cache.NewSharedIndexInformer. The handlers of the
// informer see only the objects that this member may work on, by the ring's key. The
// store, and therefore the listers, hold all objects.
//
// When the member gains partitions, handlers see their objects as Adds, and then recent deletions
// as Deletes. Such a Delete is a cache.DeletedFinalStateUnknown with an object that has only its
// metadata: no spec, and no status.
//
// Run the informer yourself. For an informer of a generated factory see [InformerFor].
func NewInformer(s *Sharder, lw cache.ListerWatcher, exampleObject runtime.Object, defaultEventHandlerResyncPeriod time.Duration, indexers cache.Indexers) cache.SharedIndexInformer {
	return NewInformerWithOptions(s, lw, exampleObject, cache.SharedIndexInformerOptions{ResyncPeriod: defaultEventHandlerResyncPeriod, Indexers: indexers})
}

// NewInformerWithOptions is [NewInformer] with the parameters of
// cache.NewSharedIndexInformerWithOptions.
func NewInformerWithOptions(s *Sharder, lw cache.ListerWatcher, exampleObject runtime.Object, options cache.SharedIndexInformerOptions) cache.SharedIndexInformer {
	if options.Indexers == nil {
		options.Indexers = cache.Indexers{} // client-go cannot add an index to a nil map
	}
	return wrap(s, cache.NewSharedIndexInformerWithOptions(lw, exampleObject, options), s.cfg.Key, exampleObject)
}

// WrapInformer makes a sharded informer from an existing one, for instance one from a
// factory. The key determines which member owns an object; without one, it is the ring's
// own key, which is right for the objects that are reconciled. Use [ByController] for their
// dependents, and [Unfiltered] for objects that every member must see.
// Add the handlers to the informer that is returned. Run either of the two informers, or
// the factory that the inner one comes from. To remove an informer, stop it.
//
// [Sharder.Run] returns an error if the key cannot be used on this ring, and if inner is a
// sharded informer already. If Run has already begun, an informer whose key cannot be used
// shows its handlers nothing, and this is logged.
func WrapInformer(s *Sharder, inner cache.SharedIndexInformer, key ...Key) cache.SharedIndexInformer {
	k := s.cfg.Key
	if len(key) > 0 {
		k = key[0]
	}
	return wrap(s, inner, k, nil)
}

// GeneratedInformer is what the generated factories return for each kind, for instance a
// DeploymentInformer of k8s.io/client-go/informers/apps/v1. L is the type of the lister.
type GeneratedInformer[L any] interface {
	Informer() cache.SharedIndexInformer
	Lister() L
}

// WrapGenerated is [WrapInformer] for the constructors of controllers that take generated
// informers. Its result can be passed as such an informer:
//
//	NewController(ctx, client,
//		shard.WrapGenerated(s, factory.Apps().V1().Deployments(), shard.ByController))
//
// The factory itself is not changed: its Informer() shows handlers all objects. See
// [InformerFor] for a factory that other code uses, too. A transform of the factory
// (informers.WithTransform) must keep what the key is made of, such as owner references and
// UIDs. This is not checked; with InformerFor it is, and then logged.
func WrapGenerated[L any](s *Sharder, inner GeneratedInformer[L], key ...Key) GeneratedInformer[L] {
	return generated[L]{inner, WrapInformer(s, inner.Informer(), key...)}
}

type generated[L any] struct {
	GeneratedInformer[L]
	informer cache.SharedIndexInformer
}

func (g generated[L]) Informer() cache.SharedIndexInformer { return g.informer }

// InformerFor registers a sharded informer in a generated factory, so that the factory's
// listers and Informer() use it too, and returns it. The constructor is a generated one, for
// instance NewDeploymentInformer of k8s.io/client-go/informers/apps/v1. The key is that of
// [WrapInformer].
//
// The informer selects all objects in all namespaces: a factory does not show its options, so
// WithNamespace and WithTweakListOptions have no effect on it. Use [WrapGenerated] for a factory with
// these options, or pass a constructor that applies them: a function that calls
// NewFilteredDeploymentInformer with them.
//
// Call it before anything asks the factory for the informer or the lister of that type.
// Otherwise the factory has a plain informer, whose handlers see all objects:
// [Sharder.Run] returns an error then. If Run has already begun, this is logged, and the
// informer that is returned shows its handlers nothing. The same holds for a second call for
// the type with another key; one with the same key returns the same informer.
func InformerFor[C any, F ~func(C, time.Duration) cache.SharedIndexInformer](
	s *Sharder,
	factory interface {
		InformerFor(obj runtime.Object, newFunc F) cache.SharedIndexInformer
	},
	exampleObject runtime.Object,
	constructor func(client C, namespace string, resync time.Duration, indexers cache.Indexers) cache.SharedIndexInformer,
	key ...Key,
) cache.SharedIndexInformer {
	k := s.cfg.Key
	if len(key) > 0 {
		k = key[0]
	}
	var created cache.SharedIndexInformer
	found := factory.InformerFor(exampleObject, func(client C, resync time.Duration) cache.SharedIndexInformer {
		inner := constructor(client, metav1.NamespaceAll, resync, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
		created = wrap(s, inner, k, exampleObject)
		return created
	})
	switch first, ok := s.keyInFactory(informer.Of(found), k, created != nil); {
	case ok && first == k.Name():
	case ok:
		s.fault("shard: InformerFor: the informer of the factory for %T has the key %q already, and cannot have %q too: create another informer with NewInformer", exampleObject, first, k.Name())
		return s.silent(found)
	case sharderOf(found) != nil && sharderOf(found) != s:
		s.fault("shard: InformerFor: the informer of the factory for %T belongs to another Sharder: use a factory for each ring", exampleObject)
		return s.silent(found)
	case informer.Of(found) == nil:
		s.fault("shard: InformerFor: the factory already has a plain informer for %T: call InformerFor before anything calls Informer() or Lister() for that type", exampleObject)
		return s.silent(found)
	}
	return found
}

// FirstReplay returns a checker that is done when the handler of a registration has been
// shown all objects that this member owned first, after it had joined the ring. The
// registration's HasSynced is true before that: it covers the initial list, and a member
// owns nothing before its informers have synced. The checker is also done when the member is
// ready and gets no partition, because the ring has more members than partitions or is still
// that of another Config.Key, and when the handler is removed. FirstReplay returns nil for a
// registration that does not come from a sharded informer.
func FirstReplay(registration cache.ResourceEventHandlerRegistration) cache.DoneChecker {
	return informer.FirstReplay(registration)
}

// wrap is WrapInformer for objects such as the example. A nil example means that it
// is not known.
func wrap(s *Sharder, inner cache.SharedIndexInformer, key Key, example any) cache.SharedIndexInformer {
	owner := informer.Ownership(s.ownership)
	if informer.Of(inner) != nil {
		s.fault("shard: WrapInformer: the informer is sharded already (%T): use it as it is, or wrap the informer inside it", inner)
		return inner
	}
	kind, all := cachesync.KindOf(inner, example), key.Name() == Unfiltered.Name()
	if all {
		s.unfiltered.Store(true)
		key, kind = s.cfg.Key, "" // members may differ in what they only look at
	}
	resolved, err := key.Resolve(s.cfg.Key)
	if err != nil {
		s.fault("shard: WrapInformer: %w", err)
		resolved, owner = ByName, nothing{s}
	}
	var pointOfKey func(string) uint64
	if resolved.Name() == ByName.Name() {
		pointOfKey = s.hash // a store has its objects by namespace/name, too
	}
	i := informer.Wrap(inner, informer.Options{
		Ownership:      owner,
		Point:          func(obj metav1.Object) (uint64, error) { return resolved.Locate(obj, s.hash) },
		Unfiltered:     all,
		FixedPoint:     resolved.Fixed(),
		PointOfKey:     pointOfKey,
		DeletionWindow: s.cfg.DeletionWindow,
	})
	s.addCache(i, example)
	s.member.Components.AddInformer(i, kind)
	return i
}

// keyInFactory returns the name of the key with which InformerFor has registered an informer, if it
// has: a Key that was not set has the name "". It registers one that was just created.
func (s *Sharder) keyInFactory(i *informer.Informer, key Key, created bool) (name string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if created {
		maps.DeleteFunc(s.inFactories, func(i *informer.Informer, _ string) bool { return i.IsStopped() })
		s.inFactories[i] = key.Name()
	}
	name, ok = s.inFactories[i]
	return name, ok
}

// addCache makes other members' watermarks and this member's writes count for an informer.
func (s *Sharder) addCache(i cachesync.Informer, example any) {
	if s.cfg.CacheSyncTimeout > 0 {
		s.caches.Add(i, example)
	}
}

// silent returns an informer that shows its handlers nothing, after a fault that Run may have
// begun too early to return.
func (s *Sharder) silent(inner cache.SharedIndexInformer) cache.SharedIndexInformer {
	return informer.Wrap(inner, informer.Options{
		Ownership:      nothing{s},
		Point:          func(obj metav1.Object) (uint64, error) { return ByName.Locate(obj, s.hash) },
		DeletionWindow: -1,
	})
}

// sharderOf returns the Sharder that has made an informer, or nil.
func sharderOf(i cache.SharedInformer) *Sharder {
	if i := informer.Of(i); i != nil {
		if owner, ok := i.Ownership().(interface{ sharder() *Sharder }); ok {
			return owner.sharder()
		}
	}
	return nil
}
