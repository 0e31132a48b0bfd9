// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"iter"
	"math/bits"
)

// Set is a set of partitions under one partition count. The zero Set is empty, no
// partition can be added to it, and it overlaps with nothing.
type Set struct {
	partitions int
	words      []uint64 // bit p%64 of word p/64; no bit at or above partitions is set
}

// NewSet returns an empty set of partitions numbered 0 to partitions-1. For a
// count that is not between 1 and [MaxPartitions] it is the zero Set.
func NewSet(partitions int) Set {
	if partitions < 1 || partitions > MaxPartitions {
		return Set{}
	}
	return Set{partitions: partitions, words: make([]uint64, (partitions+63)/64)}
}

// FullSet returns the set of all partitions. For a count that is not between 1 and
// [MaxPartitions] it is the zero Set.
func FullSet(partitions int) Set {
	s := NewSet(partitions)
	for p := range s.partitions {
		s.Add(p)
	}
	return s
}

// Partitions returns the partition count of the set.
func (s Set) Partitions() int { return s.partitions }

// Has reports whether the set contains the partition: false if it is out of range.
func (s Set) Has(partition int) bool {
	return partition >= 0 && partition < s.partitions && s.words[partition/64]&(1<<(partition%64)) != 0
}

// HasPoint reports whether the set contains the partition that contains the point.
func (s Set) HasPoint(point uint64) bool {
	return s.partitions > 0 && s.Has(PartitionOf(point, s.partitions))
}

// Add adds a partition to the set. It ignores a partition that is out of range.
func (s Set) Add(partition int) {
	if partition >= 0 && partition < s.partitions {
		s.words[partition/64] |= 1 << (partition % 64)
	}
}

// AddAll adds the partitions of a set with the same partition count. It ignores any other set.
func (s Set) AddAll(other Set) {
	if s.partitions == other.partitions {
		for i, w := range other.words {
			s.words[i] |= w
		}
	}
}

// Remove removes a partition from the set.
func (s Set) Remove(partition int) {
	if partition >= 0 && partition < s.partitions {
		s.words[partition/64] &^= 1 << (partition % 64)
	}
}

// RemoveAll removes the partitions of a set with the same partition count. It ignores any other set.
func (s Set) RemoveAll(other Set) {
	if s.partitions == other.partitions {
		for i, w := range other.words {
			s.words[i] &^= w
		}
	}
}

// Len returns the number of partitions in the set.
func (s Set) Len() int {
	n := 0
	for _, w := range s.words {
		n += bits.OnesCount64(w)
	}
	return n
}

// Empty reports whether the set contains no partitions.
func (s Set) Empty() bool {
	for _, w := range s.words {
		if w != 0 {
			return false
		}
	}
	return true
}

// Clone returns a copy that shares nothing with s.
func (s Set) Clone() Set {
	return Set{partitions: s.partitions, words: append([]uint64(nil), s.words...)}
}

// Equal reports whether both sets contain the same partitions under the same count.
func (s Set) Equal(other Set) bool {
	if s.partitions != other.partitions {
		return false
	}
	for i, w := range s.words {
		if w != other.words[i] {
			return false
		}
	}
	return true
}

// All yields the partitions in ascending order.
func (s Set) All() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i, w := range s.words {
			for ; w != 0; w &= w - 1 {
				if !yield(i*64 + bits.TrailingZeros64(w)) {
					return
				}
			}
		}
	}
}

// Overlaps reports whether any point of the hash space lies in both sets. The
// sets may be for different partition counts; they must be for the same keys
// (see [Parameters.SameKeys]).
func (s Set) Overlaps(other Set) bool {
	if s.partitions == other.partitions {
		for i, w := range s.words {
			if w&other.words[i] != 0 {
				return true
			}
		}
		return false
	}
	if s.partitions == 0 || other.partitions == 0 {
		return false
	}
	for p := range s.All() {
		if other.OverlapsPartition(p, s.partitions) {
			return true
		}
	}
	return false
}

// OverlapsPartition reports whether any point of the given partition, under the
// given count, lies in the set.
func (s Set) OverlapsPartition(partition, partitions int) bool {
	if s.partitions == 0 || partition < 0 || partition >= partitions {
		return false
	}
	if s.partitions == partitions {
		return s.Has(partition)
	}
	first, last := RangeOf(partition, partitions)
	for p := PartitionOf(first, s.partitions); p <= PartitionOf(last, s.partitions); p++ {
		if s.Has(p) {
			return true
		}
	}
	return false
}

// Encode returns the set as unpadded URL-safe base64 of its bits, the lowest
// partition in the lowest bit of the first byte: 86 characters for 509 partitions.
func (s Set) Encode() string {
	raw := make([]byte, 8*len(s.words))
	for i, w := range s.words {
		binary.LittleEndian.PutUint64(raw[8*i:], w)
	}
	return base64.RawURLEncoding.EncodeToString(raw[:(s.partitions+7)/8])
}

// DecodeSet decodes the result of [Set.Encode] for the given partition count (1 to
// [MaxPartitions]). It rejects any other text: of another length, with other
// characters, or with bits beyond the last partition.
func DecodeSet(text string, partitions int) (Set, error) {
	if partitions < 1 || partitions > MaxPartitions {
		return Set{}, fmt.Errorf("partition set: partition count %d is not between 1 and %d", partitions, MaxPartitions)
	}
	size := (partitions + 7) / 8
	if want := base64.RawURLEncoding.EncodedLen(size); len(text) != want {
		return Set{}, fmt.Errorf("partition set: %d characters instead of the %d of %d partitions", len(text), want, partitions)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return Set{}, fmt.Errorf("partition set: %w", err)
	}
	if len(raw) != size { // the decoder skips line breaks
		return Set{}, fmt.Errorf("partition set: %d bytes instead of the %d of %d partitions", len(raw), size, partitions)
	}
	s := NewSet(partitions)
	padded := make([]byte, 8*len(s.words))
	copy(padded, raw)
	for i := range s.words {
		s.words[i] = binary.LittleEndian.Uint64(padded[8*i:])
	}
	if rest := partitions % 64; rest != 0 && s.words[len(s.words)-1]>>rest != 0 {
		return Set{}, fmt.Errorf("partition set: bits beyond partition %d", partitions-1)
	}
	return s, nil
}
