// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package shardtest helps to test operators that use package shard.
//
// A [Rehearsal] is a whole test: it runs several members of an operator, lets them join, stop and
// lose the connection while the objects change, and finds work on one object by two members at
// once, and events that were lost. It is made of two parts, for tests of your own. A [Cluster] is
// an in-memory API server. Several members can share it within one test process, with
// testing/synctest as a fake clock, and a test can make each member's requests fail. [Exclusive]
// detects the faults.
//
// # Guarantees
//
//   - T1: Leases behave as on a real API server in everything that ownership depends on:
//     conditional writes, preconditions, conflicts, one increasing resourceVersion,
//     validation, limits on the size, and watches that show every change in order, resume
//     from a resourceVersion, and add or delete a Lease whose labels begin or cease to match.
//   - T2: Other objects behave so too, but without validation and limits: all members share
//     them, and a handover of objects with children can be tested without a control plane.
//
// # What is not guaranteed
//
// The other functions of an API server: defaulting, finalizers, managed fields, quotas,
// garbage collection, server-side apply, field selectors, metadata.generation. A write to the
// status replaces the whole object, as in client-go's fake clientsets.
//
// # Concurrency
//
// All methods may be called from any goroutine. [Rehearsal.Run] starts a goroutine for each member,
// and waits for them; nothing else starts any.
package shardtest
