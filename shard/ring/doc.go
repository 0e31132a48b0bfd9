// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package ring assigns the objects of an operator to its members.
//
// A key (a string taken from an object, see [Key]) is hashed to a point of the
// 64-bit hash space. The hash space is divided into a fixed number of partitions,
// each a contiguous range of points. A [Ring] assigns each partition to the member
// that should own it: consistent hashing with bounded loads (Mirrokni, Thorup and
// Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018), as
// implemented by github.com/buraksezer/consistent.
//
// # Guarantees
//
//   - B1: A ring is a pure function of the set of members and the [Parameters]:
//     the order in which members are listed or were discovered does not matter,
//     and every process computes the same ring from the same two inputs.
//   - B2: Every partition of a ring with at least one member has exactly one
//     owner. A ring without members owns nothing.
//   - B3: No member owns more than ceil(partitions / members × load) partitions.
//   - B4: No input makes the package panic: [Parameters.Validate] rejects invalid
//     parameters and names each, unreadable text results in an error, and any
//     string may be a member. (To call [Key.Of] on a key that must be resolved
//     first is not an input but a programming error.)
//   - B5: A partition is a contiguous range of the hash space, so two sets of
//     partitions can be compared even under different partition counts.
//
// # What is not guaranteed
//
// A ring does not guarantee exclusive ownership. Two members that see different sets
// of members compute different rings; package claim guarantees that no two of them
// act on one partition.
//
// # Concurrency
//
// A Ring is immutable and safe for concurrent use. A Set is a plain value: it may
// be read by many goroutines as long as none changes it. The package starts no
// goroutine, reads no clock and does no input or output.
package ring
