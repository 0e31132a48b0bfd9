// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tom-ludwig/operator-scaling/shard/internal/member"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// Owns reports whether this member may work on the object: its partition is
// active, and the fence had not taken effect at its last check. Owns does not read the
// clock; the queue does at each Get. Any goroutine may call Owns. It takes no lock and
// allocates nothing. No member owns an object whose key is empty, which only a [ByFunc] or a missing
// UID can make.
func (s *Sharder) Owns(obj metav1.Object) bool {
	point, err := s.cfg.Key.Locate(obj, s.hash)
	return err == nil && s.owns(point)
}

// KeyOf returns the key string of an object, as [Sharder.Acquire] and the other methods take it:
// namespace/name on a ring with the key [ByName]. For a dependent, pass the object that owns it. An
// empty string belongs to no member.
func (s *Sharder) KeyOf(obj metav1.Object) string { return s.cfg.Key.Of(obj) }

// OwnsKey is Owns for a key string; see [Sharder.KeyOf].
func (s *Sharder) OwnsKey(key string) bool { return key != "" && s.owns(s.hash(key)) }

func (s *Sharder) owns(point uint64) bool {
	now := s.member.Published.View()
	return now.State(point) == ring.Active && now.Fence != nil
}

// Partition returns the partition of a key string, as Change.Partitions counts them. The number
// changes with Config.Key and Config.Partitions, which may change while the fleet is
// updated: do not store it.
func (s *Sharder) Partition(key string) int {
	return ring.PartitionOf(s.hash(key), len(s.member.Published.View().States))
}

// Owner returns the Pod name of the member to which the ring, as this member sees it,
// assigns a key string. During a handover, the previous owner may still hold the
// partition. Owner returns false if the ring has no members.
func (s *Sharder) Owner(key string) (string, bool) {
	return s.member.Published.View().Ring.OwnerOf(s.hash(key))
}

// OwnerOf is Owner for an object.
func (s *Sharder) OwnerOf(obj metav1.Object) (string, bool) {
	return s.member.Published.View().Ring.OwnerOf(s.cfg.Key.Point(obj, s.hash))
}

// Members returns the Pod names of the members on the ring as this member sees
// it, sorted.
func (s *Sharder) Members() []string { return s.member.Published.View().Ring.Members() }

// MemberCount returns the number of members on the ring as this member sees it.
func (s *Sharder) MemberCount() int { return len(s.Members()) }

// Token returns the token of a key string's partition: the resourceVersion of the
// write with which this member claimed it, or "" if this member does not claim it. Tokens
// strictly increase, as numbers, from owner to owner.
func (s *Sharder) Token(key string) string { return s.member.Published.Token(s.hash(key)) }

// ownership is what informers, queues and requests learn of this member.
type ownership struct {
	*member.Published
	s *Sharder
}

var _ workqueue.TimedOwnership = ownership{} // without it, a queue reads the clocks twice as often

// nothing is the ownership of informers and queues whose key cannot be used: Run does not
// return the error if they are created later.
type nothing struct{ s *Sharder }

func (nothing) State(uint64) ring.State { return ring.NotOwned }
func (nothing) Fenced() bool            { return true }

func (o ownership) sharder() *Sharder { return o.s }
func (n nothing) sharder() *Sharder   { return n.s }

// tokens is the part of ownership that only requests use.
type tokens interface{ Token(point uint64) string }
