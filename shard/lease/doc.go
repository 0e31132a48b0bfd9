// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package lease keeps a member's record on its coordination.k8s.io/v1 Lease.
//
// Each member owns one Lease, [Name], labelled with the name of its ring. A
// [Client] carries out single requests and tells what became of them; it decides
// nothing and repeats nothing. A [Watch] shows all Leases of the ring.
//
// # Guarantees
//
//   - L1: Each update and each deletion is sent on the condition of the UID and
//     the resourceVersion that the caller names. An outcome that is not known to
//     be a refusal is [claim.Unknown].
//   - L2: List and Get are quorum reads (resourceVersion "").
//   - L3: A Lease of another ring, of another namespace or without this package's
//     annotations is refused by [Decode] with [ErrForeign]. Nothing on a Lease
//     makes the package panic.
//   - L4: What can't be read is taken for the worst: claims that can't be read
//     claim everything, a phase that can't be read is not on the ring.
//
// # What is not guaranteed
//
// A Lease is its member's: labels and annotations that others put on it are lost
// with the next renewal. The times on a Lease are for people; no member compares
// them with its own clock.
//
// # Concurrency
//
// A Client and a Watch are safe for concurrent use. Goroutines run only under
// [Watch.Run].
package lease
