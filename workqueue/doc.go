// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package workqueue is client-go's rate limiting queue for an operator whose replicas
// share the work: a [Queue] admits and hands out only what this member may work on.
//
// The filter sits between client-go's layers: rate limiting and delaying above it,
// storage, de-duplication and the wait for Done below. What is added directly, by a
// timer or after a failure is judged when it reaches the filter, and once more
// by Get, since items wait. What may be worked on is told by an [Ownership]: a state
// for each point of the hash space, and a fence for the member as a whole.
//
//	State    Add                    Get
//	Active   queue                  hand out; if the member is fenced: park
//	Pending  park                   park
//	NotOwned drop, forget retries   drop, forget retries
//
// Parked items form a set, as queued ones do. [Queue.Readmit] queues or drops them
// when State or the fence has changed.
//
// # Guarantees
//
//   - Q1: Get returns an item only if, while it was in its hand, its point was active
//     and the member not fenced.
//   - Q2: Once State answers that a point is not active, InFlight lists all work on
//     it, that of a Get included which had seen the point active and has not yet
//     returned, and work that is done but has an effect under way ([Assignment.Begin]);
//     and a point that it does not list has no work in flight until State
//     says that it is active again. So "change State, Drain, wait until InFlight is free
//     of the point, release" hands over nothing that is being worked on.
//   - Q3: Nothing is lost: an item that is added while its point is active or pending
//     is handed out after that Add, unless State says NotOwned before it is, or the
//     queue is shut down.
//   - Q4: Items that this member does not own are dropped, and the rate limiter forgets them, wherever they
//     are met: in Add, when a timer fires, in Get, in Readmit.
//   - Q5: While the member is fenced, Get returns nothing. Items stay with the queue and
//     keep their order.
//   - Q6: A context of [Queue.Context] ends with the cause [ErrDraining] when Drain
//     meets its item, [ErrFenced] on Fence, [ErrDone] on Done, whichever is first, or at
//     its parent's deadline; not when its parent is cancelled. An item for which no
//     context was asked costs nothing.
//   - Q7: Readmit, Drain, Fence, InFlight, OnDone, Parked and ParkedByState do not wait
//     for work, and may be called from anywhere except the methods of Ownership. No
//     lock is held while anything but the Ownership is called.
//   - Q8: An item for which Options.Point returns an error belongs to no partition. It
//     is handed out by the member on which it was added, so that it isn't lost and its
//     reconciler can say what is wrong with it; counted; held back while the member
//     is fenced, and cancelled by the fence; but no drain concerns it.
//   - Q9: For a member that owns everything and is never fenced, the queue is
//     client-go's: its own tests pass on it.
//   - Q10: ShutDown and ShutDownWithDrain mean what client-go means. What is parked is
//     dropped. Once ShutDown has been called, or ShutDownWithDrain has returned, no
//     goroutine remains.
//   - Q11: Work that a drain or a fence interrupts is not lost, whatever the worker does
//     with the item: Done adds it again if Drain or Fence has met it since Get, if
//     [Check] has answered [ErrFenced] to its work, or if its point is not active or the
//     member fenced when Done is called. The item is then handed out again if
//     its partition stays or comes back, and dropped if the partition goes to another
//     member, whose informer shows it there. Done does not ask whether the work had come
//     to its end in spite of all: an item may be handed out once more in vain. Nor does it
//     matter whether the worker asked for a context. After ShutDown nothing is added.
//
// # The duties of the owner of the state
//
// First change what State and Fenced answer, then call: Readmit after every change;
// Drain for points that were active; Fence when the member is fenced. Because Fenced
// turns with the clock, a Get may find the member fenced for a moment that nobody else
// has noticed: call Readmit after each renewal too. When the owner ends, Fenced must
// answer true from then on, and Fence be called once more: the contexts of work in
// flight end by nothing else, since ShutDown lets work end by itself and the
// cancellation of a parent has no effect. Package shard does all this.
//
// # What is not guaranteed
//
//   - That work stops: a reconciler that ignores its context goes on. InFlight shows it.
//   - That an item is handed out only once for one Add. A change of state between the
//     two may cost a second time.
//   - Order between parked items and others: parked ones queue behind what is queued
//     when they are readmitted.
//   - One worker for an item without a point (Q8) across members.
//   - That client-go's own metrics see only work: an item that Get parks or drops was,
//     for them, added, gotten and done.
//
// # Concurrency
//
// All methods of a Queue may be called from any goroutine at any time. Every queue has
// one goroutine, client-go's for timers, and with metrics another; both from New to
// ShutDown.
package workqueue
