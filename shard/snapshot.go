// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard/claim"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// snapshot is what the loop publishes for everybody else. Immutable.
type snapshot struct {
	ring       *ring.Ring   // of the live members, under the parameters in force
	states     []ring.State // by partition
	tokens     []string     // by partition; "" where not claimed
	partitions int          // len(states)
}

func emptySnapshot(p ring.Parameters) *snapshot {
	empty, _ := ring.New(p, nil) // the parameters were validated
	return &snapshot{ring: empty, states: make([]ring.State, p.Partitions), tokens: make([]string, p.Partitions), partitions: p.Partitions}
}

// State returns what this member may do with a point of the hash space, fence
// aside. One atomic load; any goroutine.
func (s *Sharder) State(point uint64) ring.State {
	now := s.snapshot.Load()
	return now.states[ring.PartitionOf(point, now.partitions)]
}

// Fenced reports whether this member must not act at this moment, whatever it
// owns. It reads both clocks, so that a process which was paused knows before it
// acts. Any goroutine.
func (s *Sharder) Fenced() bool {
	_, fenced := s.FencedAt()
	return fenced
}

// FencedAt is Fenced with the time at which it looked.
func (s *Sharder) FencedAt() (now time.Time, fenced bool) {
	now = time.Now()
	deadline := s.deadline.Load()
	return now, deadline == nil || s.reading(now).Reached(*deadline)
}

// now reads both clocks.
func (s *Sharder) now() claim.Time { return s.reading(time.Now()) }

// reading takes a time apart into what each clock shows.
func (s *Sharder) reading(t time.Time) claim.Time {
	return claim.Time{Mono: t.Sub(s.started), Wall: time.Duration(t.UnixNano())}
}

// Owns reports whether this member may work on the object: its partition is
// active and the member was not fenced when it last looked. It does not read the
// clock; the queue does at each Get. Any goroutine; no lock and no allocation.
func (s *Sharder) Owns(obj metav1.Object) bool {
	return s.owns(s.cfg.Key.Point(obj, s.hash))
}

// OwnsKey is Owns for a key string as Config.Key makes it: namespace/name for ByName.
func (s *Sharder) OwnsKey(key string) bool { return s.owns(s.hash(key)) }

func (s *Sharder) owns(point uint64) bool {
	return s.State(point) == ring.Active && s.deadline.Load() != nil
}

// Owner returns the Pod name of the member that the ring, as this member sees it,
// names for a key string. While a partition moves, it may still be with the
// member that had it before. It returns false if the ring has no members.
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

// MemberCount is the number of members on the ring as this member sees it.
func (s *Sharder) MemberCount() int { return len(s.Members()) }

// Token returns the token of a key string's partition: the resourceVersion of the
// write by which this member claimed it, "" if it has no claim. Tokens strictly
// increase from owner to owner, as numbers.
func (s *Sharder) Token(key string) string {
	now := s.snapshot.Load()
	return now.tokens[ring.PartitionOf(s.hash(key), now.partitions)]
}
