// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"fmt"
	"hash/maphash"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An id identifies an object by its key in the store. It is a hash of 128 bits with random
// seeds instead of the key, so that what is kept for each object is small, without pointers,
// and keeps no copy of an object in memory. A million objects collide with a probability of
// about 1 in 10^27, and names that collide cannot be constructed.
type id [2]uint64

func (i *Informer) identifyKey(key string) id {
	return id{maphash.String(i.seeds[0], key), maphash.String(i.seeds[1], key)}
}

func (i *Informer) identifyBytes(key []byte) id {
	return id{maphash.Bytes(i.seeds[0], key), maphash.Bytes(i.seeds[1], key)}
}

// identify is identifyKey for the key of an object, without an allocation for namespace/name.
func (i *Informer) identify(m metav1.Object) id {
	if i.storeKey != nil {
		return i.identifyKey(i.storeKey(m))
	}
	namespace, name := m.GetNamespace(), m.GetName()
	if namespace == "" {
		return i.identifyKey(name)
	}
	// A small buffer takes less time to clear, and most keys fit. The maximum length of a key
	// is a namespace of 63 characters and a name of 253. For a longer key append allocates.
	if len(namespace)+1+len(name) <= 128 {
		var buffer [128]byte
		return i.identifyBytes(appendName(buffer[:0], namespace, name))
	}
	var buffer [63 + 1 + 253]byte
	return i.identifyBytes(appendName(buffer[:0], namespace, name))
}

func appendName(key []byte, namespace, name string) []byte {
	key = append(key, namespace...)
	key = append(key, '/')
	return append(key, name...)
}

// keyOf returns the key of an object in the store.
func (i *Informer) keyOf(m metav1.Object) string {
	switch namespace := m.GetNamespace(); {
	case i.storeKey != nil:
		return i.storeKey(m)
	case namespace == "":
		return m.GetName()
	default:
		return namespace + "/" + m.GetName()
	}
}

// pointOf returns the point of an object. A panic of the user's function is an error.
func (i *Informer) pointOf(m metav1.Object) (point uint64, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the function for the key has panicked: %v", r)
		}
	}()
	return i.point(m)
}

// number returns a version as a number, if it is one.
func number(version string) (n uint64, ok bool) {
	if len(version) == 0 || len(version) > 18 {
		return 0, false
	}
	for _, c := range []byte(version) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + uint64(c-'0')
	}
	return n, true
}
