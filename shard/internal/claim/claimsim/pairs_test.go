// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claimsim

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// pair is two kinds of faults, in alphabetical order. They may be the same.
type pair [2]string

func pairOf(a, b string) pair { return pair{min(a, b), max(a, b)} }

// kinds has the names of all faults and conditions.
var kinds = func() (names []string) {
	for _, f := range slices.Concat(everyFault, rareFaults) {
		names = append(names, f.name)
	}
	return append(names, conditions...)
}()

// conditions last for the whole run. In some runs there are none.
var conditions = []string{"drift", "late watch", "limiter", "mixed durations", "slow cache", "slow work"}

func isCondition(kind string) bool { return slices.Contains(conditions, kind) }

// faultOf returns the fault with a name; the zero value if that is a condition.
func faultOf(name string) fault {
	for _, f := range slices.Concat(everyFault, rareFaults) {
		if f.name == name {
			return f
		}
	}
	return fault{}
}

// allPairs has each pair of the kinds of faults, which include the conditions.
var allPairs = func() (all []pair) {
	for i, a := range kinds {
		for _, b := range kinds[i:] {
			if p := pairOf(a, b); !p.isCondition() {
				all = append(all, p)
			}
		}
	}
	return all
}()

// isCondition reports whether the pair is a condition and itself.
func (p pair) isCondition() bool { return p[0] == p[1] && isCondition(p[0]) }

// pairOfSeed is the pair that a seed injects before its other faults.
func pairOfSeed(seed uint64) pair { return allPairs[seed%uint64(len(allPairs))] }

// span is the time in which a fault of one kind has an effect.
type span struct {
	kind     string
	from, to time.Duration
}

// note records that a fault takes effect now, for a while.
func (w *sim) note(kind string, d time.Duration) {
	if w.faultsCleared {
		return
	}
	w.spans = append(w.spans, span{kind, w.now, w.now + d})
}

// pairs returns the pairs that overlapped, or followed each other within one lease duration.
func (w *sim) pairs() map[pair]bool {
	met := map[pair]bool{}
	for i, a := range w.spans {
		for _, b := range w.spans[:i] { // b began first
			if a.from <= b.to+w.timing.duration {
				met[pairOf(a.kind, b.kind)] = true
			}
		}
	}
	return met
}

// noteConditions records what is the case in the whole run.
func (w *sim) noteConditions() {
	p := &w.profile
	for kind, is := range map[string]bool{
		"drift": p.drift, "late watch": p.lag > 100*time.Millisecond, "limiter": p.limited, "mixed durations": p.otherPace > 0,
		"slow cache": p.slowCaches > 0, "slow work": p.slowWork > 0,
	} {
		if is {
			w.note(kind, p.length)
		}
	}
}

// disturbed reports whether another fault, or a condition that makes members slow, had an effect
// at the given time or later. A rate limiter is no such condition: its effect is known.
func (w *sim) disturbed(since time.Duration) bool {
	return slices.ContainsFunc(w.spans, func(s span) bool {
		return s.kind != "limiter" && s.kind != "slow cache" && s.to+w.timing.duration >= since && s != span{"mass death", since, since}
	})
}

// insist injects the pair of the seed until both faults have taken effect close to each other.
func (w *sim) insist() {
	if w.faultsCleared || w.pairs()[w.profile.pair] {
		return
	}
	a, b := w.profile.pair[0], w.profile.pair[1]
	if w.chance(0.5) {
		a, b = b, a
	}
	wait := time.Duration(0)
	for _, kind := range []string{a, b} {
		w.after(wait, func() {
			if f := faultOf(kind); f.do != nil && !w.faultsCleared {
				w.counts.Faults++
				f.do(w)
			}
		})
		wait = w.between(0, w.timing.duration/2)
	}
	w.after(wait+w.between(0, w.timing.duration/2), w.insist)
}

// coverage counts the seeds in which each pair of faults met.
type coverage map[pair]*struct {
	seeds int
	first uint64 // the lowest of them
}

func (c coverage) add(seed uint64, met map[pair]bool) {
	for p := range met {
		switch {
		case p.isCondition():
			continue
		case !slices.Contains(allPairs, p):
			panic(fmt.Sprintf("%q is not in the list of kinds", p))
		}
		if c[p] == nil {
			c[p] = &struct {
				seeds int
				first uint64
			}{0, seed}
		}
		c[p].seeds++
		c[p].first = min(c[p].first, seed)
	}
}

// enoughForPairs is a number of seeds in which each pair must meet.
const enoughForPairs = 10_000

// report logs how many pairs met, and fails a run with enough seeds in which one did not.
func (c coverage) report(t *testing.T, from uint64, seeds int) {
	t.Helper()
	var missing []pair
	last, rarest := uint64(0), allPairs[0]
	for _, p := range allPairs {
		if c[p] == nil {
			missing = append(missing, p)
			continue
		}
		last = max(last, c[p].first)
		if c[rarest] != nil && c[p].seeds < c[rarest].seeds {
			rarest = p
		}
	}
	t.Logf("pairs of faults: %d of %d met, the last of them first in seed %d", len(allPairs)-len(missing), len(allPairs), last)
	switch {
	case len(missing) == 0:
		t.Logf("the rarest is %q, in %d seeds", rarest, c[rarest].seeds)
	case seeds >= enoughForPairs:
		t.Errorf("%d pairs of faults did not meet in %d seeds from %d: %q", len(missing), seeds, from, missing)
	default:
		t.Logf("missing, among others: %q", missing[:min(len(missing), 10)])
	}
}
