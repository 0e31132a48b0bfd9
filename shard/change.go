// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import "github.com/tom-ludwig/operator-scaling/shard/ring"

// ChangeKind says what a [Change] is about.
type ChangeKind string

const (
	// Joined: this member has its place on the ring.
	Joined ChangeKind = "joined"
	// Activated comes before the first work on the partitions.
	Activated ChangeKind = "activated"
	// Draining: nothing new is begun on the partitions, the contexts of what is in
	// flight have ended. They are active again if Activated follows, and not Released.
	Draining ChangeKind = "draining"
	// Released comes after the last work on the partitions and before anybody else
	// is told so. It may come for partitions that never were active.
	Released ChangeKind = "released"
	// Fenced: this member may not act on what it owns. Work was refused from the
	// fence on; this comes as soon as the loop has noticed, in a process that was
	// paused only when it goes on.
	Fenced ChangeKind = "fenced"
	// Unfenced: it may act again on what is active.
	Unfenced ChangeKind = "unfenced"
	// Left: this member has given up everything, or lost it.
	Left ChangeKind = "left"
)

// Change is a step of this member on the ring, for [Config.OnChange].
type Change struct {
	Kind ChangeKind
	// Member is the identity that it is about; see [Sharder.Identity].
	Member string
	// Partitions are those that were activated, drained or released, in ascending
	// order; nil for the other kinds.
	Partitions []int
	// Err is why the member left; nil for a stop that was asked for.
	Err error
}

// tell calls Config.OnChange. A fence is told once until it is lifted.
func (l *loop) tell(kind ChangeKind, partitions ring.Set, err error) {
	switch kind {
	case Fenced, Unfenced:
		if fenced := kind == Fenced; fenced == l.toldFenced {
			return
		}
		l.toldFenced = kind == Fenced
	case Joined, Left:
		if joined := kind == Joined; joined == l.toldJoined {
			return
		}
		l.toldJoined, l.toldFenced = kind == Joined, false
	}
	if l.s.cfg.OnChange == nil {
		return
	}
	c := Change{Kind: kind, Member: l.holder, Err: err}
	for p := range partitions.All() {
		c.Partitions = append(c.Partitions, p)
	}
	l.s.cfg.OnChange(c)
}
