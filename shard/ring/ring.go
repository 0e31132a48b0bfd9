// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"fmt"
	"slices"

	"github.com/buraksezer/consistent"
	"github.com/zeebo/xxh3"
)

// Ring is an immutable assignment of partitions to members.
type Ring struct {
	parameters Parameters
	members    []string // sorted, unique
	owner      []int32  // partition -> index into members; empty without members
}

// New computes the ring of the given members. Their order does not matter, and a
// duplicate name counts once. The only error is that of [Parameters.Validate].
//
// The ring is always computed from scratch, never by adding members to or removing them
// from an earlier one: the result of the library's Add and Remove depends on the order of
// the calls.
func New(p Parameters, members []string) (*Ring, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("ring: %w", err)
	}
	r := &Ring{parameters: p, members: slices.Compact(slices.Sorted(slices.Values(members)))}
	if len(r.members) == 0 {
		return r, nil
	}
	index := make(map[string]int32, len(r.members))
	placed := make([]consistent.Member, len(r.members))
	for i, m := range r.members {
		index[m] = int32(i)
		placed[i] = name(m)
	}
	c := consistent.New(placed, consistent.Config{
		Hasher:            hasher{},
		PartitionCount:    p.Partitions,
		ReplicationFactor: p.VirtualNodes,
		Load:              p.Load,
		ReplicaKey:        distinctPlaces(len(placed) * p.VirtualNodes),
	})
	r.owner = make([]int32, p.Partitions)
	for partition := range r.owner {
		r.owner[partition] = index[c.GetPartitionOwner(partition).String()]
	}
	return r, nil
}

// Parameters returns the parameters that the ring was computed with.
func (r *Ring) Parameters() Parameters { return r.parameters }

// Members returns the names of the members, sorted.
func (r *Ring) Members() []string { return slices.Clone(r.members) }

// Owner returns the member that should own the partition. It returns false if the
// ring has no members or no such partition.
func (r *Ring) Owner(partition int) (string, bool) {
	if partition < 0 || partition >= len(r.owner) {
		return "", false
	}
	return r.members[r.owner[partition]], true
}

// OwnerOf returns the member that should own the partition that contains the point.
func (r *Ring) OwnerOf(point uint64) (string, bool) {
	return r.Owner(PartitionOf(point, r.parameters.Partitions))
}

// Owned returns the partitions that the member should own: none if it is not on the ring.
func (r *Ring) Owned(member string) Set {
	s := NewSet(r.parameters.Partitions)
	i, found := slices.BinarySearch(r.members, member)
	if !found {
		return s
	}
	for partition, owner := range r.owner {
		if int(owner) == i {
			s.Add(partition)
		}
	}
	return s
}

// Relocated returns the number of partitions that have another owner on r than on the
// earlier ring. Partitions that had no owner before do not count. If the partition counts
// differ, every partition counts.
func (r *Ring) Relocated(earlier *Ring) int {
	if earlier == nil || len(earlier.owner) == 0 || len(r.owner) == 0 {
		return 0
	}
	if len(earlier.owner) != len(r.owner) {
		return len(r.owner)
	}
	moved := 0
	for partition := range r.owner {
		if r.members[r.owner[partition]] != earlier.members[earlier.owner[partition]] {
			moved++
		}
	}
	return moved
}

// distinctPlaces returns a function that returns the library's own key of a virtual node,
// changed only if it hashes to the place of an earlier one.
//
// The library keeps one member for each place. A member whose places are all occupied by
// others could own nothing, and the library panics when the remaining members
// have too little room ("not enough room to distribute partitions"). Names that
// collide under xxh3 are easy to construct. With distinct places every member can be
// reached from every partition, and there is always room, because
// members × ceil(partitions / members × load) >= partitions: for the partition
// and member counts that fit into memory the quotient never rounds down to an
// integer below it, and a load of at least 1 never makes the product smaller.
//
// The library requests the keys in the order of its members, which is sorted, so
// the result is still a pure function of the set of members.
func distinctPlaces(virtualNodes int) func(member string, i int) []byte {
	taken := make(map[uint64]struct{}, virtualNodes)
	return func(member string, i int) []byte {
		key := consistent.DefaultReplicaKey(member, i)
		for {
			place := hasher{}.Sum64(key)
			if _, found := taken[place]; !found {
				taken[place] = struct{}{}
				return key
			}
			key = append(key, '+')
		}
	}
}

type name string

func (n name) String() string { return string(n) }

type hasher struct{}

func (hasher) Sum64(data []byte) uint64 { return xxh3.Hash(data) }
