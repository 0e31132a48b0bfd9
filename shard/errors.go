// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"errors"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/lease"
	"github.com/tom-ludwig/operator-scaling/shard/internal/member"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// The causes (context.Cause) with which a context from a queue's Context ends. A
// reconciler that receives one stops and calls Done. Done adds the item again: the queue
// hands it out if this member keeps its partition or gains it again, and drops it
// otherwise. It does no harm if the reconciler itself adds the item again, rate limited.
var (
	// ErrDraining: the item's partition is being drained for a handover to another member.
	ErrDraining = workqueue.ErrDraining
	// ErrFenced: no renewal was confirmed in time.
	ErrFenced = workqueue.ErrFenced
)

// The errors of requests that [Sharder.WrapTransport] has not sent.
var (
	// ErrLostOwnership: the work has lost its object. The error also wraps the cause:
	// [ErrDraining], [ErrFenced], or that Done was called. Stop and call Done: the item needs no
	// retry.
	ErrLostOwnership = errors.New("lost ownership of the object")
	// ErrOutsideWork: the request belongs to no work; see Config.OutsideWrites.
	ErrOutsideWork = errors.New("the write belongs to no work of a queue or Acquire")
)

// The errors of [Sharder.Acquire] and [Sharder.TryAcquire].
var (
	// ErrNotActive: this member may not work on the key now. Another one owns it, it is being
	// handed over, or this member is fenced.
	ErrNotActive = workqueue.ErrNotActive
	// ErrNotOwned is an ErrNotActive: this member does not own the key, and is not about to. If
	// it gains the key, its handlers see the object as an Add, or as [Unfiltered] says. After any
	// other error they may not, because this member may have shown it before and keep it: try again.
	ErrNotOwned = workqueue.ErrNotOwned
	// ErrInUse: the key is already acquired in this process, or a caller of Acquire waits for it.
	ErrInUse = workqueue.ErrInUse
	// ErrStopped: the context of Run has ended, or Run has returned.
	ErrStopped = workqueue.ErrStopped
)

// ErrChangesDropped is the reason of a [Left] that replaces the waiting changes after
// Config.OnChange was so slow that more than a thousand of them were waiting. The changes
// that follow describe what this member has now.
var ErrChangesDropped = member.ErrChangesDropped

// Errors that [Sharder.Run] returns. Test for them with errors.Is. After any of
// them the process should exit with a non-zero code, so that it is restarted.
var (
	// ErrDrainTimeout: a piece of work did not end within Config.DrainTimeout after
	// its context was cancelled. Its partition was not released. The member no longer
	// renews its Lease, and peers take over when the Lease has expired.
	ErrDrainTimeout = claim.ErrDrainTimeout
	// ErrStaleWatch: writes to this member's Lease succeed, but the watch does not show
	// them, although it was restarted several times.
	ErrStaleWatch = claim.ErrStaleWatch
	// ErrForeignLease: a Lease with the name of this member's Lease already exists and
	// does not belong to this ring. Choose another Config.LeasePrefix.
	ErrForeignLease = lease.ErrForeign
	// ErrForbidden: this process may not use Leases. The error contains the missing RBAC
	// rule. Run returns it only if access has been denied for ten seconds and this process
	// has never joined. A request that was refused for another reason (a quota, a namespace
	// that is being deleted, an admission webhook or policy) is repeated.
	ErrForbidden = lease.ErrForbidden
	// ErrAlreadyRun: Run was called twice.
	ErrAlreadyRun = errors.New("Run may be called once")
	// ErrNoOwnerKey: ByController cannot be used with the ring's key.
	ErrNoOwnerKey = ring.ErrNoOwnerKey
	// ErrNoItemKey: the key of a queue's items cannot be determined; see [WithItemKey].
	ErrNoItemKey = errors.New("the ring's key cannot be determined from an item of the queue")
)
