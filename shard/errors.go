// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"errors"

	"github.com/tom-ludwig/operator-scaling/shard/claim"
	"github.com/tom-ludwig/operator-scaling/shard/lease"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// ErrLostOwnership is the error of a request that [WrapTransport] has not sent. The
// cause is wrapped beside it: [ErrDraining], [ErrFenced], or that Done was called.
// Stop and call Done: the item needs no retry.
var ErrLostOwnership = errors.New("this member may not work on the object any more")

// The causes with which a context of a queue's Context ends (context.Cause). A
// reconciler that meets one stops and calls Done, which adds the item again: the queue
// hands it out if its partition stays or comes back, and drops it if it isn't this
// member's any more. A reconciler that adds it again itself, rate limited, does no harm.
var (
	// ErrDraining: the item's partition is being drained, to be given to another member.
	ErrDraining = workqueue.ErrDraining
	// ErrFenced: no renewal was confirmed in time.
	ErrFenced = workqueue.ErrFenced
)

// ErrChangesDropped is the reason of a [Left] with which Config.OnChange, after it has
// not returned for so long that a thousand changes were waiting, starts anew: what
// follows says what this member has now.
var ErrChangesDropped = errors.New("changes were dropped because OnChange is too slow")

// Errors that [Sharder.Run] returns, to be tested with errors.Is. After any of
// them the process should exit with a non-zero code, so that it is started afresh.
var (
	// ErrDrainTimeout: a piece of work did not end within Config.DrainTimeout after
	// its context was cancelled. Its partition was not released: the member has given up
	// its Lease by no longer renewing it, and peers take over when it has run out.
	ErrDrainTimeout = claim.ErrDrainTimeout
	// ErrStaleWatch: writes to the own Lease succeed but don't come back through
	// the watch, although it was started again several times.
	ErrStaleWatch = claim.ErrStaleWatch
	// ErrForeignLease: a Lease with the name of this member's is there already and
	// is none of this ring. Choose another Config.LeasePrefix.
	ErrForeignLease = lease.ErrForeign
	// ErrForbidden: the API server refuses access to Leases. The error names the
	// missing RBAC rule.
	ErrForbidden = errors.New("access to Leases is forbidden")
	// ErrAlreadyRun: Run was called twice.
	ErrAlreadyRun = errors.New("Run may be called once")
	// ErrNoOwnerKey: ByController can't be used with the ring's key.
	ErrNoOwnerKey = ring.ErrNoOwnerKey
	// ErrNoItemKey: the key of a queue's items can't be told; see [WithItemKey].
	ErrNoItemKey = errors.New("the ring's key can't be told from an item of the queue")
)
