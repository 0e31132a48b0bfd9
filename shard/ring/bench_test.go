// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// movement is the cost of membership changes under some parameters. The values are means
// over the samples unless noted otherwise.
type movement struct {
	ideal    float64 // partitions / members of the larger ring
	moved    float64 // partitions that change their owner
	max      float64 // the same, in the worst sample
	needless float64 // of those, from a member that stays to a member that stays
	fullest  float64 // partitions of the fullest member / average, before the change
}

// samples is how many different members join or leave, or how many Deployments are tried.
const samples = 20

// change returns the members before and after one member has joined or left. n is the
// number of members before.
func change(style string, n, delta, sample int) (before, after []string, ok bool) {
	larger := max(n, n+delta)
	var all []string
	var which int
	switch style {
	case "StatefulSet":
		if which = sample * max(1, larger/samples); which >= larger {
			return nil, nil, false
		}
		all = statefulSet(larger)
	case "Deployment":
		rng := rand.New(rand.NewPCG(uint64(n), uint64(sample)))
		all = deployment(rng, larger)
		which = rng.IntN(larger)
	}
	less := slices.Delete(slices.Clone(all), which, which+1)
	if delta > 0 {
		return less, all, true
	}
	return all, less, true
}

func measure(t testing.TB, p Parameters, style string, n, delta int) movement {
	m := movement{ideal: float64(p.Partitions) / float64(max(n, n+delta))}
	count := 0.0
	for sample := range samples {
		before, after, ok := change(style, n, delta, sample)
		if !ok {
			break
		}
		earlier, later := newRing(t, p, before), newRing(t, p, after)
		moved := float64(later.Relocated(earlier))
		m.moved += moved
		m.max = max(m.max, moved)
		m.needless += moved
		for _, name := range after {
			if !slices.Contains(before, name) {
				m.needless -= float64(later.Owned(name).Len())
			}
		}
		fullest := 0
		for _, name := range before {
			owned := earlier.Owned(name).Len()
			fullest = max(fullest, owned)
			if !slices.Contains(after, name) {
				m.needless -= float64(owned)
			}
		}
		m.fullest += float64(fullest) * float64(n) / float64(p.Partitions)
		count++
	}
	m.moved /= count
	m.needless /= count
	m.fullest /= count
	return m
}

// both returns the mean (and the worst) of StatefulSet and Deployment names.
func both(t testing.TB, p Parameters, n, delta int) movement {
	a, b := measure(t, p, "StatefulSet", n, delta), measure(t, p, "Deployment", n, delta)
	return movement{
		ideal: a.ideal, moved: (a.moved + b.moved) / 2, max: max(a.max, b.max),
		needless: (a.needless + b.needless) / 2, fullest: (a.fullest + b.fullest) / 2,
	}
}

// BenchmarkMovement measures how many partitions change their owner when one member
// joins or leaves a ring of n, compared with the ideal: those of the new member,
// partitions/(n+1), or of the one that left, partitions/n. It reports the default
// parameters as metrics, and prints a table that compares them with others.
func BenchmarkMovement(b *testing.B) {
	for _, style := range []string{"StatefulSet", "Deployment"} {
		for _, n := range []int{3, 10, 50} {
			for _, delta := range []int{1, -1} {
				b.Run(fmt.Sprintf("%s/n=%d/%+d", style, n, delta), func(b *testing.B) {
					p := DefaultParameters()
					m := measure(b, p, style, n, delta)
					before, after, _ := change(style, n, delta, 0)
					earlier := newRing(b, p, before)
					for b.Loop() {
						newRing(b, p, after).Relocated(earlier)
					}
					b.ReportMetric(m.moved, "moved")
					b.ReportMetric(m.moved/m.ideal, "moved/ideal")
					b.ReportMetric(m.max/m.ideal, "max-moved/ideal")
					b.ReportMetric(m.needless/m.ideal, "needless/ideal")
					b.ReportMetric(m.fullest, "fullest/average")
				})
			}
		}
	}

	b.Run("table", func(b *testing.B) {
		// Not b.Log, which truncates its output after ten lines.
		fmt.Printf("\npartitions moved / ideal when one member comes to n (+1) or goes from n (-1): mean, worst,\n"+
			"and the part that moved between members that stay; fullest member / average\n%s", movementTable(b))
		for b.Loop() { // measures nothing
		}
		b.ReportMetric(0, "ns/op") // not shown
	})
}

func movementTable(t testing.TB) string {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "partitions\tvirtual nodes\tload\tn\t+1\tmax\tneedless\t-1\tmax\tneedless\tfullest\t")
	sets := []Parameters{
		DefaultParameters(),
		parameters(509, 100, 1.25),
		parameters(509, 20, 1.5),
		parameters(509, 100, 1.5),
		parameters(509, 20, 2),
		parameters(509, 20, 1000), // no bound: plain consistent hashing
		parameters(1021, 20, 1.25),
		parameters(1021, 100, 1.5),
		parameters(4096, 20, 1.25),
		parameters(4096, 100, 1.25),
		parameters(4096, 100, 1.5),
	}
	if testing.Short() {
		sets = sets[:1]
	}
	for _, p := range sets {
		for _, n := range []int{3, 10, 50} {
			plus, minus := both(t, p, n, 1), both(t, p, n, -1)
			fmt.Fprintf(w, "%d\t%d\t%v\t%d\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t\n", p.Partitions, p.VirtualNodes, p.Load, n,
				plus.moved/plus.ideal, plus.max/plus.ideal, plus.needless/plus.ideal,
				minus.moved/minus.ideal, minus.max/minus.ideal, minus.needless/minus.ideal,
				(plus.fullest+minus.fullest)/2)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return table.String()
}

func BenchmarkNew(b *testing.B) {
	for _, n := range []int{3, 10, 50, 100} {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			members := statefulSet(n)
			for b.Loop() {
				if _, err := New(DefaultParameters(), members); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// sink keeps the compiler from removing the benchmarked calls.
var sink uint64

func BenchmarkPoint(b *testing.B) {
	child := object("default", "example-foo-7f9c6d8b5-x2k4q", "0b5a3f7c-6a0e-4a8b-9d55-27d1c3f0a911", controllerRef(object("default", "example-foo", "6f1d6c0e-9d0c-4c5e-8a39-0f9a57a3c1de")))
	var obj metav1.Object = child
	for _, ringKey := range []Key{ByName, ByNamespace, ByUID} {
		for _, k := range []Key{ringKey, ByController} {
			b.Run(ringKey.Name()+"/"+k.Name(), func(b *testing.B) {
				b.ReportAllocs()
				key, hash := resolve(b, k, ringKey), HashOf(ringKey)
				for b.Loop() {
					sink += key.Point(obj, hash)
				}
			})
		}
	}
	b.Run("PointOfName", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sink += PointOfName(child.Namespace, child.Name)
		}
	})
}

func BenchmarkPartitionOf(b *testing.B) {
	b.ReportAllocs()
	point := uint64(0x9e3779b97f4a7c15)
	for b.Loop() {
		sink += uint64(PartitionOf(point, DefaultPartitions))
		point += 0x9e3779b97f4a7c15
	}
}

func BenchmarkSet(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	s, _ := random(rng, DefaultPartitions, 0.1)
	even, odd := NewSet(DefaultPartitions), NewSet(1021)
	for p := range DefaultPartitions / 2 {
		even.Add(p)
	}
	for p := 1021/2 + 1; p < 1021; p++ {
		odd.Add(p)
	}
	text := s.Encode()
	for _, c := range []struct {
		name string
		f    func()
	}{
		{"HasPoint", func() { s.HasPoint(math.MaxUint64 / 3) }},
		{"All", func() {
			for p := range s.All() {
				sink += uint64(p)
			}
		}},
		{"Overlaps", func() { s.Overlaps(s) }},
		{"OverlapsOtherCount", func() { even.Overlaps(odd) }},
		{"Encode", func() { s.Encode() }},
		{"Decode", func() { _, _ = DecodeSet(text, DefaultPartitions) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.f()
			}
		})
	}
}
