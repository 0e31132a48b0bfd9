// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// snapshot is the state that the loop publishes to all other goroutines. Immutable.
type snapshot struct {
	ring       *ring.Ring   // of the live members, with the parameters in force
	states     []ring.State // by partition
	tokens     []string     // by partition; "" where not claimed
	partitions int          // len(states)
}

func emptySnapshot(p ring.Parameters) *snapshot {
	empty, _ := ring.New(p, nil) // the parameters were validated
	return &snapshot{ring: empty, states: make([]ring.State, p.Partitions), tokens: make([]string, p.Partitions), partitions: p.Partitions}
}

// State returns the state of the partition that contains a point of the hash space. It
// does not consider the fence. It costs one atomic load. Any goroutine may call it.
func (s *Sharder) State(point uint64) ring.State {
	now := s.snapshot.Load()
	return now.states[ring.PartitionOf(point, now.partitions)]
}

// Fenced reports whether this member must not act at this moment, whatever it
// owns. It reads both clocks, so that a process that was paused learns this before it
// acts. Any goroutine may call it.
func (s *Sharder) Fenced() bool {
	_, fenced := s.FencedAt()
	return fenced
}

// FencedAt is Fenced, and also returns the time that it used.
func (s *Sharder) FencedAt() (now time.Time, fenced bool) {
	now = time.Now()
	deadline := s.deadline.Load()
	return now, deadline == nil || s.reading(now).Reached(*deadline)
}

// now reads both clocks.
func (s *Sharder) now() claim.Time { return s.reading(time.Now()) }

// reading splits a time into the readings of the monotonic and of the wall clock.
func (s *Sharder) reading(t time.Time) claim.Time {
	return claim.Time{Mono: t.Sub(s.started), Wall: time.Duration(t.UnixNano())}
}

// Owns reports whether this member may work on the object: its partition is
// active, and the fence had not taken effect at its last check. Owns does not read the
// clock; the queue does at each Get. Any goroutine may call Owns. It takes no lock and
// allocates nothing.
func (s *Sharder) Owns(obj metav1.Object) bool {
	return s.owns(s.cfg.Key.Point(obj, s.hash))
}

// OwnsKey is Owns for a key string that Config.Key returns: namespace/name for ByName.
func (s *Sharder) OwnsKey(key string) bool { return s.owns(s.hash(key)) }

func (s *Sharder) owns(point uint64) bool {
	return s.State(point) == ring.Active && s.deadline.Load() != nil
}

// Owner returns the Pod name of the member to which the ring, as this member sees it,
// assigns a key string. During a handover, the previous owner may still hold the
// partition. Owner returns false if the ring has no members.
func (s *Sharder) Owner(key string) (string, bool) {
	return s.snapshot.Load().ring.OwnerOf(s.hash(key))
}

// OwnerOf is Owner for an object.
func (s *Sharder) OwnerOf(obj metav1.Object) (string, bool) {
	return s.snapshot.Load().ring.OwnerOf(s.cfg.Key.Point(obj, s.hash))
}

// Members returns the Pod names of the members on the ring as this member sees
// it, sorted.
func (s *Sharder) Members() []string { return s.snapshot.Load().ring.Members() }

// MemberCount returns the number of members on the ring as this member sees it.
func (s *Sharder) MemberCount() int { return len(s.Members()) }

// Token returns the token of a key string's partition: the resourceVersion of the
// write with which this member claimed it, or "" if this member does not claim it. Tokens
// strictly increase, as numbers, from owner to owner.
func (s *Sharder) Token(key string) string {
	now := s.snapshot.Load()
	return now.tokens[ring.PartitionOf(s.hash(key), now.partitions)]
}
