// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package claim is the ownership state machine of one member: which partitions it
// may work on, and when.
//
// The ring says what a member wants. Safety does not depend on rings agreeing. It
// rests on claims that each member publishes on its own Lease: before it works on
// a partition, a member writes the claim, then reads all Leases with a quorum
// read, and starts only if no other held Lease claims the partition too. It
// withdraws a claim only after the work has ended.
//
//	        want, nobody else claims it            quorum list shows nobody else
//	free ────────────── write ──────────▶ claimed ───────────────────▶ active
//	 ▲                                       │                            │
//	 │               no longer wanted        │                            │ no longer wanted
//	 ├◀─────────────── write ────────────────┘                            ▼
//	 └◀─────────────── write ──────────── drained ◀── nothing in flight ── draining
//	                                         └──── wanted again ──▶ active
//
// A [Machine] is pure: it has no clock, no network and no goroutine. Its caller
// gives it events with the time and carries out the actions that it returns.
// One machine is one incarnation: after [Ended] the caller waits until the last
// piece of work has stopped and makes a new one.
//
// # Guarantees
//
//   - C1: A partition becomes active only after an own write that claims it was
//     confirmed, and a quorum list sent after that showed no other held Lease, and
//     the machine knows of no tombstone, whose claims overlap.
//   - C2: A claim is withdrawn only when nothing is in flight on the partition, and
//     the partition is given up locally before the withdrawal is sent.
//   - C3: [Fenced] is given no later than the first event after the send time of the
//     last confirmed renewal plus the renew deadline, on either clock. [Machine.Fence]
//     tells the moment, for whoever hands out work.
//   - C4: Another member's Lease is voided only by a write on the condition of the
//     newest version that this machine saw, when holder and seq have been unchanged for
//     the whole duration that the Lease declares, while its own renewals succeeded and
//     its watch was fresh.
//   - C5: An outcome that is not known is never taken for a claim: the machine reads
//     its Lease and writes again before it goes on.
//   - C6: Partitions that the member keeps stay active through a change of members.
//   - C7: No event makes the machine panic. Events that come late, twice or not at
//     all delay it at the worst.
//   - C8: A partition that was released becomes active only when the caller has said
//     that its copies of objects have come as far as the marks on the Leases that the
//     machine has seen, or after [Config.CacheSyncTimeout]. Partitions that are active
//     are never touched by this.
//   - C9: At most four evictions and deletions of other members' Leases, and one list,
//     are under way at once. A renewal that is due is sent before them, and before the
//     ring is built.
//
// # What is not guaranteed
//
// That a piece of work ends when its context is cancelled: a partition whose work
// doesn't end in the drain timeout is never released, and the machine ends with
// [ErrDrainTimeout]. That a request that left the process before the fence reaches
// the server before it. That C8 holds for what was written by a member that was evicted
// or whose Lease was gone before this machine saw it: there are no marks then.
//
// # Concurrency
//
// A Machine belongs to one goroutine.
package claim
