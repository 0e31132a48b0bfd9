// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package claim is the ownership state machine of one member. It decides which
// partitions the member may work on, and when.
//
// The ring decides which partitions a member wants. Safety does not depend on
// members computing the same ring. It rests on the claims that each member publishes
// on its own Lease: before it works on a partition, a member writes the claim, then
// reads all Leases with a quorum read, and starts only if no other held Lease claims
// the partition too. It withdraws a claim only after the work has ended.
//
//	        wanted, no other claim              quorum list shows no other claim
//	free ────────────── write ──────────▶ claimed ───────────────────▶ active
//	 ▲                                       │                            │
//	 │               no longer wanted        │                            │ no longer wanted
//	 ├◀─────────────── write ────────────────┘                            ▼
//	 └◀─────────────── write ──────────── drained ◀── nothing in flight ── draining
//	                                         └──── wanted again ──▶ active
//
// A [Machine] is pure: it has no clock, no network and no goroutine. Its caller
// passes it events with the time and carries out the actions that it returns.
// One machine is one incarnation: after [Ended] the caller waits until the last
// piece of work has stopped and creates a new machine.
//
// Numbers with an R (R16) in comments refer to the rules in docs/protocol.md.
//
// # Guarantees
//
//   - C1: A partition becomes active only after the server has confirmed a write of
//     this member that claims it, by its response or by a read that shows exactly what was
//     written (R40), and a quorum list that was sent after that showed no
//     other held Lease whose claims overlap, and no tombstone that the machine knows of
//     overlaps. The watch has come to that list, and this member knows of every Lease that
//     was deleted before it started (R18, R49).
//   - C2: A claim is withdrawn only when nothing is in flight on the partition, and
//     the machine gives the partition up before it sends the withdrawal.
//   - C3: The machine returns [Fenced] no later than for the first event after the send
//     time of the last confirmed renewal plus the renew deadline, on either clock.
//     [Machine.Fence] returns that moment, for the caller that hands out work.
//   - C4: Another member's Lease is voided only by a write on the condition of the
//     newest version that this machine saw, when its holder and seq have not changed for
//     the whole duration that counts for it (R46), while this member's own renewals
//     succeeded, and when its watch is fresh.
//   - C5: A write whose outcome is unknown does not count as a claim: the machine reads
//     its Lease. If the read shows exactly the last write that was sent, that was confirmed
//     (R40). Otherwise the machine writes again before it continues.
//   - C6: Partitions that the member keeps stay active when the set of members changes.
//   - C7: No event makes the machine panic. Events that arrive late, twice or not at
//     all can only delay it.
//   - C8: A partition that was released becomes active only when the caller has reported
//     that its caches have reached the watermarks on the Leases that the machine has
//     seen, or after [Config.CacheSyncTimeout]. This never affects partitions that are
//     already active.
//   - C9: At most four evictions and deletions of other members' Leases, and one list,
//     are in flight at once. A renewal that is due is sent before them. The machine
//     computes no ring: its caller does, and must not let renewals wait for it.
//
// # What is not guaranteed
//
// That a piece of work ends when its context is cancelled: a partition whose work
// does not end within the drain timeout is never released, and the machine ends with
// [ErrDrainTimeout]. That a request that left the process before the fence reaches
// the server before it. That C8 holds for the writes of a member that was evicted, or
// whose Lease was gone before this machine saw it: there are no watermarks then.
//
// # Concurrency
//
// A Machine belongs to one goroutine.
package claim
