// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package lease stores a member's record on its coordination.k8s.io/v1 Lease.
//
// Each member has one Lease, [Name], labelled with the name of its ring. A [Client]
// carries out single requests and returns their outcomes; it decides nothing and retries
// nothing. A [Watch] watches all Leases of the ring.
//
// # Guarantees
//
//   - L1: Each update and each deletion is sent on the condition of the UID and
//     the resourceVersion that the caller names. An outcome that is not certain is
//     [claim.Unknown].
//   - L2: List and Get are quorum reads (resourceVersion "").
//   - L3: [Decode] rejects a Lease of another ring, or without this package's annotations,
//     with [ErrForeign]. Nothing on a Lease makes the package panic, and every text that
//     it returns is short and valid UTF-8.
//   - L4: A record that is not as a member wrote it, by its checksum, claims everything, and
//     nothing else on it counts. The same holds for values that a member wrote and that
//     this version cannot read.
//
// # What is not guaranteed
//
// Other clients may put up to 4 KiB of labels and annotations, and finalizers, on a member's
// Lease: the member keeps them (R42). Everything else that they write is lost with the next
// renewal. The times on a Lease are informational; no member
// compares them with its own clock.
//
// # Concurrency
//
// A Client and a Watch are safe for concurrent use. Goroutines run only under
// [Watch.Run], and under each [Call], which returns soon after its context has ended: a
// call that does not return by then keeps its goroutine until it returns.
package lease
