// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"fmt"
	"strconv"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/audit"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// listed is how many findings of a kind the page lists.
const listed = 200

type figure struct {
	Name, Value string
	Bad         bool
}

// findings are those of one kind.
type findings struct {
	Kind string
	All  []finding
	More int // number of findings that are not listed
}

type finding struct {
	Text    string
	At      number
	HasTime bool
	Label   string
}

// header fills in the figures and findings of the report.
func (p *page) header(run Run) {
	r, a := run.Report, newAxis(run.Report)
	died, left := 0, 0
	for _, s := range r.Processes {
		switch s.Ended {
		case worklog.Died:
			died++
		case worklog.Left:
			left++
		}
	}
	p.Figures = []figure{
		{Name: "duration", Value: short(time.Duration(r.End - r.Begin))},
		{Name: "processes", Value: fmt.Sprintf("%d (%d died, %d left)", len(r.Processes), died, left)},
		{Name: "faults", Value: strconv.Itoa(len(run.Faults))},
		{Name: "reconciles", Value: fmt.Sprintf("%d (%d failed)", r.Reconciles, r.Failed)},
		{Name: "handovers", Value: fmt.Sprintf("%d of partitions, %d of keys", r.Handovers, r.Moves)},
	}
	for _, kind := range []string{worklog.Overlap, worklog.ActiveTwice, worklog.Loss, worklog.TokenDrop, worklog.Problem} {
		n := audit.Count(r.Findings, kind)
		p.Figures = append(p.Figures, figure{Name: kind, Value: strconv.Itoa(n), Bad: n > 0})
	}
	p.Unowned = r.Unowned
	p.Passed = len(r.Findings) == 0
	p.Verdict = "passed: no findings"
	if !p.Passed {
		p.Verdict = fmt.Sprintf("failed: %d findings", len(r.Findings))
	}
	for _, f := range r.Findings {
		if n := len(p.Findings); n == 0 || p.Findings[n-1].Kind != f.Kind {
			p.Findings = append(p.Findings, findings{Kind: f.Kind})
		}
		kind := &p.Findings[len(p.Findings)-1]
		if len(kind.All) == listed {
			kind.More++
			continue
		}
		one := finding{Text: f.Subject + ": " + f.What}
		if f.From >= a.begin && f.From <= a.end && f.From != 0 {
			one.HasTime, one.At, one.Label = true, a.at(f.From), a.since(f.From)
		}
		kind.All = append(kind.All, one)
	}
}
