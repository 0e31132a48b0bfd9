// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

// Event is what a [Record] describes.
type Event string

const (
	// Start is written before the work on a key begins, End after it has ended. Start has
	// the key, the object's version, the partition and its token. End repeats them and adds
	// the error.
	Start Event = "start"
	End   Event = "end"
	// Write is written before a request that changes something is sent for a key. It is
	// optional. It shows whether a process that was paused during its work made late writes.
	Write Event = "write"

	// Activate is written when work on gained partitions may begin. Release is written after
	// the last work on released partitions, and before the release is published to peers.
	Activate Event = "activate"
	Release  Event = "release"
	// Fence is written when the member may no longer work on what it owns, Resume when it may
	// again.
	Fence  Event = "fence"
	Resume Event = "resume"

	// Join is written when the member has joined the ring, Leave when it has released
	// everything.
	Join  Event = "join"
	Leave Event = "leave"
)

// Gone is the version of an object that does not exist.
const Gone = "gone"

// Record is one line.
type Record struct {
	// Time is when the event was recorded, in nanoseconds as returned by [Now].
	Time int64 `json:"t"`
	// Event is what happened.
	Event Event `json:"e"`
	// Member is the identity of the process in the ring.
	Member string `json:"member,omitempty"`
	// Key is the object that is worked on, namespace/name.
	Key string `json:"key,omitempty"`
	// Version is the version of the object that was worked on: a generation or a
	// resourceVersion, as the program chooses, or Gone.
	Version string `json:"rv,omitempty"`
	// Token is the fencing token under which the member works, a decimal number.
	Token string `json:"token,omitempty"`
	// Partitions are the partitions that were activated or released, or the key's partition.
	Partitions []int `json:"partitions,omitempty"`
	// Error is the reason why the work failed. Empty means that it did not fail.
	Error string `json:"err,omitempty"`
}

// Now returns the time of the clock that stamps the records, in nanoseconds. On Linux that is
// CLOCK_MONOTONIC, which all processes of the machine share and which does not jump. On other
// systems it is the wall clock: if that is set while replicas run, their records prove nothing.
func Now() int64 { return now() }
