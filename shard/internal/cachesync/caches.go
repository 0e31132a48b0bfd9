// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package cachesync

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

// Informer is what this package needs of a cache.SharedIndexInformer.
type Informer interface {
	HasSynced() bool
	HasSyncedChecker() cache.DoneChecker
	IsStopped() bool
	GetStore() cache.Store
}

// Caches are the informers of a member as caches of objects. The zero value has none. Any
// goroutine may call its methods.
type Caches struct {
	mu   sync.Mutex
	list []*namedCache // guarded by mu; never held across a call out
}

// namedCache is an informer with a name that it has on every member: members that run the same
// code have the same informers.
type namedCache struct {
	Informer
	known atomic.Pointer[string] // nil: not known yet; "": its objects do not show it, but a write may
}

// Add adds an informer. The example is an object such as the informer holds; nil if there is
// none.
func (c *Caches) Add(i Informer, example any) {
	added := &namedCache{Informer: i}
	name := nameOf(example)
	if name == "" {
		name = typeName(i)
	}
	if name != "" {
		added.known.Store(&name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, added)
}

// typeName returns the Go type of the objects that client-go expects in an informer, "" if that is
// not known. The name of the informer's checker ends with it.
func typeName(i interface{ HasSyncedChecker() cache.DoneChecker }) string {
	_, name, _ := strings.Cut(i.HasSyncedChecker().Name(), "*")
	if !validName.MatchString(name) || name == untyped || name == metadataOnly {
		return ""
	}
	return name
}

// all returns the informers that have not stopped. A stopped one shows no more writes, so it
// must not be waited for.
func (c *Caches) all() []*namedCache {
	c.mu.Lock()
	list := c.list[:len(c.list):len(c.list)]
	c.mu.Unlock()
	stopped := func(c *namedCache) bool { return c.IsStopped() }
	if !slices.ContainsFunc(list, stopped) {
		return list
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// IsStopped takes a lock of client-go's, which nothing holds for long or with mu held.
	c.list = slices.DeleteFunc(slices.Clone(c.list), stopped)
	return c.list[:len(c.list):len(c.list)]
}

// ForgetStopped frees the informers that have stopped, with their stores. Otherwise they stay until the next write or
// handover, and there may be none for days.
func (c *Caches) ForgetStopped() { c.all() }

// named returns the informers of a name; if there are none, those whose names are not known yet,
// because they hold no objects, or objects that do not show their kind. known is false for these.
func (c *Caches) named(name string) (named []*namedCache, known bool) {
	var unknown []*namedCache
	for _, cached := range c.all() {
		switch n, known := cached.name(); {
		case !known:
			unknown = append(unknown, cached)
		case n == name:
			named = append(named, cached)
		}
	}
	if named == nil {
		return unknown, false
	}
	return named, true
}

// Reached returns those of the watermarks that the stores of the informers have
// reached. It asks the store, which listers and handlers read, and not the reflector,
// which is ahead of it.
//
// Several informers of one name hold different parts of the objects. One of them is enough: the
// others may never show the write. Of those whose names are not known, all must have reached it:
// each may be the one. Without any, there is nothing to wait for.
func (c *Caches) Reached(watermarks claim.Watermarks) claim.Watermarks {
	reached := claim.Watermarks{}
	for name, version := range watermarks {
		caches, known := c.named(name)
		waiting := len(caches)
		for _, of := range caches {
			if of.hasReached(version) {
				waiting--
			}
		}
		if waiting == 0 || known && waiting < len(caches) {
			reached[name] = version
		}
	}
	return reached
}

// Cached returns the highest versions that the informers of the same names have reached; ""
// where none can be compared.
func (c *Caches) Cached(watermarks claim.Watermarks) claim.Watermarks {
	cached := claim.Watermarks{}
	for name := range watermarks {
		cached[name] = ""
		caches, _ := c.named(name)
		for _, of := range caches {
			if v := of.GetStore().LastStoreSyncResourceVersion(); higher(v, cached[name]) {
				cached[name] = v
			}
		}
	}
	return cached
}

// hasReached reports whether the store has reached a version. It is true if the two cannot be
// compared.
func (c *namedCache) hasReached(version string) bool {
	shown := c.GetStore().LastStoreSyncResourceVersion()
	return c.HasSynced() && (!claim.ValidVersion(shown) || !claim.ValidVersion(version) || claim.CompareVersions(shown, version) >= 0)
}

// higher reports whether a is above b, which may be "" for none. A version that cannot
// be compared is not.
func higher(a, b string) bool { return claim.ValidVersion(a) && claim.CompareVersions(a, b) > 0 }

// name returns the informer's name. If client-go does not know what the informer holds, the
// first object shows it, or the first write to one of its objects.
func (c *namedCache) name() (name string, known bool) {
	if n := c.known.Load(); n != nil {
		return *n, *n != ""
	}
	objects := c.GetStore().List()
	if len(objects) == 0 {
		return "", false
	}
	name = nameOf(objects[0])
	c.known.CompareAndSwap(nil, &name)
	return name, name != ""
}

// learn gives a name to an informer without one that shows an object which was written. The
// objects of a metadata informer do not show their kind: kube-apiserver sends each of them as a
// PartialObjectMetadata. The response to a write does, unless it is that of a scale subresource.
func (c *namedCache) learn(w *write) {
	if _, known := c.name(); known || !w.exact || w.kind.Kind == "Scale" {
		return
	}
	if name := w.kind.GroupKind().String(); validName.MatchString(name) {
		c.known.Store(&name)
	}
}

// shows reports whether the informer shows the object that was written, in any version. UIDs
// prove it, whatever the informer's name is. A server without them is a fake.
func (c *namedCache) shows(w *write) bool {
	stored, exists, err := c.GetStore().GetByKey(cache.NewObjectName(w.namespace, w.object).String())
	if err != nil || !exists {
		return false
	}
	m, ok := stored.(metav1.Object)
	if ok && m.GetUID() != "" && w.uid != "" {
		return m.GetUID() == w.uid
	}
	name, known := c.name()
	return known && w.isOf(name)
}

const (
	untyped      = "unstructured.Unstructured"
	metadataOnly = "v1.PartialObjectMetadata"
)

// validName matches the names that a Lease can carry.
var validName = regexp.MustCompile(`^` + claim.WatermarkName + `$`)

// nameOf returns the name of an informer that holds such objects: the Go type as in
// "v1.Deployment", and for objects without a type of their own the kind as in
// "Deployment.apps". It returns "" if there is none.
func nameOf(obj any) (name string) {
	switch o := obj.(type) {
	case nil:
	case *metav1.PartialObjectMetadata:
		if o.Kind != "PartialObjectMetadata" {
			name = o.GroupVersionKind().GroupKind().String()
		}
	case runtime.Unstructured:
		name = o.GetObjectKind().GroupVersionKind().GroupKind().String()
	default:
		name = strings.TrimPrefix(fmt.Sprintf("%T", obj), "*")
	}
	if !validName.MatchString(name) {
		return ""
	}
	return name
}

// KindOf returns the kind of an informer's objects, "" if it is not known. An example is an
// object such as the informer holds, or nil.
func KindOf(i interface{ HasSyncedChecker() cache.DoneChecker }, example any) string {
	name := nameOf(example)
	if name == "" {
		name = typeName(i)
	}
	kind, of, found := strings.Cut(name, ".")
	if found && kind == strings.ToLower(kind) {
		return of // the Go type: "v1.Deployment"
	}
	return kind // "Deployment.apps"
}
