// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package informer wraps a cache.SharedIndexInformer so that its handlers see only
// what this member may work on.
//
// An [Informer] is a cache.SharedIndexInformer itself. It asks an [Ownership] at
// each event whether the object's point of the hash space is active, and drops the
// event otherwise. When a partition becomes active, its objects are replayed from
// the store. The store is the inner informer's: listers see all objects.
//
// # Guarantees
//
// To one handler, and provided that its calls return:
//
//   - I1: It sees an object by OnAdd first, then by OnUpdate, never in a version
//     older than one it has seen, and by OnDelete only if it was deleted (as far as
//     the inner informer can tell). OnDelete may come for an object that the handler
//     has never seen (I4). If an object is seen to be deleted after the handler has
//     seen another one of the same name, that one is added again after the OnDelete.
//   - I2: It is called for an object only if State answers ring.Active for the
//     object's point, or for the point that the object has just left, at that time;
//     or to tell it of the deletion of an object that it knows.
//   - I3: Once Activated was called for a partition, and Replay runs, each stored
//     object of it is shown in its last version, whatever events are on their way
//     at the same time, for as long as State answers ring.Active.
//   - I4: Deletions are remembered for DeletionWindow, with the objects. When their
//     partition becomes active within that time they are shown, before any other
//     object of that name, unless the same object (by UID) has come back. That is so
//     even for a deletion that the handler was told of before it lost the partition:
//     its work may have been dropped. Handlers must take a second OnDelete for what it is.
//   - I5: To lose an object to another member is no deletion. A handler hears of it
//     by OnReleased, if it is a [ReleaseHandler], and sees the object by OnAdd when
//     it is this member's again.
//   - I6: An object that moves from one key to another (a dependent that gets another
//     owner) is shown with both states to the members of either key, as an Add where
//     it was not known. The one that it has left then forgets it, as in I5.
//   - I7: While State answers ring.Active for everything, a handler sees exactly what
//     it would see of the inner informer. Client-go's own tests are the measure.
//   - I8: A registration's HasSynced says what the inner informer's does: the handler
//     has dealt with the initial list, as far as it was this member's at the time.
//     Objects that come later by a replay are not in the initial list, and OnAdd says
//     so; no HasSynced waits for them. cache.ShutDownEventHandler waits for replayed
//     calls too.
//   - I9: Activated and Released never block. Goroutines exist only while Replay
//     runs, one per handler, so that a slow handler delays nobody else. They and the
//     inner informer's goroutine never call a handler at the same time.
//   - I10: What has no point (Point fails) is nobody's: it is counted and logged, and
//     shown only to a handler that knows it: its update, then it is released as in I6.
//
// # The caller's duties
//
// State must change first, then Activated or Released be called, each time that a
// partition becomes active or is let go of, in the order in which it happens and
// from one goroutine. In between it may be ring.Pending and active again without
// Released being called: then the handler goes on where it was. A partition count
// that changes is no different: release under the old one, activate under the new one.
//
// # What is not guaranteed
//
//   - That an event is shown to one member only. A member shows what it may work on
//     when it looks; the queue looks again before work starts.
//   - That every version or every deletion is shown. Like client-go's, handlers see
//     the last state; what happened while nobody owned an object is summed up by
//     one Add, or by one OnDelete if no more than DeletionWindow has passed.
//   - The order of versions where they can't be compared (an API server whose
//     resourceVersions are no numbers; fakes without any): then something may be
//     shown twice, and nothing is missed.
//   - OnReleased after Replay has ended.
//
// # Cost
//
// Beside the hash and one look at the ownership, an event costs a lock without
// contention and a lookup. Per handler, an entry of about 100 bytes is kept for each
// object that is shown, and a deleted object for DeletionWindow (up to a minute
// more). A replay hashes each stored object once per handler.
//
// # Concurrency
//
// All methods may be called from any goroutine, also by handlers, but for what
// client-go excludes (a handler must not wait for its own end).
package informer
