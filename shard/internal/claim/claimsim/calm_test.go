// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claimsim

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// calmSim returns a fleet of n members at rest, without faults, with requests of 0.4 to 8 ms
// and nothing in flight when a partition is to be drained.
func calmSim(t *testing.T, seed uint64, n int) *sim {
	t.Helper()
	w := emptySim(seed)
	w.profile = profile{kind: "calm", members: n, most: 2 * n, idle: 1, lag: 3 * time.Millisecond, parameters: ring.DefaultParameters()}
	w.profile.next = w.profile.parameters
	w.timing.coalesce, w.timing.settle = 50*time.Millisecond, 300*time.Millisecond
	w.faultsCleared = true
	w.populate()
	w.run(30 * time.Second)
	w.mustRest(t)
	return w
}

func (w *sim) mustRest(t *testing.T) {
	t.Helper()
	if w.failure != nil {
		t.Fatalf("seed %d: %v", w.seed, w.failure)
	}
	if err := w.atRest(); err != nil {
		t.Fatalf("seed %d: not at rest: %v", w.seed, err)
	}
}

// unowned continues the run for the given time. It returns the time without a worker of
// each point that had none for some time.
func (w *sim) unowned(d time.Duration) []time.Duration {
	gaps := make([]time.Duration, len(w.points))
	const step = time.Millisecond
	for end := w.now + d; w.now < end && w.failure == nil; {
		w.run(w.now + step)
		var worked uint64
		for _, p := range w.procs {
			worked |= p.work.doing()
		}
		for free := ^worked & (1<<len(w.points) - 1); free != 0; free &= free - 1 {
			gaps[bits.TrailingZeros64(free)] += step
		}
	}
	gaps = slices.DeleteFunc(gaps, func(g time.Duration) bool { return g == 0 })
	slices.Sort(gaps)
	return gaps
}

// owners returns the owner of each point on the ring of one member.
func (w *sim) owners() []string {
	owners := make([]string, len(w.points))
	for i, point := range w.points {
		owners[i], _ = w.procs[0].machine.View().OwnerOf(point)
	}
	return owners
}

// changes are the changes that can happen to a fleet.
var changes = []struct {
	name  string
	do    func(*sim)
	bound time.Duration // on the time that a point has no worker
}{
	{"join", func(w *sim) { w.startFresh() }, 250 * time.Millisecond},
	{"graceful stop", func(w *sim) { w.procs[len(w.procs)/2].terminate() }, 250 * time.Millisecond},
	{"crash", func(w *sim) { w.procs[len(w.procs)/2].die("is killed") }, 17 * time.Second},
	{"container restart", func(w *sim) {
		p := w.procs[len(w.procs)/2]
		p.die("is killed")
		w.after(500*time.Millisecond, func() { w.start(p.name, p.podUID, true) })
	}, 17 * time.Second},
	{"stuck work", func(w *sim) {
		p := w.procs[0]
		for i := range p.work.until {
			if p.work.active&(1<<i) != 0 {
				p.work.until[i] = forever
			}
		}
		p.terminate()
	}, 45 * time.Second},
}

// TestL1_TimeUnowned measures how long a point has no worker, and the cost of a change:
// about two writes and one list for each member, whatever the number of objects.
func TestL1_TimeUnowned(t *testing.T) {
	var table strings.Builder
	fmt.Fprintf(&table, "\n%-18s %8s %8s %14s %14s %14s\n", "change", "members", "moved", "unowned p50", "unowned max", "cost/member")
	for _, change := range changes {
		for _, n := range []int{2, 3, 10} {
			var gaps []time.Duration
			moved, members := 0, 0
			var cost counts
			const runs = 3
			for seed := range uint64(runs) {
				w := calmSim(t, seed+1, n)
				// In addition to what the fleet does anyway.
				before := w.counts
				members += len(w.procs)
				owners, tokens := w.owners(), slices.Clone(w.tokens)
				change.do(w)
				gaps = append(gaps, w.unowned(change.bound+10*time.Second)...)
				w.run(w.now + 20*time.Second)
				w.mustRest(t)
				for i, owner := range w.owners() {
					// C6: a partition that has the same owner as before was never given up.
					if owner == owners[i] && w.tokens[i] != tokens[i] && change.name != "container restart" {
						t.Errorf("%s of %d members: point %d, which stays at %s, was claimed anew", change.name, n, i, owner)
					}
				}
				moved += w.counts.Handovers - before.Handovers
				cost.Changes += w.counts.Changes - before.Changes
				cost.Lists += w.counts.Lists - before.Lists
			}
			slices.Sort(gaps)
			longest := gaps[len(gaps)-1]
			fmt.Fprintf(&table, "%-18s %8d %8.1f %14v %14v   %.1f w %.1f l\n", change.name, n, float64(moved)/runs, gaps[len(gaps)/2], longest,
				float64(cost.Changes)/float64(members), float64(cost.Lists)/float64(members))
			if longest > change.bound {
				t.Errorf("%s of %d members: a point had no worker for %v, more than %v", change.name, n, longest, change.bound)
			}
			if writes, lists := float64(cost.Changes)/float64(members), float64(cost.Lists)/float64(members); change.name != "stuck work" && n > 2 && (writes > 3.5 || lists > 1.8) {
				t.Errorf("%s of %d members cost %.1f writes and %.1f lists for each", change.name, n, writes, lists)
			}
		}
	}
	t.Log(table.String())
}

// TestL1_StopOfTheOnlyMember: no process and no Lease is left.
func TestL1_StopOfTheOnlyMember(t *testing.T) {
	w := calmSim(t, 1, 1)
	before := w.counts
	w.procs[0].terminate()
	w.run(w.now + 100*time.Millisecond)
	if len(w.procs) > 0 || w.server.Len() > 0 {
		t.Errorf("%d processes and %d Leases are left", len(w.procs), w.server.Len())
	}
	if got := w.counts.Changes - before.Changes + w.counts.Renewals - before.Renewals; got > 2 {
		t.Errorf("the stop cost %d writes", got)
	}
}

// TestAQuietFleetOnlyRenews: a quiet fleet sends no writes except renewals, and no lists.
func TestAQuietFleetOnlyRenews(t *testing.T) {
	w := calmSim(t, 1, 5)
	before := w.counts
	w.run(w.now + 5*time.Minute)
	if w.counts.Changes > before.Changes || w.counts.Lists > before.Lists || w.counts.Activations > before.Activations {
		t.Errorf("the counts before are %+v, after %+v", before, w.counts)
	}
	renewals := w.counts.Renewals - before.Renewals
	if want := 5 * 100; renewals < want || renewals > want*12/10 {
		t.Errorf("%d renewals in five minutes instead of about %d", renewals, want)
	}
}

// TestR42_AFightCostsOneMoreWritePerRenewPeriod: another client writes each Lease after each write
// of its member.
func TestR42_AFightCostsOneMoreWritePerRenewPeriod(t *testing.T) {
	for does, writes := range map[fightKind]int{restores: 1, stamps: 1, breaks: 2} {
		w := calmSim(t, 1, 5)
		before := w.counts
		for _, p := range w.procs {
			w.startFighter(p.lease, does, 5*time.Minute)
		}
		w.run(w.now + 5*time.Minute)
		if w.failure != nil {
			t.Fatal(w.failure)
		}
		got := w.counts.Renewals - before.Renewals + w.counts.Changes - before.Changes
		if most := 5 * 100 * writes * 12 / 10; got > most {
			t.Errorf("%d: %d writes, want at most %d", does, got, most)
		}
		if requests := w.counts.Requests - before.Requests; requests > got*5/4 {
			t.Errorf("%d: %d requests for %d writes", does, requests, got)
		}
		if least := 5; w.counts.Fights-before.Fights < least {
			t.Errorf("%d: only %d writes of others", does, w.counts.Fights-before.Fights)
		}
		w.run(w.now + 10*time.Second)
		w.mustRest(t)
	}
}

// TestR39_MembersThatStopTogetherLeaveNothingBehind: there is no garbage collector.
func TestR39_MembersThatStopTogetherLeaveNothingBehind(t *testing.T) {
	for seed := range uint64(20) {
		w := calmSim(t, seed+1, 4)
		for _, p := range w.procs {
			w.after(w.between(0, 5*time.Millisecond), p.terminate)
		}
		w.run(w.now + time.Second)
		if len(w.procs) > 0 || w.server.Len() > 0 {
			t.Errorf("seed %d: %d processes and %d Leases are left", seed+1, len(w.procs), w.server.Len())
		}
	}
}
