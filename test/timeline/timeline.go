// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package timeline draws what replica processes have recorded: which process owned
// which partition at which time, and which faults were active then. The chart is one
// self-contained HTML file. It needs no network, and can be read without its script.
// docs/chaos.md describes how to read it.
//
// # Guarantees
//
//   - D1: The same input produces the same bytes. The package reads no clock.
//   - D2: Each span of ownership is in the chart, in the rows of its partitions, and no rectangle has a negative width.
//   - D3: Each time with two owners is in the chart.
//   - D4: The output is well-formed XML, whatever characters the names contain.
//
// # What is not guaranteed
//
// Times are rounded to microseconds. The chart shows only what package worklog concludes;
// its documentation lists what it cannot see.
package timeline

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/audit"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// Run is the run to draw. Times are those of worklog.Now.
type Run struct {
	Title  string
	Report *worklog.Report // required
	Faults []Fault
	// Partitions is the number of partitions. 0: as many as were owned.
	Partitions int
}

// Fault is a fault that was injected into the run.
type Fault struct {
	// Name is its kind, for example "SIGSTOP" or "outage".
	Name string
	// Target is the name of a process, or of another target, for example
	// "kube-apiserver" or "etcd"; empty for everything.
	Target string
	// From and To are its start and end.
	From, To int64
	// Note is additional text that is shown with the fault.
	Note string
}

var (
	//go:embed page.html
	pageText string
	//go:embed style.css
	styleText string
	//go:embed script.js
	scriptText string

	pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{"short": short, "count": audit.Count, "ended": ended}).Parse(pageText))
)

// Write draws a run.
func Write(w io.Writer, run Run) error {
	if run.Report == nil {
		return errors.New("draw a run: it has no report")
	}
	p := draw(run)
	var b bytes.Buffer // so that a failure does not write an incomplete page
	if err := pageTemplate.Execute(&b, p); err != nil {
		return fmt.Errorf("draw a run: %w", err)
	}
	_, err := w.Write(bytes.Map(xmlRune, b.Bytes()))
	return err
}

// xmlRune replaces characters that XML does not allow, not even escaped.
func xmlRune(r rune) rune {
	switch {
	case r == '\t', r == '\n', r == '\r', r >= ' ' && r != 0xfffe && r != 0xffff:
		return r
	}
	return '\ufffd'
}

// page is what the template shows.
type page struct {
	Title         string
	Style, Script template.HTML // whole elements: the template engine would take their CDATA marks away
	Report        *worklog.Report
	Duration      time.Duration
	Faults        int
	Kinds         []string // of findings
	Findings      []findings
	Legend        []pod
	Colours       int
	Ticks         []tick
	Shades        []faultBar
	FaultRows     []faultRow
	Ownership     ownership
	Lanes         []lane
	Width         number // of the time drawn, in milliseconds
	PatternScale  string // how much wider than high a unit of the charts is
}

func draw(run Run) page {
	a := newAxis(run.Report)
	pods := podsOf(run.Report.Processes)
	p := page{
		Title: run.Title, Report: run.Report, Duration: time.Duration(run.Report.End - run.Report.Begin), Faults: len(run.Faults),
		Kinds:    []string{worklog.Overlap, worklog.ActiveTwice, worklog.Loss, worklog.TokenDrop, worklog.Problem},
		Findings: findingsOf(run.Report, a),
		// The marks keep the file well-formed XML and mean nothing to HTML.
		Style:        template.HTML("<style>/*<![CDATA[*/\n" + styleText + "/*]]>*/</style>"),  //nolint:gosec // constants
		Script:       template.HTML("<script>//<![CDATA[\n" + scriptText + "//]]>\n</script>"), //nolint:gosec // constants
		Legend:       pods.list,
		Colours:      colours,
		Ticks:        a.ticks(),
		Width:        a.width(),
		PatternScale: number(a.width() / assumedWidth).String(),
	}
	p.Shades, p.FaultRows = faultRows(run.Faults, a, pods)
	p.Ownership = drawOwnership(run, a, pods)
	p.Lanes = drawLanes(run.Report.Processes, a, pods)
	return p
}

// ended counts the processes that ended in a way.
func ended(r *worklog.Report, how worklog.Cause) (n int) {
	for _, p := range r.Processes {
		if p.Ended == how {
			n++
		}
	}
	return n
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

func findingsOf(r *worklog.Report, a axis) (all []findings) {
	const listed = 200 // of each kind
	for _, f := range r.Findings {
		if n := len(all); n == 0 || all[n-1].Kind != f.Kind {
			all = append(all, findings{Kind: f.Kind})
		}
		kind := &all[len(all)-1]
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
	return all
}

// assumedWidth is the assumed width of the charts in pixels, where it must be estimated:
// for the angle of hatching, and for the space that a label has.
const assumedWidth = 1400

// axis converts times into positions: milliseconds after the start of the drawn time.
type axis struct{ begin, end int64 }

func newAxis(r *worklog.Report) axis {
	return axis{r.Begin, max(r.End, r.Begin+int64(time.Microsecond))} // not empty: avoids a division by zero
}

// number is written with at most three decimals: microseconds, as the unit is a millisecond.
type number float64

func (n number) String() string {
	s := fmt.Sprintf("%.3f", float64(n))
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

func (a axis) width() number { return a.at(a.end) }

// at returns the position of a time, which may be outside the drawn time.
func (a axis) at(t int64) number {
	return number((t-a.begin)/int64(time.Microsecond)) / 1000
}

// clip limits a time span to the drawn time. ok is false if nothing is left of it; a
// moment inside stays.
func (a axis) clip(from, to int64) (int64, int64, bool) {
	if to < a.begin || from > a.end {
		return 0, 0, false
	}
	from = max(from, a.begin)
	return from, max(from, min(to, a.end)), true
}

// tick is a line of the time axis.
type tick struct {
	At    number
	Label string
}

// ticks returns at most 13 ticks at round times.
func (a axis) ticks() (all []tick) {
	span := time.Duration(a.end - a.begin)
	step := time.Microsecond
	for _, s := range []time.Duration{2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7, 2e7, 3e7, 6e7, 12e7, 3e8, 6e8, 18e8, 36e8} {
		if span/step <= 12 {
			break
		}
		step = s * time.Microsecond
	}
	for span/step > 12 {
		step *= 2
	}
	for t := a.begin; t <= a.end; t += int64(step) {
		all = append(all, tick{a.at(t), a.since(t)})
	}
	return all
}

// since formats a time relative to the start of the run.
func (a axis) since(t int64) string { return short(time.Duration(t - a.begin)) }

// short formats a duration, rounded for readers.
func short(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d%time.Minute == 0:
		return strings.TrimSuffix(d.String(), "0s")
	case d.Abs() < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d.Abs() < time.Second:
		return d.Round(10 * time.Microsecond).String()
	default:
		return d.Round(time.Millisecond).String()
	}
}
