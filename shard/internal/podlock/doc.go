// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package podlock makes sure that of all live processes of one Pod, only one is a
// member of the ring: of two containers, or of two processes on a developer's machine.
//
// A process that holds the lock knows that every other process that has had a Lease
// with this Pod's UID is dead, and may take that Lease over at once. A process that cannot
// determine whether another one holds the lock must neither do so nor publish the Pod's UID.
package podlock

// Member is whose lock it is. Different rings have different locks, also in one Pod.
type Member struct {
	Namespace   string // of the ring's Leases
	LeasePrefix string // of the ring
	PodName     string
	PodUID      string // "" if it is not known: then no lock is needed, because no Lease is taken over
}
