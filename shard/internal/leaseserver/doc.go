// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package leaseserver is an API server for Leases in memory, for tests. Two types share its
// semantics:
//
//   - [Store] is the database: conditional writes, one increasing resourceVersion, a history
//     that watches read, compaction, and restores from a backup. It stores values of any
//     type, so that the tests of the state machine need not encode records as Leases.
//   - [Leases] is a store of Lease objects with what kube-apiserver adds: validation, limits
//     on the size, selectors, and API errors.
//
// # Guarantees
//
//   - An update or a deletion is carried out only on the UID and the resourceVersion that it
//     names. Of two writes on one condition, the second gets a conflict.
//   - The resourceVersion increases with each write of any object, except across a restore.
//   - A watch shows every change that its selector selects, in order. An object that begins
//     or ceases to match, for example by a label, is added or deleted.
//   - A watch cannot start from a version before a compaction.
//
// # What is not guaranteed
//
// Defaulting, managed fields, finalizers, quotas and garbage collection.
//
// # Concurrency
//
// Both types are pure: they have no clock, no randomness, no goroutine and no lock. The
// caller serializes all calls, and passes the time.
package leaseserver
