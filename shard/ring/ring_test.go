// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// parameters returns the defaults with other partitions, virtual nodes and load.
func parameters(partitions, virtualNodes int, load float64) Parameters {
	p := DefaultParameters()
	p.Partitions, p.VirtualNodes, p.Load = partitions, virtualNodes, load
	return p
}

// statefulSet returns the names op-0 to op-(n-1).
func statefulSet(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("op-%d", i)
	}
	return names
}

// podSuffix is the alphabet of the random parts of the names of a Deployment's Pods.
const podSuffix = "bcdfghjklmnpqrstvwxz2456789"

// deployment returns n names like those of the Pods of a Deployment.
func deployment(rng *rand.Rand, n int) []string {
	random := func(n int) string {
		s := make([]byte, n)
		for i := range s {
			s[i] = podSuffix[rng.IntN(len(podSuffix))]
		}
		return string(s)
	}
	replicaSet := "foo-operator-" + random(10) + "-"
	names := make(map[string]bool)
	for len(names) < n {
		names[replicaSet+random(5)] = true
	}
	sorted := make([]string, 0, n)
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	return sorted
}

// garbage returns n names of up to 40 arbitrary bytes, possibly equal.
func garbage(rng *rand.Rand, n int) []string {
	names := make([]string, n)
	for i := range names {
		b := make([]byte, rng.IntN(41))
		for j := range b {
			b[j] = byte(rng.Uint32())
		}
		names[i] = string(b)
	}
	return names
}

func newRing(t testing.TB, p Parameters, members []string) *Ring {
	t.Helper()
	r, err := New(p, members)
	if err != nil {
		t.Fatalf("New(%s, %d members): %v", p.Fingerprint(), len(members), err)
	}
	return r
}

// owners returns the owner of each partition, for comparison.
func owners(r *Ring) []string {
	all := make([]string, r.Parameters().Partitions)
	for p := range all {
		all[p], _ = r.Owner(p)
	}
	return all
}

// check fails the test if the ring of the given members breaks B2 or B3.
func check(t testing.TB, r *Ring, members []string) {
	t.Helper()
	p := r.Parameters()
	distinct := slices.Compact(slices.Sorted(slices.Values(members)))
	if !slices.Equal(r.Members(), distinct) {
		t.Fatalf("the ring has the members %q, want %q", r.Members(), distinct)
	}
	owned := NewSet(p.Partitions)
	bound := math.Ceil(float64(p.Partitions) / float64(len(distinct)) * p.Load)
	for _, m := range distinct {
		set := r.Owned(m)
		if set.Overlaps(owned) {
			t.Fatalf("%q and another member own the same partition", m)
		}
		if float64(set.Len()) > bound {
			t.Fatalf("%q owns %d of %d partitions, with %d members and load %v it may own %v", m, set.Len(), p.Partitions, len(distinct), p.Load, bound)
		}
		for partition := range set.All() {
			owned.Add(partition)
			if owner, found := r.Owner(partition); !found || owner != m {
				t.Fatalf("Owner(%d) is %q (%v), Owned(%q) has it", partition, owner, found, m)
			}
		}
	}
	if len(distinct) > 0 && owned.Len() != p.Partitions {
		t.Fatalf("%d of %d partitions are owned by %d members", owned.Len(), p.Partitions, len(distinct))
	}
}

func TestR1_OrderOfMembersDoesNotMatter(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		name    string
		members func(n int) []string
	}{
		{"StatefulSet", statefulSet},
		{"Deployment", func(n int) []string { return deployment(rng, n) }},
		{"garbage", func(n int) []string { return garbage(rng, n) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			for n := 1; n <= 50; n += 1 + n/4 {
				members := c.members(n)
				for _, p := range []Parameters{DefaultParameters(), parameters(1+rng.IntN(1000), 1+rng.IntN(40), 1+rng.Float64())} {
					want := newRing(t, p, members)
					check(t, want, members)
					for range 3 {
						shuffled := slices.Clone(members)
						for range rng.IntN(3) { // a duplicate name counts once
							shuffled = append(shuffled, members[rng.IntN(n)])
						}
						rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
						before := slices.Clone(shuffled)
						got := newRing(t, p, shuffled)
						if diff := cmp.Diff(owners(want), owners(got)); diff != "" {
							t.Fatalf("%s: the placement on %q differs from that on %q (-sorted +shuffled):\n%s", p.Fingerprint(), members, shuffled, diff)
						}
						if !slices.Equal(before, shuffled) {
							t.Fatalf("New changed the order of its argument")
						}
					}
				}
			}
		})
	}
}

// In v0.10 of the library the virtual nodes of a member were hashed by its name
// followed by their number, so that op-1's 11th and op-11's 1st had the same place,
// which the member that was added last got. With 12 Pods of a StatefulSet two replicas
// computed different rings for ever.
func TestR1_NamesThatEndInDigits(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	members := statefulSet(50)
	for _, n := range []int{2, 10, 11, 12, 13, 20, 50} {
		want := owners(newRing(t, DefaultParameters(), members[:n]))
		shuffled := slices.Clone(members[:n])
		rng.Shuffle(n, func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if diff := cmp.Diff(want, owners(newRing(t, DefaultParameters(), shuffled))); diff != "" {
			t.Errorf("%d members, listed as %q (-sorted +shuffled):\n%s", n, shuffled, diff)
		}
	}

	places := make(map[uint64]string)
	key := distinctPlaces(0)
	for _, m := range members {
		for i := range 100 {
			k := string(key(m, i))
			if want := fmt.Sprintf("%d:%s", i, m); k != want {
				t.Fatalf("virtual node %d of %s has the key %q, want %q", i, m, k, want)
			}
			place := hasher{}.Sum64([]byte(k))
			if other, found := places[place]; found {
				t.Fatalf("virtual nodes %q and %q share a place", other, k)
			}
			places[place] = k
		}
	}
}

// If this test fails, then the library, the hash or the code that uses them computes another
// placement than released versions, and members of two versions compute different rings:
// change the constant placement (parameters.go).
func TestR1_GoldenPlacement(t *testing.T) {
	pods := []string{
		"foo-operator-6d4b75cb6d-2xkqz", "foo-operator-6d4b75cb6d-7hw9v", "foo-operator-6d4b75cb6d-bm58t",
		"foo-operator-6d4b75cb6d-lqf4c", "foo-operator-6d4b75cb6d-zzr6n",
	}
	for _, c := range []struct {
		name    string
		p       Parameters
		members []string
		want    uint64
	}{
		{"defaults/1", DefaultParameters(), statefulSet(1), 0x9d16e3cc282022af},
		{"defaults/3", DefaultParameters(), statefulSet(3), 0xdb15d63b38212546},
		{"defaults/12", DefaultParameters(), statefulSet(12), 0x557cbb222839f1bf},
		{"defaults/50", DefaultParameters(), statefulSet(50), 0x873d981438c156b6},
		{"defaults/deployment", DefaultParameters(), pods, 0x59a50f08621241d1},
		{"more partitions", parameters(4096, 100, 1.5), statefulSet(10), 0x5454c3ed6e894ddd},
		{"tight", parameters(1021, 7, 1), statefulSet(10), 0x0337a66721dc11de},
		{"colliding names", DefaultParameters(), append(colliding(3), "op-0"), 0xf11e2737fbec79f5},
	} {
		h := fnv.New64a()
		for _, owner := range owners(newRing(t, c.p, c.members)) {
			fmt.Fprintf(h, "%s\n", owner)
		}
		if got := h.Sum64(); got != c.want {
			t.Errorf("%s: the placement hashes to %#016x, want %#016x", c.name, got, c.want)
		}
	}
}

func TestR2_EveryPartitionHasOneOwner(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for _, n := range []int{1, 2, 3, 10, 100} {
		for _, partitions := range []int{1, 2, 63, 64, 65, 509, 4096} {
			for _, members := range [][]string{statefulSet(n), deployment(rng, n), garbage(rng, n)} {
				check(t, newRing(t, parameters(partitions, DefaultVirtualNodes, DefaultLoad), members), members)
			}
		}
	}
}

func TestR2_EmptyRingOwnsNothing(t *testing.T) {
	for _, members := range [][]string{nil, {}} {
		r := newRing(t, DefaultParameters(), members)
		if len(r.Members()) != 0 {
			t.Errorf("members %q", r.Members())
		}
		for _, p := range []int{0, 1, DefaultPartitions - 1} {
			if owner, found := r.Owner(p); found || owner != "" {
				t.Errorf("Owner(%d) = %q, %v", p, owner, found)
			}
		}
		for _, point := range []uint64{0, 1 << 63, math.MaxUint64} {
			if owner, found := r.OwnerOf(point); found || owner != "" {
				t.Errorf("OwnerOf(%#x) = %q, %v", point, owner, found)
			}
		}
		if s := r.Owned("op-0"); !s.Empty() || s.Partitions() != DefaultPartitions {
			t.Errorf("Owned = %d of %d partitions", s.Len(), s.Partitions())
		}
	}
	if owner, found := new(Ring).OwnerOf(1); found {
		t.Errorf("on the zero Ring %q owns a point", owner)
	}
}

func TestR2_OutOfRange(t *testing.T) {
	r := newRing(t, DefaultParameters(), statefulSet(3))
	for _, p := range []int{math.MinInt, -1, DefaultPartitions, math.MaxInt} {
		if owner, found := r.Owner(p); found {
			t.Errorf("Owner(%d) = %q", p, owner)
		}
	}
	if s := r.Owned("op-3"); !s.Empty() || s.Partitions() != DefaultPartitions {
		t.Errorf("a member that is not on the ring owns %d of %d partitions", s.Len(), s.Partitions())
	}
}

func TestR2_OwnerOfAPointIsThatOfItsPartition(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	r := newRing(t, DefaultParameters(), statefulSet(7))
	for range 1000 {
		point := rng.Uint64()
		got, found := r.OwnerOf(point)
		want, _ := r.Owner(PartitionOf(point, DefaultPartitions))
		if !found || got != want {
			t.Fatalf("OwnerOf(%#x) = %q, the owner of partition %d is %q", point, got, PartitionOf(point, DefaultPartitions), want)
		}
		if !r.Owned(got).HasPoint(point) {
			t.Fatalf("Owned(%q) does not contain the point %#x", got, point)
		}
	}
}

func TestR3_LoadBound(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	for range 100 {
		p := parameters(1+rng.IntN(2000), 1+rng.IntN(50), 1+rng.ExpFloat64())
		members := statefulSet(1 + rng.IntN(60))
		check(t, newRing(t, p, members), members)
	}
}

// With a load of exactly 1 there is room for ceil(partitions / members) each.
func TestR3_LoadOfOne(t *testing.T) {
	for _, c := range []struct{ partitions, members int }{{1, 1}, {509, 3}, {512, 8}, {509, 509}, {100, 7}, {65536, 3}} {
		members := statefulSet(c.members)
		r := newRing(t, parameters(c.partitions, DefaultVirtualNodes, 1), members)
		check(t, r, members)
		if c.partitions%c.members == 0 {
			for _, m := range members {
				if got, want := r.Owned(m).Len(), c.partitions/c.members; got != want {
					t.Errorf("%d partitions, %d members: %s owns %d, want %d", c.partitions, c.members, m, got, want)
				}
			}
		}
	}
}

func TestR3_MoreMembersThanPartitions(t *testing.T) {
	for _, c := range []struct{ partitions, members int }{{1, 2}, {1, 100}, {7, 8}, {64, 300}} {
		members := statefulSet(c.members)
		r := newRing(t, parameters(c.partitions, DefaultVirtualNodes, 1), members)
		check(t, r, members) // the bound is 1
	}
}

// There is room for all partitions whenever the load is at least 1:
// members × ceil(partitions / members × load) >= partitions in floating point,
// as the library computes it.
func TestR4_RoundingLeavesRoom(t *testing.T) {
	room := func(partitions, members int, load float64) float64 {
		return float64(members) * math.Ceil(float64(partitions)/float64(members)*load)
	}
	for _, load := range []float64{1, math.Nextafter(1, 2), 1.25, math.MaxFloat64} {
		for partitions := 1; partitions <= MaxPartitions; partitions += 1 + partitions/50 {
			for members := 1; members <= 1<<20; members += 1 + members/20 {
				if r := room(partitions, members, load); r < float64(partitions) || math.IsNaN(r) {
					t.Fatalf("%d members at load %v have room for %v of %d partitions", members, load, r, partitions)
				}
			}
		}
		// The quotients closest above an integer.
		for _, members := range []int{3, 7, 65535, 65536, 1<<20 - 1, 1 << 20} {
			for q := 1; q*members+1 <= MaxPartitions; q++ {
				if r := room(q*members+1, members, load); r < float64(q*members+1) {
					t.Fatalf("%d members at load %v have room for %v of %d partitions", members, load, r, q*members+1)
				}
			}
		}
	}
}

func TestR4_ExtremeParameters(t *testing.T) {
	for _, p := range []Parameters{
		parameters(1, 1, 1),
		parameters(1, MaxVirtualNodes, math.MaxFloat64),
		parameters(MaxPartitions, 1, 1),
		parameters(MaxPartitions, 1, math.MaxFloat64),
		parameters(MaxPartitions, MaxVirtualNodes, math.Nextafter(1, 2)),
	} {
		for _, n := range []int{1, 2, 5} {
			members := statefulSet(n)
			check(t, newRing(t, p, members), members)
		}
	}
	members := statefulSet(1000)
	check(t, newRing(t, parameters(DefaultPartitions, 1, 1), members), members)
}

// colliding returns n names whose virtual nodes of the same number all have the
// same hash, as long as the number has one or two digits. xxh3 mixes each 8 bytes with a
// constant and multiplies them in pairs: the last 8 bytes of these names make one factor
// zero, so that the 8 bytes before do not matter.
func colliding(n int) []string {
	const zeroFactor = "\x72\x40\xa4\xa4\xb7\xb3\x67\x1f"
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("op-0000000000x%07d%s", i, zeroFactor)
	}
	return names
}

// If all places of a member's virtual nodes are occupied, the library drops the member and
// panics because of a lack of room.
func TestR4_CollidingNames(t *testing.T) {
	names := colliding(2)
	for i := range DefaultVirtualNodes {
		a, b := fmt.Sprintf("%d:%s", i, names[0]), fmt.Sprintf("%d:%s", i, names[1])
		if a == b || (hasher{}).Sum64([]byte(a)) != (hasher{}).Sum64([]byte(b)) {
			t.Fatalf("%q and %q do not collide: the test tests nothing", a, b)
		}
	}
	for _, n := range []int{2, 3, 10} {
		for _, virtualNodes := range []int{1, DefaultVirtualNodes, 100} {
			for _, load := range []float64{1, DefaultLoad, 100} {
				members := append(colliding(n), "op-0", "op-1")
				r := newRing(t, parameters(DefaultPartitions, virtualNodes, load), members)
				check(t, r, members)
				slices.Reverse(members)
				if diff := cmp.Diff(owners(r), owners(newRing(t, r.Parameters(), members))); diff != "" {
					t.Errorf("colliding names in another order (-sorted +reversed):\n%s", diff)
				}
			}
		}
	}
}

func TestR4_OddNames(t *testing.T) {
	members := []string{"", " ", "\x00", "\xff\xfe", "0:", "0:op-1", ":", "+", "++", strings.Repeat("x", 1<<16), "op-1", "op-1+"}
	check(t, newRing(t, DefaultParameters(), members), members)
}

func TestR4_InvalidParametersAreAnError(t *testing.T) {
	for _, p := range []Parameters{{}, parameters(0, 20, 1.25), parameters(509, 0, 1.25), parameters(509, 20, 0.99)} {
		if r, err := New(p, statefulSet(3)); err == nil || r != nil {
			t.Errorf("New(%+v) = %v, %v", p, r, err)
		}
	}
}

func TestRelocated(t *testing.T) {
	p := DefaultParameters()
	three, four, none := newRing(t, p, statefulSet(3)), newRing(t, p, statefulSet(4)), newRing(t, p, nil)
	moved := 0
	for partition := range p.Partitions {
		before, _ := three.Owner(partition)
		after, _ := four.Owner(partition)
		if before != after {
			moved++
		}
	}
	if gained := four.Owned("op-3").Len(); moved < gained {
		t.Fatalf("%d partitions moved, the new member owns %d", moved, gained)
	}
	q := p
	q.Partitions = 1021
	other := newRing(t, q, statefulSet(3))
	for _, c := range []struct {
		name           string
		later, earlier *Ring
		want           int
	}{
		{"a member joins", four, three, moved},
		{"a member leaves", three, four, moved},
		{"the same", three, newRing(t, p, []string{"op-2", "op-0", "op-1"}), 0},
		{"all members replaced", three, newRing(t, p, []string{"a", "b", "c"}), p.Partitions},
		{"from nothing", three, none, 0},
		{"to nothing", none, three, 0},
		{"no ring before", three, nil, 0},
		{"another count of partitions", other, three, 1021},
	} {
		if got := c.later.Relocated(c.earlier); got != c.want {
			t.Errorf("%s: %d partitions relocated, want %d", c.name, got, c.want)
		}
	}
}

func TestRingIsImmutable(t *testing.T) {
	r := newRing(t, DefaultParameters(), statefulSet(3))
	r.Members()[0] = "changed"
	owned := r.Owned("op-0")
	for p := range owned.Partitions() {
		owned.Remove(p)
	}
	if diff := cmp.Diff(statefulSet(3), r.Members()); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	check(t, r, statefulSet(3))
}
