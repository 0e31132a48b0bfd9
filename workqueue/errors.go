// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"errors"
	"fmt"
)

// The causes with which a context of [Queue.Context] ends, as context.Cause returns them.
// Otherwise the context ends only at the deadline of its parent.
var (
	// ErrDraining: the item's partition is being drained for its handover to another
	// member. Stop and call Done. The item needs no retry: Done adds it again, in case
	// the partition stays.
	ErrDraining = errors.New("workqueue: the item's partition is being drained")
	// ErrFenced: this member's last confirmed renewal is too old, so another member
	// may take over at any moment. Stop and call Done. The item needs no retry: Done
	// adds it again, and it stays here if this member renews in time.
	ErrFenced = errors.New("workqueue: the member is fenced")
	// ErrDone: Done was called for the item, or it was never handed out.
	ErrDone = errors.New("workqueue: the item is not in flight")

	// The errors of an [Acquirer]. ErrNotActive: this member may not work on the key now: its
	// partition is not active, or the member is fenced. ErrInUse: another caller has acquired
	// the key here, or waits for it. ErrNotOwned: an ErrNotActive of a partition that this
	// member neither has nor is about to gain. ErrStopped: the member ends, and acquires nothing any more.
	ErrNotActive = errors.New("this member may not work on the key now")
	ErrNotOwned  = fmt.Errorf("%w: another member owns it", ErrNotActive)
	ErrInUse     = errors.New("the key is already acquired in this process")
	ErrStopped   = errors.New("the member has stopped")

	// ErrPanic is the error of an item for which Options.Point or the rate limiter has
	// panicked. See [Recorder].
	ErrPanic = errors.New("workqueue: panic")
	// ErrLimiterPanic is the ErrPanic of the rate limiter.
	ErrLimiterPanic = fmt.Errorf("the rate limiter: %w", ErrPanic)
)
