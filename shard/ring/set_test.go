// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"encoding/base64"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// model is a set of partitions that is obviously correct.
type model map[int]bool

func (m model) sorted() []int { return slices.Sorted(maps.Keys(m)) }

func compare(t *testing.T, what string, s Set, m model) {
	t.Helper()
	if got, want := slices.Collect(s.All()), m.sorted(); !slices.Equal(got, want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
	if s.Len() != len(m) || s.Empty() != (len(m) == 0) {
		t.Fatalf("%s: Len %d and Empty %v, want %d", what, s.Len(), s.Empty(), len(m))
	}
	for p := -1; p <= s.Partitions(); p++ {
		if s.Has(p) != m[p] {
			t.Fatalf("%s: Has(%d) = %v, want %v", what, p, s.Has(p), m[p])
		}
	}
}

func random(rng *rand.Rand, partitions int, share float64) (Set, model) {
	s, m := NewSet(partitions), make(model)
	for p := range partitions {
		if rng.Float64() < share {
			s.Add(p)
			m[p] = true
		}
	}
	return s, m
}

func TestSetAgainstAModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, partitions := range []int{1, 2, 63, 64, 65, 127, 128, 129, 509} {
		s, m := NewSet(partitions), make(model)
		if s.Partitions() != partitions {
			t.Fatalf("a set of %d partitions, want %d", s.Partitions(), partitions)
		}
		compare(t, "new", s, m)
		for range 500 {
			p := rng.IntN(partitions+4) - 2 // sometimes out of range: ignored
			inRange := p >= 0 && p < partitions
			switch rng.IntN(3) {
			case 0, 1:
				s.Add(p)
				if inRange {
					m[p] = true
				}
			case 2:
				s.Remove(p)
				delete(m, p)
			}
		}
		compare(t, "after changes", s, m)

		c := s.Clone()
		if !c.Equal(s) || !s.Equal(c) {
			t.Fatalf("a clone is not equal")
		}
		for p := range partitions {
			c.Add(p)
		}
		compare(t, "after its clone changed", s, m)
		if !c.Equal(FullSet(partitions)) || c.Len() != partitions {
			t.Fatalf("%d of %d partitions in a full set", c.Len(), partitions)
		}

		for range 50 { // compare HasPoint with the definition of a partition
			point := rng.Uint64()
			if s.HasPoint(point) != m[PartitionOf(point, partitions)] {
				t.Fatalf("HasPoint(%#x) = %v in a set of %d", point, s.HasPoint(point), partitions)
			}
		}
	}
}

func TestSetEqual(t *testing.T) {
	a, b := NewSet(509), NewSet(509)
	a.Add(508)
	if a.Equal(b) || b.Equal(a) {
		t.Error("sets of one and of no partition are equal")
	}
	b.Add(508)
	if !a.Equal(b) {
		t.Error("the same partitions are not equal")
	}
	c := NewSet(510) // the same number of words
	c.Add(508)
	if a.Equal(c) || c.Equal(a) || NewSet(1).Equal(NewSet(2)) || NewSet(64).Equal(NewSet(65)) || NewSet(1).Equal(Set{}) {
		t.Error("sets under different counts are equal")
	}
	if !(Set{}).Equal(Set{}) {
		t.Error("the zero Set is not equal to itself")
	}
}

func TestSetAllStops(t *testing.T) {
	var seen []int
	for p := range FullSet(200).All() {
		if seen = append(seen, p); len(seen) == 70 {
			break
		}
	}
	if len(seen) != 70 || seen[69] != 69 {
		t.Errorf("seen %v", seen)
	}
}

func TestR4_ZeroSetAndInvalidSizes(t *testing.T) {
	sets := []Set{{}}
	for _, partitions := range []int{0, -1, -64, -1000, math.MinInt, MaxPartitions + 1, math.MaxInt} {
		sets = append(sets, NewSet(partitions), FullSet(partitions))
	}
	for _, s := range sets {
		s.Add(0)
		s.Add(-1)
		s.Remove(0)
		if !s.Empty() || s.Len() != 0 || s.Partitions() != 0 || s.Has(0) || s.HasPoint(0) || s.HasPoint(math.MaxUint64) || s.Encode() != "" {
			t.Errorf("an empty set of no partitions is %+v", s)
		}
		if s.Overlaps(s) || s.Overlaps(FullSet(3)) || FullSet(3).Overlaps(s) || s.OverlapsPartition(0, 1) || s.OverlapsPartition(0, 0) {
			t.Error("an empty set overlaps")
		}
		if !s.Equal(s.Clone()) {
			t.Error("a clone is not equal")
		}
		for p := range s.All() {
			t.Errorf("it has %d", p)
		}
	}
	full := FullSet(509)
	for _, c := range []struct{ partition, partitions int }{{-1, 509}, {509, 509}, {-1, 3}, {3, 3}, {0, 0}, {0, -1}, {math.MinInt, math.MaxInt}, {math.MaxInt, math.MaxInt}} {
		if full.OverlapsPartition(c.partition, c.partitions) {
			t.Errorf("a full set overlaps partition %d of %d", c.partition, c.partitions)
		}
	}
	if !full.OverlapsPartition(math.MaxInt-1, math.MaxInt) {
		t.Error("a full set does not overlap the last partition of very many")
	}
}

// rangesOverlap is the definition of Overlaps: some point lies in a partition of each.
func rangesOverlap(a, b Set) bool {
	for p := range a.All() {
		firstA, lastA := RangeOf(p, a.Partitions())
		for q := range b.All() {
			firstB, lastB := RangeOf(q, b.Partitions())
			if firstA <= lastB && firstB <= lastA {
				return true
			}
		}
	}
	return false
}

func TestR5_OverlapsAgainstBruteForce(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	counts := []int{1, 2, 3, 5, 7, 16, 63, 64, 65, 128, 200}
	overlaps, none := 0, 0
	for _, p := range counts {
		for _, q := range counts {
			for range 20 {
				// Few partitions in both, so that both results occur.
				share := 1.5 / math.Sqrt(float64(max(p, q)))
				a, _ := random(rng, p, share*rng.Float64())
				b, _ := random(rng, q, share*rng.Float64())
				want := rangesOverlap(a, b)
				if want {
					overlaps++
				} else if !a.Empty() && !b.Empty() {
					none++
				}
				if got := a.Overlaps(b); got != want {
					t.Fatalf("%v of %d and %v of %d: Overlaps = %v", slices.Collect(a.All()), p, slices.Collect(b.All()), q, got)
				}
				if got := b.Overlaps(a); got != want {
					t.Fatalf("%v of %d and %v of %d: Overlaps = %v the other way", slices.Collect(a.All()), p, slices.Collect(b.All()), q, got)
				}
			}
		}
	}
	if overlaps < 200 || none < 200 {
		t.Errorf("%d sets overlap and %d do not: too few of one of them", overlaps, none)
	}
}

func TestR5_OverlapsPartitionAgainstBruteForce(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for _, partitions := range []int{1, 3, 64, 100} {
		s, _ := random(rng, partitions, 0.3)
		for _, other := range []int{1, 2, 3, 37, 64, 100, 101, 1000} {
			for p := range other {
				one := NewSet(other)
				one.Add(p)
				if got, want := s.OverlapsPartition(p, other), rangesOverlap(s, one); got != want {
					t.Fatalf("%v of %d and partition %d of %d: %v, want %v", slices.Collect(s.All()), partitions, p, other, got, want)
				}
			}
		}
	}
}

// Adjacent ranges touch but do not overlap, whatever the partition counts.
func TestR5_DisjointHalvesDoNotOverlap(t *testing.T) {
	for _, c := range []struct{ p, q int }{{2, 4}, {2, 1024}, {4, 1020}, {10, 1000}, {2, MaxPartitions}} {
		low, high := NewSet(c.p), NewSet(c.q)
		for i := range c.p / 2 {
			low.Add(i)
		}
		for i := c.q / 2; i < c.q; i++ {
			high.Add(i)
		}
		if low.Overlaps(high) || high.Overlaps(low) {
			t.Errorf("the halves of %d and %d partitions overlap", c.p, c.q)
		}
		high.Add(c.q/2 - 1)
		if !low.Overlaps(high) || !high.Overlaps(low) {
			t.Errorf("more than a half of %d and %d partitions do not overlap", c.p, c.q)
		}
	}
}

func TestEncodeRoundTrips(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for _, partitions := range []int{1, 2, 7, 8, 9, 63, 64, 65, 127, 128, 129, 509, 1021, 4096, MaxPartitions} {
		for _, share := range []float64{0, 0.01, 0.5, 1} {
			s, _ := random(rng, partitions, share)
			text := s.Encode()
			got, err := DecodeSet(text, partitions)
			if err != nil || !got.Equal(s) {
				t.Errorf("%d of %d partitions: %v, %d after encoding", s.Len(), partitions, err, got.Len())
			}
			if again := got.Encode(); again != text {
				t.Errorf("%q was read and written as %q", text, again)
			}
		}
	}
}

func TestEncodeFormat(t *testing.T) {
	s := NewSet(509)
	if n := len(s.Encode()); n != 86 {
		t.Errorf("%d characters for 509 partitions, want 86", n)
	}
	s = NewSet(12)
	for _, p := range []int{0, 1, 9} {
		s.Add(p)
	}
	if got, want := s.Encode(), base64.RawURLEncoding.EncodeToString([]byte{0b11, 0b10}); got != want || got != "AwI" {
		t.Errorf("0, 1 and 9 of 12 are %q, want %q", got, want)
	}
	// The annotations of an object are limited to 256 KiB in total.
	if n := len(FullSet(MaxPartitions).Encode()); n > 11_000 {
		t.Errorf("%d characters for %d partitions", n, MaxPartitions)
	}
}

func TestR4_DecodeSetRejects(t *testing.T) {
	valid := FullSet(12).Encode()
	if _, err := DecodeSet(valid, 12); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text       string
		partitions int
	}{
		"empty":                     {"", 12},
		"too short":                 {valid[:2], 12},
		"too long":                  {valid + "A", 12},
		"padded":                    {valid + "=", 12},
		"another count, larger":     {valid, 17},
		"another count, smaller":    {valid, 8},
		"a bit beyond the last":     {base64.RawURLEncoding.EncodeToString([]byte{0, 1 << 4}), 12},
		"bits beyond, one byte":     {base64.RawURLEncoding.EncodeToString([]byte{0b10}), 1},
		"bits between base64 bytes": {valid[:2] + string(valid[2]+1), 12},
		"standard alphabet":         {"//8", 16},
		"a line break":              {"\n" + valid[:2], 12},
		"line breaks":               {strings.Repeat("\r\n", 43), 509},
		"not base64":                {"???", 12},
		"not ASCII":                 {"\xff\xff\xff", 12},
		"huge":                      {strings.Repeat("A", 1<<20), 12},
		"no partitions":             {"", 0},
		"negative partitions":       {"", -1},
		"most negative":             {"", math.MinInt},
		"too many partitions":       {strings.Repeat("A", (MaxPartitions/8+1)*4/3+1), MaxPartitions + 1},
		"most partitions":           {"", math.MaxInt},
	} {
		s, err := DecodeSet(c.text, c.partitions)
		if err == nil {
			t.Errorf("%s: %d of %d partitions", name, s.Len(), s.Partitions())
			continue
		}
		if !s.Equal(Set{}) {
			t.Errorf("%s: a set in addition to an error", name)
		}
		if !strings.HasPrefix(err.Error(), "partition set: ") || len(err.Error()) > 200 {
			t.Errorf("%s: error of %d characters: %.200s", name, len(err.Error()), err)
		}
	}
}

func TestStateString(t *testing.T) {
	for s, want := range map[State]string{NotOwned: "not_owned", Pending: "pending", Active: "active", 200: "unknown"} {
		if s.String() != want {
			t.Errorf("State %d is %q, want %q", s, s, want)
		}
	}
	if (*new(State)) != NotOwned {
		t.Error("the zero State allows work")
	}
}
