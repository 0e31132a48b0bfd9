// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package ring

// State determines what a member may do with a partition, or with a point of the hash
// space that lies in it.
type State uint8

const (
	// NotOwned partitions are owned by another member, or by none. Work on them is
	// dropped: the objects are replayed to the member that activates the partition.
	NotOwned State = iota
	// Pending partitions are claimed by this member but not active: they are about to
	// become active, or they are being drained. Work on them is parked.
	Pending
	// Active partitions may be worked on by this member, unless it is fenced.
	Active
)

// String returns "not_owned", "pending" or "active": the values of the metric label "state".
func (s State) String() string {
	switch s {
	case NotOwned:
		return "not_owned"
	case Pending:
		return "pending"
	case Active:
		return "active"
	}
	return "unknown"
}
