// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// An object is identified as its key in the store is, whatever its length: a deletion without a
// final state has only the key.
func TestI1_ObjectsAreIdentifiedByTheirKey(t *testing.T) {
	i := Wrap(cache.NewSharedIndexInformer(&cache.ListWatch{}, &metav1.PartialObjectMetadata{}, 0, cache.Indexers{}), Options{Ownership: &owner{}, Point: pointOfLabel})
	for _, length := range []int{1, 40, 119, 120, 121, 122, 253, 309, 310, 400} {
		obj := &metav1.ObjectMeta{Namespace: "team-17", Name: strings.Repeat("n", length-1) + "e"}
		if i.identify(obj) != i.identifyKey(i.keyOf(obj)) {
			t.Errorf("an object with a name of %d characters is not identified by its key", length)
		}
	}
}
