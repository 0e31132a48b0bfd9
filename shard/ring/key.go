// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/zeebo/xxh3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A Key determines which string of an object is hashed. Objects with equal keys always
// have the same owner.
//
// Each ring has one key: [ByName], [ByNamespace], [ByUID], or a custom key from
// [ByFunc]. With [ByController] or [ByClusterController], dependent objects have the
// same owning member as their controlling owner. These two mean "the key that the ring
// uses for the controlling owner" and are resolved with [Key.Resolve].
type Key struct {
	name string
	of   func(metav1.Object) string
	// pair returns the two parts of a key that is a namespaced name, so that it can
	// be hashed without concatenation. Nil for other keys.
	pair func(metav1.Object) (namespace, name string)
	// ofOwner derives the key of the controlling owner of an object in the given
	// namespace ("" if the owner is cluster-scoped). Nil if an owner reference does not
	// contain what the key needs.
	ofOwner func(namespace string, owner *metav1.OwnerReference) string
	custom  bool // from ByFunc
}

const (
	keyByController        = "controller"
	keyByClusterController = "cluster-controller"
	keyByUID               = "uid"
	customPrefix           = "custom-" // of keys from ByFunc
)

var (
	// ByName hashes namespace/name, or the name of a cluster-scoped object. The
	// default. Objects of different kinds with the same name have the same owner.
	ByName = Key{
		name:    "name",
		of:      func(o metav1.Object) string { return NamespacedName(o.GetNamespace(), o.GetName()) },
		pair:    func(o metav1.Object) (string, string) { return o.GetNamespace(), o.GetName() },
		ofOwner: func(ns string, ref *metav1.OwnerReference) string { return NamespacedName(ns, ref.Name) },
	}
	// ByNamespace hashes the namespace, so that one member owns all objects in it. A
	// cluster-scoped object is hashed by its name (so a Namespace has the same owner as
	// the objects in it).
	ByNamespace = Key{
		name: "namespace",
		of: func(o metav1.Object) string {
			if ns := o.GetNamespace(); ns != "" {
				return ns
			}
			return o.GetName()
		},
		ofOwner: func(ns string, ref *metav1.OwnerReference) string {
			if ns != "" {
				return ns
			}
			return ref.Name
		},
	}
	// ByUID hashes metadata.uid with FNV-1a-64, as kube-apiserver does
	// (KEP-5866), so that the server can select by the same ranges.
	ByUID = Key{
		name:    keyByUID,
		of:      func(o metav1.Object) string { return string(o.GetUID()) },
		ofOwner: func(_ string, ref *metav1.OwnerReference) string { return string(ref.UID) },
	}
	// ByController uses the ring's key of a dependent object's controlling owner
	// (metadata.ownerReferences with controller: true). An object without a controller
	// uses its own key.
	ByController = Key{name: keyByController}
	// ByClusterController is ByController for cluster-scoped owners of namespaced
	// dependents: an owner reference does not contain the scope of the owner.
	ByClusterController = Key{name: keyByClusterController}
	// Unfiltered is no key: all members see the objects of the informer. It cannot be
	// resolved.
	Unfiltered = Key{name: "unfiltered"}
)

// ErrNoOwnerKey is the error for a ring whose key cannot be derived from an owner
// reference.
var ErrNoOwnerKey = errors.New("the ring's key cannot be derived from an owner reference")

// ErrOtherKey is the error for an informer's key that contradicts the ring's: its objects
// would go to other members than the work on them.
var ErrOtherKey = errors.New("the key contradicts the ring's key")

// ErrEmptyKey is the error for an object whose key is the empty string.
var ErrEmptyKey = errors.New("the key is empty")

// ByFunc returns a key from a custom function. The name becomes part of the ring's
// fingerprint: change it whenever the function returns different strings, so that
// members of different versions do not treat each other's partitions as comparable.
//
// The function must be pure and must not keep or change the object. It is called from
// many goroutines, once or twice for each event. The string is hashed with xxh3-64, on a
// ring with the key ByUID with FNV-1a-64.
//
// As the key of an informer, the function must return the ring's key of the object that
// the informer's object belongs to.
func ByFunc(name string, of func(metav1.Object) string) Key {
	return Key{name: customPrefix + name, of: of, custom: true}
}

// Name identifies the key in a fingerprint, in errors and on the status page.
func (k Key) Name() string { return k.name }

// Of returns the string to hash. It may only be called on a key that is not
// relative to the ring's key (see [Key.Resolve]).
func (k Key) Of(obj metav1.Object) string { return k.of(obj) }

// Resolve returns the key to use for an informer on a ring whose key is ringKey:
// k itself, or for [ByController] and [ByClusterController] the key of the owner.
// It returns [ErrNoOwnerKey] for those two on a ring with a custom key,
// [ErrOtherKey] for a key that contradicts the ring's, and another error for the zero Key.
func (k Key) Resolve(ringKey Key) (Key, error) {
	switch k.name {
	case keyByController, keyByClusterController:
	default:
		if k.of == nil {
			return Key{}, errors.New("the zero Key is not valid: use ByName, ByNamespace, ByUID, ByController or ByFunc with a function")
		}
		if k.name != ringKey.name && !k.custom {
			return Key{}, fmt.Errorf("key %q on a ring by %q: %w; use the ring's key, ByController, ByClusterController, or ByFunc with a function that returns the ring's key", k.name, ringKey.name, ErrOtherKey)
		}
		if ringKey.name == keyByUID {
			k.pair = nil // pairs are hashed with xxh3, but all keys of this ring with FNV-1a
		}
		return k, nil
	}
	if ringKey.ofOwner == nil {
		return Key{}, fmt.Errorf("key %q on a ring by %q: %w; use ByFunc with a function that returns the owner's key", k.name, ringKey.name, ErrNoOwnerKey)
	}
	ownerNamespace := metav1.Object.GetNamespace
	if k.name == keyByClusterController {
		ownerNamespace = func(metav1.Object) string { return "" }
	}
	resolved := Key{name: k.name, of: func(obj metav1.Object) string {
		if ref := metav1.GetControllerOfNoCopy(obj); ref != nil {
			return ringKey.ofOwner(ownerNamespace(obj), ref)
		}
		return ringKey.of(obj)
	}}
	if ringKey.name == ByName.name {
		resolved.pair = func(obj metav1.Object) (string, string) {
			if ref := metav1.GetControllerOfNoCopy(obj); ref != nil {
				return ownerNamespace(obj), ref.Name
			}
			return obj.GetNamespace(), obj.GetName()
		}
	}
	return resolved, nil
}

// Fixed reports whether the key of an object never changes while the object exists. It may
// only be called on a resolved key.
func (k Key) Fixed() bool {
	switch k.name {
	case ByName.name, ByNamespace.name, keyByUID:
		return true
	}
	return false
}

// Locate is Point, but it returns [ErrEmptyKey] if the string of the object is empty: for
// instance on a ring by UID, if a transform has removed the UIDs. All such objects would have
// the same owner.
func (k Key) Locate(obj metav1.Object, hash Hash) (uint64, error) {
	if k.pair != nil {
		return PointOfName(k.pair(obj)), nil
	}
	key := k.of(obj)
	if key == "" {
		return 0, fmt.Errorf("hash an object by %s: %w", k.name, ErrEmptyKey)
	}
	return hash(key), nil
}

// Point returns the object's point of the hash space, for a resolved key and the hash
// function of the ring. It does not allocate for keys by name, namespace or UID.
func (k Key) Point(obj metav1.Object, hash Hash) uint64 {
	if k.pair != nil {
		return PointOfName(k.pair(obj))
	}
	return hash(k.of(obj))
}

// PointOfName returns the point of a namespaced name: the xxh3-64 of [NamespacedName],
// without concatenating the string.
func PointOfName(namespace, name string) uint64 {
	if namespace == "" {
		return xxh3.HashString(name)
	}
	// A small buffer takes less time to clear, and most keys fit. The maximum length of a key
	// is a namespace of 63 characters and a name of 253. For a longer key append allocates.
	if len(namespace)+1+len(name) <= 128 {
		var buffer [128]byte
		return xxh3.Hash(appendName(buffer[:0], namespace, name))
	}
	var buffer [63 + 1 + 253]byte
	return xxh3.Hash(appendName(buffer[:0], namespace, name))
}

func appendName(key []byte, namespace, name string) []byte {
	key = append(key, namespace...)
	key = append(key, '/')
	return append(key, name...)
}

// NamespacedName returns the key of an object on a ring with the key ByName.
func NamespacedName(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// A Hash maps a key to a point of the hash space.
type Hash func(key string) uint64

// HashOf returns the hash function of the rings with the given key.
func HashOf(ringKey Key) Hash {
	if ringKey.name == keyByUID {
		return fnv1a
	}
	return xxh3.HashString
}

// hashName returns the name of the hash function in a fingerprint.
func hashName(key string) string {
	if key == keyByUID {
		return "fnv1a"
	}
	return "xxh3"
}

// fnv1a is FNV-1a-64. The implementation in the standard library needs a hash.Hash and a
// []byte, which would be an allocation on the hot path.
func fnv1a(s string) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := range len(s) {
		h ^= uint64(s[i])
		h *= prime
	}
	return h
}

// PartitionOf returns the partition that contains the point: the high 64 bits of
// point × partitions, so that each partition is a contiguous range of points
// (Lemire, "Fast Random Integer Generation in an Interval", 2019). partitions
// must be at least 1.
func PartitionOf(point uint64, partitions int) int {
	hi, _ := bits.Mul64(point, uint64(partitions))
	return int(hi)
}

// RangeOf returns the first and the last point of a partition, both inclusive. A
// partition that is out of range has no points: its first is greater than its last.
func RangeOf(partition, partitions int) (first, last uint64) {
	if partition < 0 || partition >= partitions {
		return 1, 0
	}
	return rangeStart(partition, partitions), rangeStart(partition+1, partitions) - 1 // 2^64 wraps to 0: the last range ends at the maximum
}

// rangeStart is ceil(partition × 2^64 / partitions), modulo 2^64, for
// 0 <= partition <= partitions.
func rangeStart(partition, partitions int) uint64 {
	if partition == partitions {
		return 0
	}
	quotient, remainder := bits.Div64(uint64(partition), 0, uint64(partitions))
	if remainder > 0 {
		quotient++
	}
	return quotient
}
