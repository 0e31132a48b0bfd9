// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tom-ludwig/operator-scaling/test/audit"
)

// TestAgainstEachMillisecond generates small random runs and checks them a second time,
// millisecond by millisecond.
func TestAgainstEachMillisecond(t *testing.T) {
	const length, processes = 40, 4
	overlapping, gapped := 0, 0
	for seed := range uint64(5000) {
		random := rand.New(rand.NewPCG(seed, 0))
		var script strings.Builder
		var work [][2]int // half-open, in milliseconds
		var owners [length]int
		first := length
		for p := range processes {
			at := 1
			for range random.IntN(3) {
				from := at + random.IntN(6)
				to := from + 1 + random.IntN(6)
				at = to + 1
				fmt.Fprintf(&script, "%c %d activate p=1\n%c %d start x\n%c %d end x\n%c %d release p=1\n",
					'A'+p, from, 'A'+p, from, 'A'+p, to, 'A'+p, to)
				work = append(work, [2]int{from, to})
				first = min(first, from)
				for i := from; i < to; i++ {
					owners[i]++
				}
			}
		}
		if len(work) == 0 {
			continue
		}
		fmt.Fprintf(&script, "Z %d join\n", length)

		// Each piece of work that overlaps an earlier one must be found. Of those that
		// start together, any may count as the earlier one.
		wantOverlaps := 0
		for i, a := range work {
			for j, b := range work {
				earlier := b[0] < a[0] || b[0] == a[0] && j < i
				if earlier && a[0] < b[1] {
					wantOverlaps++
					break
				}
			}
		}
		wantTwice, wantUnowned := 0, 0
		for i := first; i < length; i++ {
			if owners[i] > 1 {
				wantTwice++
			}
			if owners[i] == 0 {
				wantUnowned++
			}
		}

		r := Check(parse(t, script.String()), Options{})
		overlaps, twice := audit.Count(r.Findings, Overlap), audit.Count(r.Findings, ActiveTwice)
		if overlaps != wantOverlaps || twice != wantOverlaps {
			t.Fatalf("seed %d: %d overlaps of work, %d of ownership, want %d\n%s", seed, overlaps, twice, wantOverlaps, &script)
		}
		if (wantTwice > 0) != (twice > 0) {
			t.Fatalf("seed %d: %d ms with two owners, %d overlaps\n%s", seed, wantTwice, twice, &script)
		}
		unowned := 0
		for _, g := range r.Gaps {
			unowned += int(g.Duration().Milliseconds())
		}
		if unowned != wantUnowned {
			t.Fatalf("seed %d: %d ms of gaps, want %d\n%s", seed, unowned, wantUnowned, &script)
		}
		overlapping += min(1, wantOverlaps)
		gapped += min(1, wantUnowned)
	}
	if overlapping < 1000 || gapped < 1000 {
		t.Errorf("only %d runs had overlaps and %d had gaps: too few to prove much", overlapping, gapped)
	}
}

func BenchmarkCheck(b *testing.B) {
	var processes []Process
	var script strings.Builder
	for p := range 5 {
		for i := range 20000 {
			fmt.Fprintf(&script, "%c %d start k%d rv=%d\n%c %d end k%d\n", 'A'+p, 2*i+1, i%1000, i, 'A'+p, 2*i+2, i%1000)
		}
	}
	processes = parse(b, script.String())
	b.ReportAllocs()
	for b.Loop() {
		Check(processes, Options{})
	}
}
