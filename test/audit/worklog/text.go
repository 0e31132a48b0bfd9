// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// shown is how many findings of a kind the text lists.
const shown = 10

// WriteJSON writes the whole report.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteText writes the report as tables, with the first findings of each kind.
func (r *Report) WriteText(w io.Writer) error {
	var b bytes.Buffer // its writes never fail, so there is only one error to check
	fmt.Fprintf(&b, "%s: %d processes, %d keys, %d reconciles (%d failed)\n",
		round(time.Duration(r.End-r.Begin)), len(r.Processes), len(r.ReconcilesByKey), r.Reconciles, r.Failed)
	fmt.Fprintf(&b, "handovers: %d of partitions, %d of keys\n", r.Handovers, r.Moves)
	fmt.Fprintf(&b, "reconciles per key: %s\n", r.histogram())

	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nPROCESS\tRECONCILES\tFAILED\tKEYS\tGAINED\tRELEASED\tOWNED\tFENCED\tEND")
	for _, p := range r.Processes {
		end := "running"
		switch {
		case p.Died:
			end = "died"
		case p.Left:
			end = "left"
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", p.Process, p.Reconciles, p.Failed, p.Keys, p.Activated, p.Released, p.Owned, p.Fences, end)
	}

	if len(r.Unowned) > 0 {
		fmt.Fprintln(t, "\nUNOWNED AFTER\tCOUNT\tP50\tP99\tMAX\tTO THE END")
		for _, cause := range slices.Sorted(maps.Keys(r.Unowned)) {
			d := r.Unowned[cause]
			fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%d\n", cause, d.Count, round(d.P50), round(d.P99), round(d.Max), d.Open)
		}
	}
	_ = t.Flush()

	fmt.Fprintln(&b)
	for _, f := range append(r.faults(), r.oddities()...) {
		fmt.Fprintf(&b, "%6d  %s\n", f.count, f.name)
		for i := range min(f.count, shown) {
			fmt.Fprintf(&b, "        %s\n", f.line(i))
		}
		if f.count > shown {
			fmt.Fprintf(&b, "        and %d more\n", f.count-shown)
		}
	}
	fmt.Fprintf(&b, "%6d  times without an owner\n", len(r.Gaps))
	_, err := w.Write(b.Bytes())
	return err
}

// finding is a kind of finding, to be listed.
type finding struct {
	name  string
	count int
	line  func(i int) string
	time  func(i int) int64 // nil: it has no time
}

// Finding is one of the findings that must never occur.
type Finding struct {
	Kind string
	Text string
	// Time is when it started; 0 if it has no time, as for a loss.
	Time int64
}

// Findings lists the findings that [Report.Err] counts, grouped by kind.
func (r *Report) Findings() []Finding {
	var all []Finding
	for _, f := range r.faults() {
		for i := range f.count {
			one := Finding{Kind: f.name, Text: f.line(i)}
			if f.time != nil {
				one.Time = f.time(i)
			}
			all = append(all, one)
		}
	}
	return all
}

// faults returns the findings that must never occur.
func (r *Report) faults() []finding {
	overlap := func(o Overlap) string {
		return fmt.Sprintf("%s, for %s at %s: %s, %s", o.Subject, round(time.Duration(o.To-o.From)), r.at(o.From), r.span(o.A), r.span(o.B))
	}
	return []finding{
		{
			"overlapping work", len(r.Overlaps),
			func(i int) string { return overlap(r.Overlaps[i]) }, func(i int) int64 { return r.Overlaps[i].From },
		},
		{
			"partition active on two members", len(r.ActiveTwice),
			func(i int) string { return overlap(r.ActiveTwice[i]) }, func(i int) int64 { return r.ActiveTwice[i].From },
		},
		{
			"token decreased", len(r.TokenDrops),
			func(i int) string { return r.drop(r.TokenDrops[i]) }, func(i int) int64 { return r.TokenDrops[i].After.Time },
		},
		{"last version not processed", len(r.Losses), func(i int) string {
			l := r.Losses[i]
			if l.Got == "" {
				return fmt.Sprintf("%s: no replica finished processing it", l.Key)
			}
			return fmt.Sprintf("%s: is at version %s, last processed at version %s", l.Key, l.Want, l.Got)
		}, nil},
		{"impossible record", len(r.Problems), func(i int) string {
			p := r.Problems[i]
			return fmt.Sprintf("%s at %s: %s %s %s", p.Process, r.at(p.Record.Time), p.Record.Event, p.Record.Key, p.What)
		}, func(i int) int64 { return r.Problems[i].Record.Time }},
	}
}

// oddities returns findings that the text lists and that are not necessarily faults.
func (r *Report) oddities() []finding {
	return []finding{
		{"version decreased", len(r.VersionDrops), func(i int) string { return r.drop(r.VersionDrops[i]) }, nil},
	}
}

func (r *Report) drop(d Drop) string {
	return fmt.Sprintf("%s: %s at %s by %s, then %s at %s by %s", d.Key,
		d.Before.Value, r.at(d.Before.Time), d.Before.Process, d.After.Value, r.at(d.After.Time), d.After.Process)
}

func (r *Report) span(s Span) string {
	to := "to " + r.at(s.To)
	if s.Open {
		to = "without a recorded end"
	}
	return fmt.Sprintf("%s from %s %s", s.Process, r.at(s.From), to)
}

// at formats a time relative to the start of the report.
func (r *Report) at(t int64) string { return round(time.Duration(t - r.Begin)).String() }

func (r *Report) histogram() string {
	var parts []string
	for _, n := range slices.Sorted(maps.Keys(r.KeysByReconciles)) {
		if len(parts) == shown {
			parts = append(parts, "…")
			break
		}
		parts = append(parts, fmt.Sprintf("%d on %d keys", n, r.KeysByReconciles[n]))
	}
	return strings.Join(parts, ", ")
}

// round rounds to microseconds below a second, otherwise to milliseconds.
func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Microsecond)
	}
	return d.Round(time.Millisecond)
}
