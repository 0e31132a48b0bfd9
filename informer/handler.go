// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import "k8s.io/client-go/tools/cache"

// ReleaseHandler is an optional interface of a handler that needs to know when this member
// loses an object to another member, for example to free what it keeps per object. It is also
// found inside a cache.FilteringResourceEventHandler: OnReleased is then called for the objects
// whose last delivered version has passed the filter. A handler that is added by AddTypedEventHandler cannot be a ReleaseHandler: client-go hides
// it behind an adapter.
type ReleaseHandler interface {
	cache.ResourceEventHandler
	// OnReleased is called when this member has released the object's partition, or when the
	// object has moved to a key that this member does not own. The argument is the object as
	// it is stored, in the version that the handler last saw or a later one, or a
	// cache.DeletedFinalStateUnknown without an object if it is not stored any more. No more
	// events of the object are delivered until the handler sees it by OnAdd again. With
	// Options.Unfiltered it is never called.
	OnReleased(obj any)
}

// GainHandler is an optional interface of a handler that treats objects that this member has
// gained in another way than new ones. It is also found inside a
// cache.FilteringResourceEventHandler.
type GainHandler interface {
	cache.ResourceEventHandler
	// OnGained is called instead of OnAdd for an object that is delivered because its
	// partition has become active; with Options.Unfiltered, instead of OnUpdate.
	OnGained(obj any)
}

// HandlerFuncs is cache.ResourceEventHandlerFuncs with two more functions. Each function may be nil.
type HandlerFuncs struct {
	AddFunc    func(obj any)
	UpdateFunc func(oldObj, newObj any)
	DeleteFunc func(obj any)
	// ReleasedFunc is called as OnReleased of a [ReleaseHandler].
	ReleasedFunc func(obj any)
	// GainedFunc is called as OnGained of a [GainHandler]. Nil means AddFunc; with
	// Options.Unfiltered, UpdateFunc. In a type that embeds HandlerFuncs, nil means the type's
	// OnAdd or OnUpdate, and the type's own OnGained comes before GainedFunc.
	GainedFunc func(obj any)
}

// OnAdd calls AddFunc.
func (h HandlerFuncs) OnAdd(obj any, _ bool) {
	if h.AddFunc != nil {
		h.AddFunc(obj)
	}
}

// OnUpdate calls UpdateFunc.
func (h HandlerFuncs) OnUpdate(oldObj, newObj any) {
	if h.UpdateFunc != nil {
		h.UpdateFunc(oldObj, newObj)
	}
}

// OnDelete calls DeleteFunc.
func (h HandlerFuncs) OnDelete(obj any) {
	if h.DeleteFunc != nil {
		h.DeleteFunc(obj)
	}
}

// OnReleased calls ReleasedFunc.
func (h HandlerFuncs) OnReleased(obj any) {
	if h.ReleasedFunc != nil {
		h.ReleasedFunc(obj)
	}
}

// gainedFunc is promoted to types that embed HandlerFuncs. OnGained would be, too, and make each of
// them a GainHandler, also without a GainedFunc. So only a type that has its own OnGained is one.
func (h HandlerFuncs) gainedFunc() func(obj any) { return h.GainedFunc }

// optional returns the optional functions of a handler and its filter, nil where it has none.
// The filter does not apply to released: it cannot judge an object that is not stored any more.
func optional(handler cache.ResourceEventHandler) (released, gained func(obj any), passes func(obj any) bool) {
	switch h := handler.(type) {
	case HandlerFuncs:
		return h.ReleasedFunc, h.GainedFunc, nil
	case *HandlerFuncs:
		return h.ReleasedFunc, h.GainedFunc, nil
	case cache.FilteringResourceEventHandler:
		return optionalFiltered(h)
	case *cache.FilteringResourceEventHandler:
		return optionalFiltered(*h)
	}
	if h, ok := handler.(ReleaseHandler); ok {
		released = h.OnReleased
	}
	switch h := handler.(type) {
	case GainHandler:
		gained = h.OnGained
	case interface{ gainedFunc() func(obj any) }:
		gained = h.gainedFunc()
	}
	return released, gained, nil
}

func optionalFiltered(h cache.FilteringResourceEventHandler) (released, gained func(obj any), passes func(obj any) bool) {
	released, inner, passesInner := optional(h.Handler)
	passes = func(obj any) bool { return h.FilterFunc(obj) && (passesInner == nil || passesInner(obj)) }
	if inner != nil {
		gained = func(obj any) {
			if h.FilterFunc(obj) {
				inner(obj)
			}
		}
	}
	return released, gained, passes
}
