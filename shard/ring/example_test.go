// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package ring_test

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// An object is hashed to a point of the hash space, the point lies in a partition, and the
// ring determines the member that should own that partition.
func Example() {
	r, err := ring.New(ring.DefaultParameters(), []string{"op-2", "op-0", "op-1"}) // in any order
	if err != nil {
		fmt.Println(err)
		return
	}
	foo := &metav1.ObjectMeta{Namespace: "default", Name: "example-foo"}

	point := ring.ByName.Point(foo, ring.HashOf(ring.ByName))
	owner, _ := r.OwnerOf(point)
	fmt.Printf("%s lies in partition %d, which %s should own\n", ring.ByName.Of(foo), ring.PartitionOf(point, r.Parameters().Partitions), owner)
	for _, member := range r.Members() {
		fmt.Printf("%s: %d partitions\n", member, r.Owned(member).Len())
	}
	// Output:
	// default/example-foo lies in partition 70, which op-2 should own
	// op-0: 197 partitions
	// op-1: 173 partitions
	// op-2: 139 partitions
}

// A Deployment has the same key, and so the same owner, as the Foo that controls it.
func ExampleKey_Resolve() {
	foo := &metav1.ObjectMeta{Namespace: "default", Name: "example-foo"}
	deployment := &metav1.ObjectMeta{
		Namespace: "default", Name: "example-foo-deployment",
		OwnerReferences: []metav1.OwnerReference{
			*metav1.NewControllerRef(foo, schema.GroupVersionKind{Group: "samplecontroller.k8s.io", Version: "v1alpha1", Kind: "Foo"}),
		},
	}

	ringKey := ring.ByName
	key, err := ring.ByController.Resolve(ringKey)
	if err != nil {
		fmt.Println(err)
		return
	}
	hash := ring.HashOf(ringKey)
	fmt.Println(key.Of(deployment))
	fmt.Println(key.Point(deployment, hash) == ringKey.Point(foo, hash))
	// Output:
	// default/example-foo
	// true
}

// A fourth member takes its share from the others, and little else moves.
func ExampleRing_Relocated() {
	p := ring.DefaultParameters()
	three, err := ring.New(p, []string{"op-0", "op-1", "op-2"})
	if err != nil {
		fmt.Println(err)
		return
	}
	four, err := ring.New(p, []string{"op-0", "op-1", "op-2", "op-3"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%d of %d partitions move, %d of them to op-3\n", four.Relocated(three), p.Partitions, four.Owned("op-3").Len())
	// Output:
	// 112 of 509 partitions move, 112 of them to op-3
}

// Two members with different partition counts can still determine whether they claim the
// same part of the hash space.
func ExampleSet_Overlaps() {
	half := ring.NewSet(2)
	half.Add(0)
	tenth := ring.NewSet(10)
	tenth.Add(5)
	fmt.Println(half.Overlaps(tenth))
	tenth.Add(4)
	fmt.Println(half.Overlaps(tenth))
	// Output:
	// false
	// true
}

func ExampleParameters_Validate() {
	p := ring.DefaultParameters()
	p.Partitions, p.Load = 0, 0.9
	fmt.Println(p.Validate())
	// Output:
	// Partitions: 0 is not between 1 and 65536
	// Load: 0.9 must be a finite number of at least 1, or there is not enough room for all partitions
}

func ExampleParameters_Fingerprint() {
	fmt.Println(ring.DefaultParameters().Fingerprint())
	// Output: xxh3/name/509/20/1.25/consistent-v1.1.0
}
