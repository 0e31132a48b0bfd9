// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Report has the findings of a check. Times are those of [Now].
type Report struct {
	Begin int64 `json:"begin"` // the first record
	End   int64 `json:"end"`   // of the run

	Overlaps     []Overlap `json:"overlaps"`     // F1
	ActiveTwice  []Overlap `json:"activeTwice"`  // F2
	TokenDrops   []Drop    `json:"tokenDrops"`   // F3
	Losses       []Loss    `json:"losses"`       // F4
	Gaps         []Gap     `json:"gaps"`         // F5
	VersionDrops []Drop    `json:"versionDrops"` // F6
	Problems     []Problem `json:"problems"`     // F7

	Processes []Summary `json:"processes"`
	// Unowned summarizes the gaps by cause.
	Unowned map[Cause]Durations `json:"unowned"`
	// Handovers counts how often a partition moved to another process, Moves how often
	// a key did.
	Handovers int `json:"handovers"`
	Moves     int `json:"moves"`
	// Reconciles counts all reconciles that started, Failed those that ended with an
	// error.
	Reconciles int `json:"reconciles"`
	Failed     int `json:"failed"`
	// KeysByReconciles maps a number of reconciles to the number of keys that had so
	// many: 1,000 objects that were each reconciled once are {1: 1000}.
	KeysByReconciles map[int]int `json:"keysByReconciles"`
	// ReconcilesByKey counts the reconciles of each key that started.
	ReconcilesByKey map[string]int `json:"-"`
}

// Span is work on a key, or ownership of a partition.
type Span struct {
	Process string `json:"process"`
	Member  string `json:"member"`
	From    int64  `json:"from"`
	To      int64  `json:"to"`
	// Open means that no end was recorded.
	Open    bool   `json:"open,omitempty"`
	Version string `json:"version,omitempty"`
	Token   string `json:"token,omitempty"`
}

// Overlap is a time in which two spans overlap although only one is allowed.
type Overlap struct {
	Subject string `json:"subject"` // a key, or "partition 17"
	// Partition is the partition of the subject, -1 if it is not known.
	Partition int   `json:"partition"`
	From      int64 `json:"from"`
	To        int64 `json:"to"`
	A         Span  `json:"a"`
	B         Span  `json:"b"`
}

// Gap is a time in which a key or a partition had no owner.
type Gap struct {
	Subject string `json:"subject"` // a key, or "partition 17"
	// Partition is the partition of the subject, -1 if it is not known.
	Partition int   `json:"partition"`
	From      int64 `json:"from"`
	To        int64 `json:"to"`
	// Cause is why the previous owner, Before, stopped.
	Cause  Cause  `json:"cause"`
	Before string `json:"before"`
	// After is the next owner. If there was none, the gap is Open and ends at the end
	// of the run.
	After string `json:"after,omitempty"`
	Open  bool   `json:"open,omitempty"`
	// Keys is the number of affected keys, among the keys that were worked on.
	Keys int `json:"keys"`
}

// Duration returns the length of the gap.
func (g Gap) Duration() time.Duration { return time.Duration(g.To - g.From) }

// Use is the use of a token or of a version.
type Use struct {
	Process string `json:"process"`
	Member  string `json:"member"`
	Time    int64  `json:"time"`
	Value   string `json:"value"`
}

// Drop is the use of a lower token or version than was used before.
type Drop struct {
	Key    string `json:"key"`
	Before Use    `json:"before"`
	After  Use    `json:"after"`
}

// Loss is an object whose last version was not worked on.
type Loss struct {
	Key  string `json:"key"`
	Want string `json:"want"`
	// Got is the last version that was worked on without an error; empty if there is none.
	Got string `json:"got,omitempty"`
}

// Problem is an impossible record.
type Problem struct {
	Process string `json:"process"`
	Record  Record `json:"record"`
	What    string `json:"what"`
}

// Summary summarizes what one process did.
type Summary struct {
	Process    string   `json:"process"`
	Members    []string `json:"members"`    // its identities
	Reconciles int      `json:"reconciles"` // started
	Failed     int      `json:"failed"`     // ended with an error
	Unfinished int      `json:"unfinished"` // without an end
	Keys       int      `json:"keys"`       // different ones
	Activated  int      `json:"activated"`  // partitions gained
	Released   int      `json:"released"`   // partitions released
	Owned      int      `json:"owned"`      // partitions at the end, or when it died
	Joins      int      `json:"joins"`
	Fences     int      `json:"fences"`
	Left       bool     `json:"left,omitempty"` // it released everything and did not join again
	Died       bool     `json:"died,omitempty"` // without leaving first
	Torn       bool     `json:"torn,omitempty"` // the last record is incomplete
}

// Durations summarizes gaps. In JSON, durations are in nanoseconds.
type Durations struct {
	Count int           `json:"count"`
	P50   time.Duration `json:"p50"`
	P99   time.Duration `json:"p99"`
	Max   time.Duration `json:"max"`
	// Open is the number of gaps that had not ended at the end of the run.
	Open int `json:"open"`
}

// Err returns an error that counts the findings that must never occur: overlaps, double
// ownership, token drops, losses and problems. It is nil if there are none.
func (r *Report) Err() error {
	var errs []error
	for _, f := range r.faults() {
		if f.count > 0 {
			errs = append(errs, fmt.Errorf("%d × %s, first: %s", f.count, f.name, f.line(0)))
		}
	}
	return errors.Join(errs...)
}

// countKey counts the work on a key.
func (r *Report) countKey(spans []*span) {
	r.Reconciles += len(spans)
	for i, s := range spans {
		if s.failed {
			r.Failed++
		}
		if i > 0 && spans[i-1].process != s.process {
			r.Moves++
		}
	}
}

func (r *Report) summarize() {
	r.KeysByReconciles = map[int]int{}
	for _, n := range r.ReconcilesByKey {
		r.KeysByReconciles[n]++
	}
	byCause := map[Cause][]Gap{}
	for _, g := range r.Gaps {
		byCause[g.Cause] = append(byCause[g.Cause], g)
	}
	r.Unowned = map[Cause]Durations{}
	for cause, gaps := range byCause {
		r.Unowned[cause] = durations(gaps)
	}
}

func durations(gaps []Gap) Durations {
	d := Durations{Count: len(gaps)}
	all := make([]time.Duration, 0, len(gaps))
	for _, g := range gaps {
		all = append(all, g.Duration())
		if g.Open {
			d.Open++
		}
	}
	slices.Sort(all)
	// The smallest value that at least the given percentage of the values do not exceed.
	quantile := func(percent int) time.Duration { return all[(len(all)*percent+99)/100-1] }
	d.P50, d.P99, d.Max = quantile(50), quantile(99), all[len(all)-1]
	return d
}
