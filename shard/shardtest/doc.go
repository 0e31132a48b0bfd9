// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package shardtest helps to test operators that use package shard.
//
// A [Cluster] is an in-memory API server for Leases. Several members can share it within
// one test process, with testing/synctest as a fake clock, and a test can make each
// member's requests fail. [Exclusive] detects work on one key by two members at once.
//
// # Guarantees
//
//   - T1: Leases behave as on a real API server in everything that ownership depends on:
//     conditional writes, preconditions, conflicts, one increasing resourceVersion,
//     validation, limits on the size, and watches that show every change in order, resume
//     from a resourceVersion, and add or delete a Lease whose labels begin or cease to match.
//
// # What is not guaranteed
//
// The other functions of an API server: defaulting, finalizers, managed fields, quotas,
// garbage collection. Objects other than Leases exist in client-go's fake clientset, one
// for each member.
//
// # Concurrency
//
// All methods may be called from any goroutine. The package starts none.
package shardtest
