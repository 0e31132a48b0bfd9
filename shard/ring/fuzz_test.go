// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzRing: for any parameters and member names, New returns either the error of Validate
// or a ring that satisfies B1, B2 and B3.
func FuzzRing(f *testing.F) {
	f.Add("name", 509, 20, 1.25, "op-0\nop-1\nop-2")
	f.Add("name", 1, 1, 1.0, "op-1\nop-11\nop-1")
	f.Add("uid", 64, 3, 1.0, strings.Join(statefulSet(12), "\n"))
	f.Add("namespace", 7, 1, math.MaxFloat64, "")
	f.Add("custom-x", 100, 2, 1.01, strings.Join(colliding(3), "\n"))
	f.Add("controller", 0, -1, math.NaN(), "\xff\n\n")
	f.Fuzz(func(t *testing.T, key string, partitions, virtualNodes int, load float64, names string) {
		p := Parameters{key, partitions, virtualNodes, load}
		members := strings.Split(names, "\n")
		if len(members) > 100 || partitions > 4096 && partitions <= MaxPartitions || virtualNodes > 50 && virtualNodes <= MaxVirtualNodes {
			t.Skip("possible, but slow")
		}
		r, err := New(p, members)
		if invalid := p.Validate(); (err != nil) != (invalid != nil) || (r == nil) != (err != nil) {
			t.Fatalf("New: %v, %v; Validate: %v", r, err, invalid)
		}
		if err != nil {
			return
		}
		check(t, r, members)
		slices.Reverse(members)
		again := newRing(t, p, append(members, members[0]))
		if diff := cmp.Diff(owners(r), owners(again)); diff != "" {
			t.Fatalf("listed in reverse (-first +reversed):\n%s", diff)
		}
		if moved := again.Relocated(r); moved != 0 {
			t.Fatalf("%d partitions relocated between equal rings", moved)
		}
		if got, err := ParseFingerprint(p.Fingerprint()); err != nil || got != p {
			t.Fatalf("fingerprint %q is read as %+v, %v", p.Fingerprint(), got, err)
		}
	})
}

// FuzzDecodeSet: text is either rejected or exactly what Encode returns.
func FuzzDecodeSet(f *testing.F) {
	for _, partitions := range []int{1, 8, 12, 64, 65, 509} {
		f.Add(FullSet(partitions).Encode(), partitions)
		f.Add(NewSet(partitions).Encode(), partitions)
	}
	f.Add("\n\r\n", 12)
	f.Add("//8=", 16)
	f.Add("", -1)
	f.Fuzz(func(t *testing.T, text string, partitions int) {
		s, err := DecodeSet(text, partitions)
		if err != nil {
			if !s.Equal(Set{}) {
				t.Fatal("a set in addition to an error")
			}
			return
		}
		if s.Partitions() != partitions || s.Encode() != text {
			t.Fatalf("%q of %d partitions is read as %q of %d", text, partitions, s.Encode(), s.Partitions())
		}
		n := 0
		for p := range s.All() {
			if p < 0 || p >= partitions || !s.Has(p) {
				t.Fatalf("All yields %d of %d partitions, Has returns %v", p, partitions, s.Has(p))
			}
			n++
		}
		if n != s.Len() || s.Empty() != (n == 0) || s.Overlaps(s) != (n > 0) {
			t.Fatalf("All yields %d, Len is %d, Empty %v, Overlaps itself %v", n, s.Len(), s.Empty(), s.Overlaps(s))
		}
	})
}

// FuzzParseFingerprint: text is either rejected or exactly what Fingerprint returns.
func FuzzParseFingerprint(f *testing.F) {
	f.Add(DefaultParameters().Fingerprint())
	f.Add("fnv1a/uid/509/20/1.25/consistent-v1.1.0")
	f.Add("xxh3/name/509/20/NaN/consistent-v1.1.0")
	f.Add("xxh3/name/+509/020/1_0/consistent-v1.1.0")
	f.Add("/////")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseFingerprint(text)
		if err != nil {
			if p != (Parameters{}) || len(err.Error()) > 2000 {
				t.Fatalf("parameters %+v in addition to an error of %d characters", p, len(err.Error()))
			}
			return
		}
		if err := p.Validate(); err != nil {
			t.Fatalf("%q has invalid parameters: %v", text, err)
		}
		if p.Fingerprint() != text {
			t.Fatalf("%q is read as %q", text, p.Fingerprint())
		}
	})
}

// FuzzRangeOf: partitions, points and ranges agree under any counts.
func FuzzRangeOf(f *testing.F) {
	f.Add(0, 1, uint64(0))
	f.Add(508, 509, uint64(math.MaxUint64))
	f.Add(-1, 5, uint64(1)<<63)
	f.Add(math.MaxInt-1, math.MaxInt, uint64(1))
	f.Add(math.MinInt, math.MinInt, uint64(1))
	f.Fuzz(func(t *testing.T, partition, partitions int, point uint64) {
		first, last := RangeOf(partition, partitions)
		if partition < 0 || partition >= partitions {
			if first <= last {
				t.Fatalf("RangeOf(%d, %d) = %#x to %#x, though there is none", partition, partitions, first, last)
			}
			_ = PartitionOf(point, partitions) // the result is meaningless, but it must not panic
			return
		}
		if first > last {
			t.Fatalf("RangeOf(%d, %d) = %#x to %#x", partition, partitions, first, last)
		}
		if PartitionOf(first, partitions) != partition || PartitionOf(last, partitions) != partition {
			t.Fatalf("RangeOf(%d, %d) = %#x to %#x, which lie in %d and %d", partition, partitions, first, last, PartitionOf(first, partitions), PartitionOf(last, partitions))
		}
		if first > 0 && PartitionOf(first-1, partitions) != partition-1 || last < math.MaxUint64 && PartitionOf(last+1, partitions) != partition+1 {
			t.Fatalf("RangeOf(%d, %d) = %#x to %#x, the neighbours lie in %d and %d", partition, partitions, first, last, PartitionOf(first-1, partitions), PartitionOf(last+1, partitions))
		}
		of := PartitionOf(point, partitions)
		if (of == partition) != (first <= point && point <= last) || of < 0 || of >= partitions {
			t.Fatalf("point %#x lies in %d of %d, partition %d is %#x to %#x", point, of, partitions, partition, first, last)
		}
		if partitions <= MaxPartitions {
			one := NewSet(partitions)
			one.Add(partition)
			other := NewSet(1021)
			other.Add(PartitionOf(point, 1021))
			if one.Overlaps(other) != rangesOverlap(one, other) || other.Overlaps(one) != rangesOverlap(one, other) {
				t.Fatalf("partition %d of %d and %d of 1021: Overlaps %v and %v, want %v", partition, partitions, PartitionOf(point, 1021), one.Overlaps(other), other.Overlaps(one), rangesOverlap(one, other))
			}
		}
	})
}
