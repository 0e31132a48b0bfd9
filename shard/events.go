// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import "github.com/tom-ludwig/operator-scaling/shard/internal/member"

// ChangeKind is the type of a [Change].
type ChangeKind string

const (
	// Joined: this member is on the ring.
	Joined ChangeKind = ChangeKind(member.Joined)
	// Activated: work on the partitions is allowed. It may have begun already.
	Activated ChangeKind = ChangeKind(member.Activated)
	// Draining: no new work begins on the partitions, and the contexts of the work in
	// flight have ended. The partitions are active again if Activated follows instead of
	// Released.
	Draining ChangeKind = ChangeKind(member.Draining)
	// Released follows the last work on the partitions. The write that makes them
	// available to peers waits until OnChange has returned; see [Config.OnChange] for how
	// long. Released may be reported for partitions that were never active.
	Released ChangeKind = ChangeKind(member.Released)
	// Fenced: this member may not act on what it owns. No work has been
	// handed out since the fence, and the contexts of the work in flight have ended. A process that was
	// paused at the fence reports this when it runs again.
	Fenced ChangeKind = ChangeKind(member.Fenced)
	// Unfenced: this member may act again on its active partitions.
	Unfenced ChangeKind = ChangeKind(member.Unfenced)
	// Left: this member has given up or lost everything. With the reason
	// [ErrChangesDropped] it has not: the changes that follow describe what it has.
	Left ChangeKind = ChangeKind(member.Left)
)

// Change is a step of this member on the ring, for [Config.OnChange].
type Change struct {
	Kind ChangeKind
	// Member is the identity of the member; see [Sharder.Identity].
	Member string
	// Partitions are the partitions that were activated, drained or released, in ascending
	// order; nil for the other changes.
	Partitions []int
	// Err is the reason why the member left; nil for a requested stop.
	Err error
}
