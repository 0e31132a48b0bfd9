// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package workqueue provides client-go's rate limiting queue for an operator whose replicas
// share the work: a [Queue] admits and hands out only what this member may work on.
//
// The filter is in the base queue: client-go's delaying layer and the user's rate limiter are
// above it. An item is checked when it reaches the base queue, whether it was added directly,
// by a timer or after a failure. Get checks it again, because items wait in the queue. An
// [Ownership] determines what this member may work on: it has a state for each point of the
// hash space, and a fence for the whole member.
//
//	State    Add                    Readmit                Get
//	Active   queue                  queue what is parked   hand out; wait while fenced
//	Pending  park                   park what is queued    park
//	NotOwned drop, forget retries   drop, forget retries   drop, forget retries
//
// For each item there is one entry in one map. It is in one of five places, each with a list:
// queued, queued as a gained item, parked, in flight, or remembered only because the rate limiter
// remembers it.
// [Queue.Readmit] looks again at all of them after State or the fence has changed.
//
// # Guarantees
//
//   - Q1: Get returns an item only if, at a moment after Get took it from the queue, its
//     point was active and the member was not fenced.
//   - Q2: Once State reports that a point is not active, InFlight lists all work on it.
//     This includes the work of a Get that saw the point active and has not returned yet,
//     and work that is done but still has an effect under way ([Assignment.Begin]). A point
//     that InFlight does not list has no work in flight until State reports it active
//     again. So "change State, Drain, wait until InFlight no longer lists the point,
//     release" never hands over an item that is being worked on.
//   - Q3: No item is lost: an item that is added while its point is active or pending is
//     handed out after that Add, unless State reports NotOwned first or the queue is shut
//     down.
//   - Q4: Items that this member does not own are dropped, and the rate limiter forgets
//     them, wherever the queue finds them: in Add, when a timer fires, in Get, in Readmit.
//     When Readmit has returned, nothing remains of a partition for which State reports
//     NotOwned, but the work in flight: no queued or parked item, and no failure that
//     AddRateLimited has recorded. Timers remain until they fire.
//   - Q5: While the member is fenced, Get returns nothing. Items stay in the queue and keep
//     their order.
//   - Q6: A context of [Queue.Context] ends with the cause [ErrDraining] when Cancel covers
//     its item, [ErrFenced] on Fence, [ErrDone] on Done, whichever comes first, or at its
//     parent's deadline. It does not end when its parent is cancelled. An item for which
//     Context is not called costs nothing.
//   - Q7: Readmit, Drain, Cancel, Fence, InFlight, OnDone, Parked and Closed do not wait for
//     work. They may be called from anywhere except the methods of Ownership. The queue
//     holds no lock while it calls anything but the Ownership and client-go's metrics.
//   - Q8: An item for which Options.Point returns an error or panics belongs to no partition.
//     The member on which it was added hands it out, so that it is not lost and its reconciler
//     can report what is wrong with it. It is counted. It is held back while the member is
//     fenced, and its context is cancelled by the fence. No drain affects it. An item for
//     which the rate limiter panics is added again after one second, and counted.
//   - Q9: For a member that owns everything and is never fenced, the queue behaves as
//     client-go's: its own tests pass on it.
//   - Q10: ShutDown and ShutDownWithDrain have client-go's meaning. Parked items are
//     dropped. Queued items are dropped if no worker takes any: see [Queue.Closed]. Once ShutDown has been called, or ShutDownWithDrain has returned, no
//     goroutine remains.
//   - Q11: Work that a drain or a fence interrupts is not lost, whatever the worker does
//     with the item. Done adds the item again if Drain or Fence has covered it since Get,
//     if [Check] has returned [ErrFenced] to its work, or if its point is not active or the
//     member is fenced when Done is called. The item is then handed out again if its
//     partition stays or comes back. It is dropped if the partition moves to another
//     member, whose informer delivers the object there. Done does not know whether the work
//     was completed nevertheless, so an item may be handed out once more without need. It
//     does not matter whether the worker called Context. After ShutDown nothing is added.
//   - Q12: Items that were added by [Queue.AddGained] do not delay the others: while both wait,
//     at most one item in eight that Get returns is a gained one, and at least one in eight.
//     Within each of the two kinds, the order is that of client-go's queue: first in, first out.
//
// # Obligations of the Ownership's owner
//
// The rate limiter must not block: Readmit calls its Forget, on the goroutine of its caller,
// which nothing else protects.
//
// First change what State and Fenced return. Then call Readmit after every change, Drain for
// points that were active, and Fence when the member is fenced. After Drain the work in flight
// may end by itself; call Cancel for the points on which it does not. Because Fenced changes
// with the clock, a Get may find the member fenced for a moment that no other code has
// noticed, and wait: call Readmit after each renewal too. When the owner ends, Fenced must return true from then
// on, and Fence must be called once more. Nothing else ends the contexts of work in flight:
// ShutDown lets work finish by itself, and cancelling a parent has no effect. Package shard
// does all this.
//
// # What is not guaranteed
//
//   - That work stops: a reconciler that ignores its context continues. InFlight lists it.
//   - That an item is handed out only once for one Add. If the state changes between the
//     two, the item may be handed out a second time.
//   - Order between parked items and others: when parked items are readmitted, they queue
//     behind the items that are already queued.
//   - That only one member at a time works on an item without a point (Q8).
//   - That client-go's depth metric is Len: it counts parked items too, because their latency
//     begins when they are added. With client-go's global metrics provider, an item that is
//     dropped while it waits counts as gotten and done.
//   - The order of a storage of the user's own: a DelayingQueue in the configuration serves
//     AddAfter only.
//
// # Concurrency
//
// All methods of a Queue may be called from any goroutine at any time. Every queue has one
// goroutine for timers, client-go's or the one that empties the user's own delaying queue, and
// a second one if it has metrics. Both run from New to ShutDown.
package workqueue
