// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

import (
	"slices"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/audit"
)

// Report is the result of a check. Times are those of [Now], durations are in nanoseconds.
type Report struct {
	Begin, End int64           // the first record, and the end of the run
	Findings   []audit.Finding // what must never occur, ordered by kind
	// VersionDrops are harmless as long as writes are conditional.
	VersionDrops []audit.Finding
	Gaps         []Gap
	Unowned      map[Cause]Durations // the gaps by their cause

	Processes  []Life
	Handovers  int // how often a partition moved to another process
	Moves      int // how often a key did
	Keys       int // that were worked on
	Reconciles int // that started
	Failed     int // that ended with an error
	// KeysByReconciles maps a number of reconciles to the number of keys that had so many: 1,000 objects that were each
	// reconciled once are {1: 1000}.
	KeysByReconciles map[int]int
}

// Gap is a time in which a partition had no owner.
type Gap struct {
	Subject   string // "partition 17"
	Partition int
	From, To  int64
	Cause     Cause  // why the previous owner, Before, stopped
	Before    string // a process
	// After is the next owner. If there was none, the gap is Open and ends at the end of the run.
	After string
	Open  bool
}

// Duration returns the length of the gap.
func (g Gap) Duration() time.Duration { return time.Duration(g.To - g.From) }

// Durations summarizes gaps.
type Durations struct {
	Count         int
	P50, P99, Max time.Duration
	Open          int // that had not ended at the end of the run
}

// Err returns an error that lists the findings. It is nil if there are none.
func (r *Report) Err() error { return audit.Err(r.Findings) }

func (r *Report) summarize() {
	all := map[Cause][]time.Duration{}
	r.Unowned = map[Cause]Durations{}
	for _, g := range r.Gaps {
		all[g.Cause] = append(all[g.Cause], g.Duration())
		d := r.Unowned[g.Cause]
		if g.Open {
			d.Open++
		}
		r.Unowned[g.Cause] = d
	}
	for cause, gaps := range all {
		slices.Sort(gaps)
		r.Unowned[cause] = Durations{len(gaps), Quantile(gaps, 50), Quantile(gaps, 99), Quantile(gaps, 100), r.Unowned[cause].Open}
	}
}

// Quantile returns the smallest of the sorted times that at least the given percentage of them do
// not exceed; 0 if there are none.
func Quantile(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*percent+99)/100-1]
}

// at formats a time relative to the start of the report.
func (r *Report) at(t int64) string { return duration(r.Begin, t).String() }

func duration(from, to int64) time.Duration { return round(time.Duration(to - from)) }

// round rounds to microseconds below a second, otherwise to milliseconds.
func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Microsecond)
	}
	return d.Round(time.Millisecond)
}
