// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package informer wraps a cache.SharedIndexInformer so that its handlers see only what this
// member may work on.
//
// An [Informer] is itself a cache.SharedIndexInformer. At each event it checks with an
// [Ownership] whether the object's point of the hash space is active, and drops the event
// otherwise. When a partition becomes active, its objects are replayed from the store. The
// store is the inner informer's: listers see all objects.
//
// # Guarantees
//
// These hold for each handler, provided that its calls return:
//
//   - I1: A handler sees an object first by OnAdd, then by OnUpdate, never in a version older
//     than one that it has seen, as long as the object exists, and by OnDelete only if the
//     object was deleted (as far as the inner informer can determine). OnDelete may be called
//     for an object that the handler has never seen (I4). If an object's deletion is observed
//     after the handler has seen another object of the same name, and that object exists, it
//     is added again after the OnDelete.
//   - I2: The handler is called for an object only if, at that time, State returns
//     ring.Active for the object's point, or for the point that the object has just left; or
//     ring.Pending, for an object that the handler knows, because a drain may be called off;
//     or to deliver the deletion of an object that the handler knows.
//   - I3: Once Activated was called for a partition, and Replay runs, each of its stored
//     objects is delivered in its latest version, whatever events arrive at the same time,
//     for as long as State returns ring.Active.
//   - I4: Deletions are remembered for DeletionWindow, at least, unless there are more than
//     DeletionLimit: then at least the last three quarters of that number, if no handler is
//     that many deletions behind another one. When their partition becomes active within
//     that time they are delivered, before any other object of that name, unless the same
//     object (by UID) has come back. A deletion that a handler's own stream has not reached
//     comes from the stream (I1). This includes deletions that were delivered to the handler
//     before it lost the partition, because its work may have been dropped. Handlers must
//     tolerate a second OnDelete. A handler that is added while another one lags may miss the
//     deletions that the other one has not seen yet. OnDelete's argument is a
//     cache.DeletedFinalStateUnknown with an object of the same type that has only the
//     object's metadata, without managedFields; an unstructured one has apiVersion and kind,
//     too. An object without an ObjectMeta is kept as it was.
//   - I5: Losing an object to another member is not a deletion. A handler that is a
//     [ReleaseHandler] is notified by OnReleased: when Released is processed, and not when a
//     drain begins. It sees the object by OnAdd when this member owns it again, or by
//     OnGained, if it is a [GainHandler].
//   - I6: An object that moves from one key to another (a dependent that gets another owner)
//     is delivered with both states to the members of either key, and as an Add to a handler
//     that did not know it. The handlers of the member whose key it left then forget it, as
//     in I5. If it is another object of the same name that has the other key, they see the
//     deletion of the first.
//   - I7: While State returns ring.Active for everything, a handler sees exactly what it would
//     see from the inner informer. Client-go's own tests check this.
//   - I8: A registration's HasSynced means what the inner informer's means: the handler has
//     processed the initial list, as far as this member owned it at the time. Objects that a
//     replay delivers later are not in the initial list: OnAdd's isInInitialList is false,
//     and no HasSynced waits for them; [FirstReplay] does. cache.ShutDownEventHandler waits
//     for replayed calls too. When Run has returned, no handler is called any more.
//   - I9: Activated and Released never block. Goroutines exist only while Replay runs, one per
//     handler, so that a slow handler delays no other. They and the inner informer's
//     goroutine never call a handler at the same time.
//   - I10: An object without a point (Point returns an error) belongs to no member. It is
//     counted and logged, and delivered only to a handler that already knows it: the handler
//     sees the update, then the object is released as in I6.
//   - I11: A handler of an informer with Options.Unfiltered sees exactly what it would see from
//     the inner informer, whatever State returns, and more: once Activated was called for a
//     partition, and Replay runs, each stored object of it that the handler has seen before is
//     shown again, for as long as State returns ring.Active. It is shown as a resync shows it,
//     by OnUpdate with the same object twice, or by OnGained, and never in a state that the
//     inner informer's events have not reached: an object of which an event is still to come is
//     shown after that event. Deletions are replayed as in I4, and OnAdd follows as in I1, also
//     after that event. OnReleased is never called. I2, I3, I5, I6 and I10 do not apply.
//
// # The caller's obligations
//
// Each time that a partition becomes active or is released, State must change first; then
// Activated or Released must be called, in the order in which the changes happen and from one
// goroutine. In between, a partition may become ring.Pending and active again without a call
// of Released: the handler then continues where it was. The same applies when the partition
// count changes: release under the old count, activate under the new one.
//
// # What is not guaranteed
//
//   - That an event is delivered to one member only. A member delivers what it may work on
//     when it checks; the queue checks again before work starts.
//   - That every version or every deletion is delivered. As with client-go, handlers see the
//     latest state. What happened while no member owned an object is combined into one Add,
//     or into one OnDelete if I4 still remembers it.
//   - That a deletion survives a backlog of any length. The former owner may have received it
//     long before the handover, with its item still in the queue, while the next owner saw it
//     only as another member's. It is handled if the time from the deletion to the activation
//     at the next owner is at most DeletionWindow, and the next owner's informer ran during
//     that time and has seen no more than three quarters of DeletionLimit deletions in it. An
//     informer that does not see other members' objects would need to get these deletions
//     from their owners.
//   - The order of versions that cannot be compared (an API server whose resourceVersions are
//     not numbers; fakes without any), while a replay has overtaken the stream. An object or
//     its deletion may then be delivered twice, but nothing is missed. If the versions of a watch
//     do not increase (a ListerWatcher that merges watches), a handler may see OnUpdate first, and
//     no release after it.
//   - OnReleased after Replay has ended or the informer has stopped.
//
// # Cost
//
// An event that is not this member's costs a hash, two if the key can change, and no lock;
// a deletion is also recorded, once for all handlers. An update that is delivered costs a lock
// as well, and the second hash only if the key can change. Other events cost two more hashes for
// the name and a map lookup. So do updates while a replay waits, until the stream has caught up
// with it, and all updates of an informer that was added after the member had joined, until
// the next activation.
//
// For each handler, an entry of about 35 bytes without pointers is kept for each object that
// was delivered; until the stream has caught up with a replay, about 75 bytes more; and about
// 180 bytes more for a handler with OnReleased. With Options.Unfiltered each event costs a
// lock, two or three hashes and a map lookup. All changes and handlers that wait share one
// look at the stored objects, or, if there is a PointOfKey, only at their keys.
//
// # Concurrency
//
// All methods may be called from any goroutine, including from handlers, except for what
// client-go excludes (a handler must not wait for its own end).
package informer
