// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// A Key determines which string of an object is hashed, and therefore which objects
// stay together on one member.
type Key = ring.Key

// The keys. The first three are for Config.Key; the others are for informers.
var (
	// ByName hashes namespace/name. The default.
	ByName = ring.ByName
	// ByNamespace keeps all objects of a namespace on one member.
	ByNamespace = ring.ByNamespace
	// ByUID hashes metadata.uid as kube-apiserver does.
	ByUID = ring.ByUID
	// ByController places a dependent on the same member as its controlling owner.
	ByController = ring.ByController
	// ByClusterController is ByController for owners that are cluster-scoped.
	ByClusterController = ring.ByClusterController
	// Unfiltered is for informers whose handlers must see all objects on every member, and
	// whose queue does the filtering: handlers that map objects to their parents by labels or
	// an index, or that adopt orphans. The member waits for such an informer before it joins,
	// and before it works on a partition whose former owner wrote objects of that kind.
	//
	// When the member gains partitions, the handlers see the objects whose own key, by
	// Config.Key, is in them again: as by a resync, with UpdateFunc and the same object twice,
	// or with [HandlerFuncs].GainedFunc if it is set. They also see recent deletions again. So
	// a handler of the objects that are reconciled must not skip an update because
	// both resourceVersions are equal. A handler of their children may: the parent is shown, too.
	// No handler sees OnReleased.
	Unfiltered = ring.Unfiltered
)

// ByFunc makes a key from your own function. The name is part of the ring's
// fingerprint: change it whenever the function returns different results. The function
// must be pure, and is called from many goroutines. The name has at most 56 lower-case letters,
// digits, '-' and '.', and begins and ends with a letter or digit.
func ByFunc(name string, of func(metav1.Object) string) Key { return ring.ByFunc(name, of) }
