// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package history watches a ring from where nothing can be hidden: in etcd, below
// the API server. It keeps every version of every Lease and every Foo of a namespace,
// in the order in which they were committed, and checks afterwards that ownership
// was exclusive.
//
// It shares with the library the format of the records on the Leases
// (lease.Decode) and the place of a key in the hash space, nothing else: no clock
// decides and no member is believed.
//
// # Findings
//
//   - H1, stray write: a member's write to an object that its Lease did not claim
//     in that revision. A Lease that was deleted although it was held counts for
//     its duration: its member can't know at once, and the others wait for it.
//   - H2, entangled writes: two members' writes to an object, each under one claim
//     without a break, that were committed in turns. Each of the two must have been
//     active before the other's last write.
//   - H3, work without a claim: work under a token that is not the revision of an
//     own Lease which claims the object, or that began after the claim was withdrawn.
//   - H4, early work (invariant S0 of the protocol): work that began at a time when
//     since the claim there had been no revision in which no other held Lease
//     claimed the object, too. The times are those that the members wrote on their
//     own Leases before they sent them, so they can only hide a finding. Of an evicted
//     Lease that is the time of its member's last renewal, so that of an eviction
//     little is seen here.
//   - H5, early work after a Lease vanished: a Lease that was deleted although it was
//     held counts for its duration. Another member that claimed the object later
//     began to work before that.
//
// # What it cannot see
//
// Work that left no record and no write. Writes to objects other than Foos. H3 and
// H4 compare the clock of replicas and of this process, which must be one machine's.
//
// # Concurrency
//
// All methods of a Log may be called from any goroutine.
package history
