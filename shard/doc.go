// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package shard lets all replicas of an operator work, each object being worked on
// by exactly one of them.
//
// Make a [Sharder] with [New]; make informers with [NewInformer] or
// [WrapInformer] and queues with [NewQueue]; register [Sharder.Collector] and the
// handlers where you like; then call [Sharder.Run] in the place of leader election.
// Informers, clients and workers must outlive the context of Run, because its end is
// where a drain begins; give them a context of their own, as in the Example.
//
// # Guarantees
//
//   - G1: At most one member works on an object at a time, as long as the members'
//     clocks run at rates within [Config.Drift] of each other and work stops within
//     Config.StopGracePeriod after its context was cancelled by the fence. To work means:
//     between Get and Done of a queue of [NewQueue].
//   - G2: No work is handed out at or after the fence: the send time of the last
//     confirmed renewal plus Config.RenewDeadline, on either clock. The contexts of
//     work in flight end at that moment, a tenth of a second later if the wall clock
//     jumps. Nothing that blocks delays this: no function of the configuration, and no
//     log sink. (A log sink that blocks may stop the heartbeats; the member is fenced
//     then.)
//   - G3: A partition is released only when nothing is in flight on it. If that
//     takes longer than Config.DrainTimeout, it is not released and Run ends with
//     [ErrDrainTimeout].
//   - G4: A member that gains a partition sees all of its objects, as Adds, and
//     deletions that it saw within Config.DeletionWindow, as Deletes.
//     Work that a drain or a fence has interrupted is done again by this member if
//     the partition stays.
//   - G5: Work on partitions that a member keeps goes on through a change of members.
//   - G6: In an outage of the API server every member stops at its fence, and those
//     that were not evicted resume what they had. Nothing moves.
//   - G7: Each object is owned again within Config.LeaseDuration + 2 s of a crash,
//     and after a graceful stop as soon as its work was drained and a few messages
//     were exchanged.
//   - G8: A Lease that is malformed, of another ring, or in another namespace is
//     ignored and counted; one that may be a member's blocks what it claims until
//     it was silent for its duration.
//   - G9: After a graceful release, work on an object begins with stores that show
//     what its former owner's work wrote, through [WrapTransport] and with the context
//     of the queue, to kinds with a sharded informer; or after Config.CacheSyncTimeout.
//
// # What is not guaranteed
//
// That a request which left this process before the fence reaches the API server
// before it, or that one which a client-side timeout has ended is not carried out later:
// write with resourceVersions, as Update does, or let the server check
// tokens ([StampToken]). Anything after a restore of etcd to an older revision, or
// after Leases of running members were deleted by hand together with members that
// knew of them. G9 for deletions, after a crash or an eviction, and where
// resourceVersions can't be compared; ARCHITECTURE.md has the whole list.
//
// Owns, Owner and Members tell what this member knew a moment ago. To act on an
// object, take it from the queue.
//
// # Concurrency
//
// Constructors start nothing. All goroutines run under [Sharder.Run] and have ended
// when it returns, but for a call of Config.OnChange or Config.OnOverrun that does
// not return. All other methods may be called from any goroutine, before,
// during and after Run.
package shard
