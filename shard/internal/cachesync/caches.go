// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package cachesync

import (
	"reflect"
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
	IsStopped() bool
	GetStore() cache.Store
}

// Caches are the informers of a member as caches of objects, by kind. The zero value
// has none. Any goroutine may call its methods.
type Caches struct {
	mu   sync.Mutex
	list []*kindCache // guarded by mu; never held across a call out
}

// Add adds an informer. The example is an object such as the informer holds; nil if
// there is none, and then the first object that it holds shows the kind.
func (c *Caches) Add(i Informer, example any) {
	added := &kindCache{Informer: i}
	if kind := kindOf(example); kind != "" {
		added.kind.Store(&kind)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, added)
}

// all returns the informers that have not stopped. A stopped one shows no more writes, so it
// must not be waited for.
func (c *Caches) all() []*kindCache {
	c.mu.Lock()
	list := c.list[:len(c.list):len(c.list)]
	c.mu.Unlock()
	if !slices.ContainsFunc(list, stopped) {
		return list
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// IsStopped takes a lock of client-go's, which nothing holds for long or with mu held.
	c.list = slices.DeleteFunc(slices.Clone(c.list), stopped)
	return c.list[:len(c.list):len(c.list)]
}

func stopped(c *kindCache) bool { return c.IsStopped() }

// cachesFor returns the informers that hold objects of a kind.
func (c *Caches) cachesFor(kind string) (of []*kindCache) {
	for _, cached := range c.all() {
		if cached.is(kind) {
			of = append(of, cached)
		}
	}
	return of
}

// holds reports whether one of the informers of a kind holds an object.
func (c *Caches) holds(kind, key string) bool {
	if key == "" {
		return false
	}
	for _, cached := range c.cachesFor(kind) {
		if _, exists, _ := cached.GetStore().GetByKey(key); exists {
			return true
		}
	}
	return false
}

// Reached returns those of the watermarks that the stores of the informers have
// reached. It asks the store, which listers and handlers read, and not the reflector,
// which is ahead of it.
func (c *Caches) Reached(watermarks claim.Watermarks) claim.Watermarks {
	reached := claim.Watermarks{}
	for kind, version := range watermarks {
		if hasReached(c.cachesFor(kind), version) {
			reached[kind] = version
		}
	}
	return reached
}

// Cached returns the highest versions that the informers of the same kinds have
// reached; "" for a kind of which none can be compared.
func (c *Caches) Cached(watermarks claim.Watermarks) claim.Watermarks {
	cached := claim.Watermarks{}
	for kind := range watermarks {
		cached[kind] = highest(c.cachesFor(kind))
	}
	return cached
}

// hasReached is true where there is nothing to wait for: no informer of the kind, or
// one whose versions cannot be compared. Several informers of one kind hold different
// parts of the objects. One of them is enough: the others may never show the write.
func hasReached(caches []*kindCache, version string) bool {
	for _, c := range caches {
		if !c.HasSynced() {
			continue
		}
		shown := c.GetStore().LastStoreSyncResourceVersion()
		if !claim.ValidVersion(shown) || !claim.ValidVersion(version) || claim.CompareVersions(shown, version) >= 0 {
			return true
		}
	}
	return len(caches) == 0
}

// highest returns the highest version that one of the informers has reached, "" if none
// can be compared.
func highest(caches []*kindCache) (version string) {
	for _, c := range caches {
		if v := c.GetStore().LastStoreSyncResourceVersion(); higher(v, version) {
			version = v
		}
	}
	return version
}

// higher reports whether a is above b, which may be "" for none. A version that cannot
// be compared is not.
func higher(a, b string) bool { return claim.ValidVersion(a) && claim.CompareVersions(a, b) > 0 }

// kindCache is an informer as a cache of the objects of one kind.
type kindCache struct {
	Informer
	kind atomic.Pointer[string] // nil: not known yet; "": cannot be determined
}

// is reports whether the informer holds objects of a kind. If it was added without an
// example, the first object that it holds shows the kind.
func (c *kindCache) is(kind string) bool {
	known := c.kind.Load()
	if known == nil {
		objects := c.GetStore().List()
		if len(objects) == 0 {
			return false
		}
		first := kindOf(objects[0])
		known = &first
		c.kind.Store(known)
	}
	return *known == kind
}

// mayBe is is, but also true for an informer whose kind is not known yet.
func (c *kindCache) mayBe(kind string) bool { return c.is(kind) || c.kind.Load() == nil }

// kindOf returns the kind of an object, "" if it cannot be determined. The Go type of a
// typed object has the same name: schemes register types by that rule.
func kindOf(obj any) string {
	switch o := obj.(type) {
	case nil:
		return ""
	case *metav1.PartialObjectMetadata:
		if o.Kind == "PartialObjectMetadata" {
			return ""
		}
		return o.Kind
	case runtime.Unstructured:
		return o.GetObjectKind().GroupVersionKind().Kind
	}
	t := reflect.TypeOf(obj)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Name()
}

// KindOf returns the kind of an informer's objects, "" if it is not known. An example is an
// object such as the informer holds, or nil: the informer's name then ends with their Go type.
func KindOf(i interface{ HasSyncedChecker() cache.DoneChecker }, example any) string {
	if kind := kindOf(example); kind != "" {
		return kind
	}
	name := i.HasSyncedChecker().Name()
	kind := name[strings.LastIndexAny(name, " .*")+1:]
	if !goName.MatchString(kind) || kind == "Unstructured" || kind == "PartialObjectMetadata" {
		return ""
	}
	return kind
}

var goName = regexp.MustCompile(`^[A-Z][A-Za-z0-9]{0,62}$`)
