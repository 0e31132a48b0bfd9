// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package etcdlog observes a ring where nothing can be hidden: in etcd, below the API
// server. It records every version of every Lease and every Foo of a namespace, in the order
// in which they were committed, and checks afterwards that ownership was exclusive.
//
// It shares with the library only the format of the records on the Leases (inspect.Decode)
// and the position of a key in the hash space. It relies neither on a clock nor on the
// members' own reports.
//
// # Findings
//
//   - H1, stray write: a member's write to an object that its Lease did not claim
//     in that revision. A Lease that was deleted while it was held counts for its
//     duration: its member cannot know this immediately, and the others wait for it.
//   - H2, interleaved writes: two members' writes to an object, each under one
//     uninterrupted claim, that were committed alternately. Each of the two must have been
//     active before the other's last write.
//   - H3, work without a claim: work under a token that is not the revision of the member's
//     own Lease which claims the object, or that started after the claim was withdrawn.
//   - H4, early work (invariant S0 of the protocol): work that started although, since the
//     claim, there had been no revision in which no other held Lease claimed the object.
//     The times are those that the members wrote on their own Leases before they sent them,
//     so they can only hide a finding. For an evicted Lease, this is the time of its
//     member's last renewal, so H4 sees little of evictions.
//   - H5, early work after a Lease vanished: a Lease that was deleted while it was held
//     counts for its duration after its last version. Another member that claimed the object
//     later started to work before that.
//
// # What it cannot see
//
// Work that left no record and no write. Writes to objects other than Foos. H3 and H4
// compare the clocks of the replicas and of this process, which must run on one machine.
//
// # Concurrency
//
// All methods of a Log may be called from any goroutine.
package etcdlog
