// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package record

// Event says what a [Record] is about.
type Event string

const (
	// Start is written before the work on a key begins, End after it has ended.
	// Start has the key, the object's version, the partition and its token; End
	// repeats them and adds the error.
	Start Event = "start"
	End   Event = "end"
	// Write is written before a request that changes something is sent on behalf
	// of a key. It is optional. It shows whether a process that was paused in the
	// middle of its work did any harm afterwards.
	Write Event = "write"

	// Activate is written when work on partitions that were gained may begin,
	// Release after the last work on partitions that are given up, and before
	// anybody else is told so.
	Activate Event = "activate"
	Release  Event = "release"
	// Fence is written when the member may no longer work on what it owns, Resume
	// when it may again.
	Fence  Event = "fence"
	Resume Event = "resume"

	// Join is written when the member has its place on the ring, Leave when it
	// has given up everything.
	Join  Event = "join"
	Leave Event = "leave"
)

// Gone is the version of an object that does not exist.
const Gone = "gone"

// Record is one line.
type Record struct {
	// Time is when the event was recorded, in nanoseconds as [Now] gives them.
	Time int64 `json:"t"`
	// Event is what happened.
	Event Event `json:"e"`
	// Member is the identity under which the process takes part in the ring.
	Member string `json:"member,omitempty"`
	// Key is the object that is worked on, namespace/name.
	Key string `json:"key,omitempty"`
	// Version is that of the object that was worked on: a generation or a
	// resourceVersion, as the program chooses, or Gone.
	Version string `json:"rv,omitempty"`
	// Token is the fencing token under which the member works, a decimal number.
	Token string `json:"token,omitempty"`
	// Partitions are those that were activated or released, or the one of the key.
	Partitions []int `json:"partitions,omitempty"`
	// Error is why the work failed; empty means that it did not.
	Error string `json:"err,omitempty"`
}

// Now returns nanoseconds of the clock that records are stamped with. On Linux
// that is CLOCK_MONOTONIC, which all processes of the machine share and which does
// not jump. Elsewhere it is the wall clock: if that is set while replicas run, what
// is concluded from their records is void.
func Now() int64 { return now() }
