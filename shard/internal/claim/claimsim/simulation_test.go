// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claimsim

import (
	"flag"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	seedsFlag = flag.Int("seeds", defaultSeeds, "how many seeds TestSimulation runs")
	seedFlag  = flag.Uint64("seed", 0, "the one seed that TestSimulation runs, with a trace under -v; 0 for many")
	fromFlag  = flag.Uint64("from", 1, "the first of the seeds that TestSimulation runs")
	firstFlag = flag.Bool("stop-at-first", false, "let TestSimulation stop at the first seed that fails")

	withoutFlag = flag.String("without", "", "a mutant of the machine's caller; see TestMutants of package claim")
)

// TestSimulation runs fleets of real machines through seeded faults. It checks after each step
// that at most one process works on a point, and at the end that every partition is active at
// its owner. For a failing seed it prints how to replay it.
func TestSimulation(t *testing.T) {
	if *seedFlag != 0 {
		w := newSim(*seedFlag)
		if testing.Verbose() {
			w.trace = t.Logf
		}
		if err := w.simulate(); err != nil {
			t.Errorf("seed %d: %v", *seedFlag, err)
		}
		t.Logf("%+v; pairs of faults: %d, with the pair of the seed %q: %v", w.counts, len(w.pairs()), w.profile.pair, w.pairs()[w.profile.pair])
		return
	}
	seeds := *seedsFlag
	stopAfter := 0
	if *firstFlag {
		stopAfter = 1
	}
	total, met, failed := runSeeds(*fromFlag, seeds, stopAfter)
	t.Logf("%d seeds: %+v", seeds, total)
	for i, f := range failed {
		if i == 3 {
			t.Errorf("and %d more", len(failed)-i)
			break
		}
		t.Errorf("seed %d: %v\nreplay: go test ./shard/internal/claim/claimsim -run TestSimulation -seed=%d -v\n%s", f.seed, f.err, f.seed, lastLines(f.seed, 40))
	}
	if !*firstFlag {
		checkNotEmpty(t, total, seeds)
		met.report(t, *fromFlag, seeds)
	}
}

// checkNotEmpty fails a run in which too little happened to prove anything.
func checkNotEmpty(t *testing.T, total counts, seeds int) {
	t.Helper()
	for _, c := range []struct {
		what           string
		count, perSeed int // per 100 seeds
	}{
		{"handovers", total.Handovers, 2000},
		{"evictions", total.Evictions, 100},
		{"refused evictions", total.EvictionsRefused, 8},
		{"contested claims", total.Contested, 30},
		{"fence trips", total.FenceTrips, 200},
		{"requests that arrived after the client gave up", total.Zombies, 80},
		{"restores of the database", total.Restores, 4},
		{"waits for a cache", total.CacheWaits, 100},
		{"waits for a cache that were given up", total.CacheWaitsGivenUp, 10},
		{"Leases deleted by hand", total.Deletions, 8},
		{"Leases deleted while a process of the same name waits", total.Replacements, 10},
		{"times that most members died at once", total.MassDeaths, 1},
		{"writes that a read confirmed", total.ConfirmedByRead, 200},
		{"requests that were certainly refused", total.Rejected, 300},
		{"writes of other clients that fight with a member", total.Fights, 150},
		{"writes that kept what others put on a Lease", total.Kept, 200},
	} {
		if least := c.perSeed * seeds / 100; c.count < least {
			t.Errorf("only %d %s in %d seeds; at least %d are needed for the run to count", c.count, c.what, seeds, least)
		}
	}
}

type failedSeed struct {
	seed uint64
	err  error
}

// runSeeds runs seeds on all processors, one simulation on each. It stops early after the
// given number of failures, if that is not 0.
func runSeeds(from uint64, seeds, stopAfter int) (total counts, met coverage, failed []failedSeed) {
	met = coverage{}
	var next atomic.Uint64
	var lock sync.Mutex
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for {
				n := next.Add(1) - 1
				lock.Lock()
				stop := n >= uint64(seeds) || stopAfter > 0 && len(failed) >= stopAfter
				lock.Unlock()
				if stop {
					return
				}
				w := newSim(from + n)
				err := w.simulate()
				lock.Lock()
				total.add(w.counts)
				met.add(from+n, w.pairs())
				if err != nil {
					failed = append(failed, failedSeed{from + n, err})
				}
				lock.Unlock()
			}
		})
	}
	workers.Wait()
	return total, met, failed
}

// lastLines runs a seed again and returns the end of its trace.
func lastLines(seed uint64, n int) string {
	var lines []string
	w := newSim(seed)
	w.trace = func(format string, args ...any) {
		lines = append(lines, fmt.Sprintf(format, args...))
		if len(lines) > 4*n {
			lines = append(lines[:0], lines[len(lines)-n:]...)
		}
	}
	_ = w.simulate()
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
