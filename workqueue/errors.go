// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import "errors"

// The causes with which a context of [Queue.Context] ends, as context.Cause tells
// them, beside those of its parent.
var (
	// ErrReleased: the item's partition is being drained, to be given to another
	// member. Stop; the item needs no retry here.
	ErrReleased = errors.New("workqueue: the item's partition is being released")
	// ErrFenced: this member's last confirmed renewal is too old, so another member
	// may take over at any moment. Stop, and add the item again: it stays here if
	// this member renews in time.
	ErrFenced = errors.New("workqueue: the member is fenced")
	// ErrDone: Done was called for the item, or it was never handed out.
	ErrDone = errors.New("workqueue: the item is not in flight")
)
