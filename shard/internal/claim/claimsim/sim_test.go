// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claimsim

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

// sim is one simulated fleet: real machines in simulated processes, with a simulated API
// server, network and clocks. It is driven by one queue of events in virtual time and one
// seeded source of randomness, and has no goroutine, so every run of a seed is the same.
type sim struct {
	seed          uint64
	rand          *rand.Rand
	now           time.Duration // virtual time since the beginning
	queue         timeline
	trace         func(format string, args ...any) // nil: no trace
	timing        timing
	drift         float64 // the largest difference in the rates of clocks
	profile       profile
	server        *server
	procs         []*process // the live ones, in order of their start
	born          int
	points        []uint64 // of the hash space, on which work is checked
	tokens        []lastToken
	objects       []object // by point
	writes        []write  // to any of them, in order
	counts        counts
	formed        int                                     // handovers before the first fault
	faultsCleared bool                                    // the faults are over
	closed        time.Duration                           // until when no process may start; see replaceByForce
	waiting       int                                     // processes that wait for that
	fighters      map[string]fighter                      // by Lease: clients that write it after each write of its member
	rested        time.Duration                           // how long it took to come to rest after the faults
	without       string                                  // the active mutant of the machine's caller, if any
	spans         []span                                  // the faults that took effect, in order
	onList        func(by *process, leases []claim.Lease) // is called when a process's list is carried out, if it is not nil
	failure       error
}

// The mutants of the caller of a machine, in the code of the simulation.
const (
	worksOnAfterPause = "works on after a pause without a check of the fence"
	deadlineOfALease  = "has a renew deadline as long as the lease"
)

// timing is the configuration of all members, and the stop grace period on which the lease
// duration depends.
type timing struct {
	duration, deadline, period, watchLag, drainGrace, drain, coalesce, settle, grace time.Duration
}

// drift is the largest difference in the rates of clocks that the timing tolerates.
func (t timing) drift() float64 {
	return float64(t.duration-t.deadline-t.grace) / float64(t.duration+t.deadline+t.grace)
}

// scaled returns the timing with the durations of the protocol scaled.
func (t timing) scaled(by float64) timing {
	s := t
	for _, d := range []*time.Duration{&s.duration, &s.deadline, &s.period, &s.watchLag, &s.drain, &s.grace} {
		*d = time.Duration(float64(*d) * by)
	}
	return s
}

// counts counts what happened, so that an empty run can be distinguished from a good one.
type counts struct {
	Events, Steps, Requests                 int
	Handovers, Activations, Contested       int
	Evictions, EvictionsRefused, FenceTrips int
	Zombies, Relists, Faults, Rejoins       int
	Restores, Deletions, Replacements       int
	CacheWaits, CacheWaitsGivenUp           int
	MassDeaths, Refused                     int // Refused: by a rate limiter
	Rejected, ConfirmedByRead               int // requests that the server did not carry out; writes (R40)
	Renewals, Changes, Lists                int // writes that change nothing, writes that do, and lists
	Fights, Kept                            int // writes of other clients after a member's, and writes that kept them
}

func (t *counts) add(o counts) {
	t.Events += o.Events
	t.Steps += o.Steps
	t.Requests += o.Requests
	t.Handovers += o.Handovers
	t.Activations += o.Activations
	t.Contested += o.Contested
	t.Evictions += o.Evictions
	t.EvictionsRefused += o.EvictionsRefused
	t.FenceTrips += o.FenceTrips
	t.Zombies += o.Zombies
	t.Relists += o.Relists
	t.Faults += o.Faults
	t.Rejoins += o.Rejoins
	t.Restores += o.Restores
	t.CacheWaits += o.CacheWaits
	t.CacheWaitsGivenUp += o.CacheWaitsGivenUp
	t.Deletions += o.Deletions
	t.Replacements += o.Replacements
	t.MassDeaths += o.MassDeaths
	t.Refused += o.Refused
	t.Rejected += o.Rejected
	t.ConfirmedByRead += o.ConfirmedByRead
	t.Renewals += o.Renewals
	t.Changes += o.Changes
	t.Lists += o.Lists
	t.Fights += o.Fights
	t.Kept += o.Kept
}

// newSim chooses a fleet and the faults that it will suffer at random.
func newSim(seed uint64) *sim {
	w := emptySim(seed)
	switch x := w.rand.Float64(); {
	case x < 0.15:
		w.timing = w.timing.scaled(0.5)
	case x < 0.3:
		w.timing = w.timing.scaled(1.5)
	}
	w.profile = drawProfile(w.rand)
	w.profile.trip = time.Duration(float64(w.profile.trip) * float64(w.timing.deadline) / float64(9*time.Second))
	w.profile.insistOn(pairOfSeed(seed), w.rand)
	if w.chance(0.5) {
		w.timing.drainGrace = w.between(500*time.Millisecond, 5*time.Second)
	}
	return w
}

// emptySim returns a simulation without processes and without faults.
func emptySim(seed uint64) *sim {
	w := &sim{seed: seed, rand: rand.New(rand.NewPCG(seed, 0x5eed)), without: *withoutFlag}
	w.timing = timing{
		duration: 15 * time.Second, deadline: 9 * time.Second, period: 3 * time.Second, watchLag: 6 * time.Second,
		drain: 30 * time.Second, grace: 2 * time.Second,
		coalesce: w.between(20*time.Millisecond, 100*time.Millisecond), settle: w.between(0, 500*time.Millisecond),
	}
	w.drift = w.timing.drift()
	if w.without == deadlineOfALease {
		w.timing.deadline = w.timing.duration
	}
	w.server = newServer(w)
	for range 24 {
		w.points = append(w.points, w.rand.Uint64())
	}
	w.tokens = make([]lastToken, len(w.points))
	w.objects = make([]object, len(w.points))
	return w
}

// simulate runs one seed to its end and returns what was wrong with it.
func (w *sim) simulate() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("at %v: panic: %v\n%s", w.now, r, debug.Stack())
		}
	}()
	w.logf("profile %+v", w.profile)
	w.populate()
	w.noteConditions()
	w.scheduleFaults()
	w.run(w.profile.length)
	w.checkNothingStopped()
	w.clearFaults()
	w.settle()
	w.checkNothingMoved()
	for _, p := range w.procs {
		p.retire()
	}
	return w.failure
}

// settle continues the run without faults until the fleet has come to rest, and fails if it
// does not.
func (w *sim) settle() {
	bound := w.promised()
	start := w.now
	// A member whose own name is on such a Lease counts for other Leases only when it has replaced it (R25).
	unknown := time.Duration(2 * float64(claim.MaxLeaseDuration) / (1 - w.drift))
	until, latest := start+bound, start+bound+unknown
	restless := fmt.Errorf("not checked")
	for w.failure == nil && restless != nil && w.now < min(until, latest) {
		if w.unknownDuration() {
			until = w.now + bound
		}
		w.run(w.now + time.Second)
		restless = w.atRest()
	}
	if w.failure == nil && restless != nil {
		w.fail("L1: %v after the last fault: %v", w.now-start, restless)
		return
	}
	w.rested = w.now - start
	w.logf("at rest %v after the last fault", w.rested)
	// It must stay at rest.
	w.run(w.now + 2*w.timing.duration)
	if w.failure == nil {
		if err := w.atRest(); err != nil {
			w.fail("L1: it did not stay at rest: %v", err)
		}
	}
}

// promised is the time within which the fleet must come to rest after the last fault (L1), with
// any number of members: for work that is stuck, a drain timeout and a lease duration on a slow
// clock, and a restart; otherwise the time after a crash, two relists of a lagging watch, and a
// restart.
func (w *sim) promised() time.Duration {
	t := w.timing
	requests := 24 * w.profile.trip // of a restart and a handover, one after the other
	if w.profile.slowWork > 0 || w.profile.limited {
		return max(75*time.Second, 5*t.duration) + requests
	}
	return time.Duration(float64(t.duration+2*time.Second+2*(t.watchLag+t.period))/(1-w.drift)) + 11*time.Second + requests
}

// unknownDuration reports whether members may have to wait for the longest duration, because
// the holder of an edited Lease is dead, and they have never seen what it declared (R46).
func (w *sim) unknownDuration() bool {
	for _, l := range w.server.list() {
		if l.Record.Edited && !w.isHeldByLiving(l) || l.Record.Longest == claim.MaxLeaseDuration {
			return true
		}
	}
	return false
}

// run carries out what happens until the given time.
func (w *sim) run(until time.Duration) {
	for w.failure == nil && w.queue.due(until) {
		e := w.queue.pop()
		w.now = e.at
		w.counts.Events++
		e.do()
	}
	w.now = max(w.now, until)
}

// after schedules an event. Of two events at the same time, the one that was scheduled first
// happens first.
func (w *sim) after(d time.Duration, do func()) {
	w.queue.push(w.now+max(d, 0), do)
}

// fail records the first violation; the run ends with it.
func (w *sim) fail(format string, args ...any) {
	if w.failure == nil {
		w.failure = fmt.Errorf("at %v: %w", w.now, fmt.Errorf(format, args...))
		w.logf("VIOLATION %v", w.failure)
	}
}

func (w *sim) logf(format string, args ...any) {
	if w.trace != nil {
		w.trace("%10.4f  "+format, append([]any{w.now.Seconds()}, args...)...)
	}
}

// chance is true with the given probability.
func (w *sim) chance(p float64) bool { return p > 0 && w.rand.Float64() < p }

// between returns a random duration, uniformly distributed.
func (w *sim) between(low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + time.Duration(w.rand.Int64N(int64(high-low)))
}

// some returns a random process for which the condition holds, nil if there is none.
func (w *sim) some(condition func(*process) bool) *process {
	var fit []*process
	for _, p := range w.procs {
		if condition(p) {
			fit = append(fit, p)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	return fit[w.rand.IntN(len(fit))]
}

// find returns the first of the processes for which the condition holds, nil if there is none.
func (w *sim) find(condition func(*process) bool) *process {
	for _, p := range w.procs {
		if condition(p) {
			return p
		}
	}
	return nil
}

func (w *sim) remove(p *process) {
	w.procs = slices.DeleteFunc(w.procs, func(q *process) bool { return q == p })
}
