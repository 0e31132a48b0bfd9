// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/audit/etcdlog"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// Result is the result of a run.
type Result struct {
	Options    Options
	Injections []*Injection
	Faulty     time.Duration // how long faults were injected
	Settled    time.Duration // from their end until the replicas converged
	Changes    int           // of objects, by the load
	Stalls     time.Duration // how long the machine, and with it this process, was stalled
	Exits      int           // processes that exited on their own
	Records    *worklog.Report
	History    etcdlog.Result
	// Evictions counts the evictions in the history of etcd, LeaseWrites all versions of
	// all Leases.
	Evictions   int
	LeaseWrites int
	// Breaches are the violations found. A run without breaches has passed.
	Breaches []Breach

	Counted map[string]float64 // see counters
}

// Breach is a violation of a check.
type Breach struct {
	Check string // "V1" to "V6"
	What  string
}

// Err returns an error that names all breaches; nil if there are none.
func (r *Result) Err() error {
	var errs []error
	for _, b := range r.Breaches {
		errs = append(errs, fmt.Errorf("%s: %s", b.Check, b.What))
	}
	return errors.Join(errs...)
}

func (r *Result) breach(check, format string, args ...any) {
	r.Breaches = append(r.Breaches, Breach{check, fmt.Sprintf(format, args...)})
}

// judge finds the breaches.
func (r *Result) judge() {
	c := r.Records
	for _, f := range c.Findings {
		check := "V1" // overlaps, partitions that were active twice, impossible records
		switch f.Kind {
		case worklog.TokenDrop:
			check = "V2"
		case worklog.Loss:
			check = "V3"
		}
		r.breach(check, "%s", f)
	}
	for _, g := range c.Gaps {
		// Three concurrent faults may hit one owner after the other, and the machine may be
		// busy as well.
		limit := 4*r.Options.LeaseDuration + longestDrain + 15*time.Second + 2*r.Stalls
		if slices.ContainsFunc(r.faultsOn(g), func(i *Injection) bool { return i.Target == servers || i.Target == wholeFleet }) {
			limit += r.Options.Outage + 15*time.Second
		}
		switch {
		case g.Open:
			r.breach("V4", "%s has no owner at the end of the run, for %v so far, after %s of %s", g.Subject, g.Duration().Round(time.Millisecond), g.Cause, g.Before)
		case g.Duration() > limit:
			r.breach("V4", "%s had no owner for %v, after %s of %s", g.Subject, g.Duration().Round(time.Millisecond), g.Cause, g.Before)
		}
	}
	for _, f := range r.History.Findings {
		r.breach("V5", "%s", f)
	}
	r.judgeEmptiness()
}

// judgeEmptiness is V6. A run with only some kinds of faults serves to examine these,
// and does not have to exercise everything.
func (r *Result) judgeEmptiness() {
	injected := r.injected()
	for _, name := range r.Options.Kinds {
		if injected[name] == 0 {
			r.breach("V6", "%q was never injected", name)
		}
	}
	if len(r.Options.Kinds) < len(kinds) {
		return
	}
	for _, e := range r.Exercised() {
		if e.N < e.least {
			r.breach("V6", "%d %s; a run needs at least %d to count", e.N, e.What, e.least)
		}
	}
}

// injected returns how often each kind of fault was injected.
func (r *Result) injected() map[string]int {
	n := map[string]int{}
	for _, i := range r.Injections {
		if !i.Failed {
			n[i.Kind]++
		}
	}
	return n
}

const contested = "contested claims"

// counters are those of the processes' own metrics that show what a run has exercised, and
// how much of it a run needs.
var counters = []struct {
	what, metric string
	labels       []string
	least        int
}{
	{"refused evictions", "sharding_evictions_total", []string{`outcome="conflict"`}, 1},
	{contested, "sharding_claims_contested_total", nil, 1},
	{"fence trips", "sharding_fence_trips_total", nil, 8},
	{"Lease write conflicts", "sharding_lease_conflicts_total", nil, 1},
}

// exercise is something that must have happened in a run.
type exercise struct {
	What     string
	N, least int
}

// Exercised returns what V6 counts.
func (r *Result) Exercised() []exercise {
	all := []exercise{{"partition handovers", r.Records.Handovers, 300}, {"evictions", r.Evictions, 8}}
	for _, c := range counters {
		all = append(all, exercise{c.what, int(r.Counted[c.what]), c.least})
	}
	return all
}
