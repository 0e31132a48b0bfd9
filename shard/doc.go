// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package shard lets all replicas of an operator work at the same time, with each object
// worked on by exactly one of them.
//
// Create a [Sharder] with [New], informers with [NewInformer] or [WrapInformer], and
// queues with [NewQueue]. Register [Sharder.Collector] and the HTTP handlers where you
// like. Then call [Sharder.Run] instead of leader election. Informers, clients and
// workers must outlive the context of Run, because the drain begins when that context
// ends: give them a context of their own, as in the Example.
//
// # Guarantees
//
//   - G1: At most one member works on an object at a time, as long as the members'
//     clocks run at rates within [Config.Drift] of each other and work stops within
//     Config.StopGracePeriod after the fence has cancelled its context. To work on an
//     object means to be between Get and Done of a queue from [NewQueue].
//   - G2: No work is handed out at or after the fence: the send time of the last
//     confirmed renewal plus Config.RenewDeadline, on either clock. The contexts of
//     work in flight end at that moment, or up to a tenth of a second later if the wall
//     clock jumps. Nothing that blocks delays this: no function of the configuration, and
//     no log sink. (A log sink that blocks may stop the heartbeats; the member is then
//     fenced.)
//   - G3: A partition is released only when no work is in flight on it. If that
//     takes longer than Config.DrainTimeout, the partition is not released and Run
//     returns [ErrDrainTimeout].
//   - G4: A member that gains a partition receives all of its objects as Adds, and
//     deletions that it saw within Config.DeletionWindow as Deletes. Work that a drain
//     or a fence interrupted is done again by this member if it keeps the partition.
//   - G5: Work on the partitions that a member keeps continues while the set of members
//     changes.
//   - G6: In an outage of the API server every member stops at its fence. Members that
//     were not evicted resume what they had. No partition moves.
//   - G7: Each object is owned again within Config.LeaseDuration + 2 s of a crash. After
//     a graceful stop it is owned again as soon as its work is drained and a few messages
//     have been exchanged.
//   - G8: A Lease that is malformed, belongs to another ring, or is in another namespace
//     is ignored and counted. A Lease that may be a member's blocks what it claims until
//     it has been silent for its duration.
//   - G9: After a graceful release, work on an object begins only when the informer stores
//     show what the former owner wrote through [WrapTransport] with the context of the
//     queue, for kinds that have a sharded informer; or after Config.CacheSyncTimeout.
//
// # What is not guaranteed
//
//   - A request that left this process before the fence may reach the API server after
//     it. A request that a client-side timeout has ended may be carried out later. Write
//     with resourceVersions, as Update does, or let the server check tokens
//     ([StampToken]).
//   - Nothing is guaranteed after etcd was restored to an older revision, or after Leases
//     of running members were deleted by hand while the members that knew of them were
//     deleted, too.
//   - G9 does not cover deletions, crashes, evictions, and resourceVersions that cannot be
//     compared.
//
// ARCHITECTURE.md has the whole list.
//
// Owns, Owner and Members report what this member knew a moment ago. To act on an
// object, take it from the queue.
//
// # Concurrency
//
// Constructors start nothing. All goroutines run under [Sharder.Run] and have ended
// when it returns, except for a call of Config.OnChange or Config.OnOverrun that does
// not return. All other methods may be called from any goroutine, before,
// during and after Run.
package shard
