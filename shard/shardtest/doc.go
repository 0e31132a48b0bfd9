// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package shardtest helps to test operators that use package shard.
//
// A [Cluster] is an API server for Leases in memory: several members can share it
// within one test process, with testing/synctest to make time pass at once, and each
// member's requests can be made to fail.
//
// # Guarantees
//
//   - T1: Leases behave as on a real API server in what ownership depends on:
//     conditional writes, preconditions, conflicts, one rising resourceVersion, and
//     watches that show every change in order and resume from a version.
//
// # What is not guaranteed
//
// Anything else of an API server: validation, defaulting, managed fields, quotas,
// garbage collection. Objects other than Leases live in client-go's fake clientset,
// one for each member.
//
// # Concurrency
//
// All methods may be called from any goroutine. The package starts none.
package shardtest
