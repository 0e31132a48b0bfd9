// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// faultRow has the faults on one target.
type faultRow struct {
	Target string
	Height int // in pixels
	Faults []faultBar
}

const (
	faultHeight = 18 // of a line of faults, in pixels
	faultKinds  = 8  // colours in the style sheet
)

// faultBar is drawn from From to To, and its label from From to Room, where the next
// fault of its line starts.
type faultBar struct {
	Name, Label    string
	Kind           int // colour
	From, To, Room number
	Top            int
}

// faultRows returns the faults that affect all processes, and a row for each target. It packs the faults on each target into
// as few lines as possible without overlaps. Faults on processes are grouped by Pod, because one run can have hundreds of
// processes.
func faultRows(faults []Fault, a axis, pods pods) (shades []faultBar, rows []faultRow) {
	kinds := kindsOf(faults)
	byTarget := map[string][]Fault{}
	for _, f := range faults {
		from, to, ok := a.clip(f.From, f.To)
		if !ok {
			continue
		}
		target := f.Target
		if at, ofProcess := pods.by[target]; ofProcess {
			target = pods.list[at].Name
		} else if to > from {
			shades = append(shades, faultBar{From: a.at(from), To: a.at(to), Kind: kinds[f.Name]})
		}
		byTarget[target] = append(byTarget[target], f)
	}
	// Faults that affect everything first, then parts of the control plane, then Pods.
	isPod := func(target string) int {
		if _, ok := pods.by[target]; ok {
			return 1
		}
		return 0
	}
	targets := slices.SortedFunc(maps.Keys(byTarget), func(x, y string) int { return cmp.Or(isPod(x)-isPod(y), compareNames(x, y)) })
	for _, target := range targets {
		row := faultRow{Target: target}
		if target == "" {
			row.Target = "everything"
		}
		row.Faults, row.Height = pack(byTarget[target], kinds, a)
		rows = append(rows, row)
	}
	return shades, rows
}

// kindsOf assigns a colour number to each fault name.
func kindsOf(faults []Fault) map[string]int {
	kinds := map[string]int{}
	for _, f := range faults {
		kinds[f.Name] = 0
	}
	for i, name := range slices.Sorted(maps.Keys(kinds)) {
		kinds[name] = i % faultKinds
	}
	return kinds
}

// pack distributes faults over lines in which they do not overlap. A fault moves to a
// second line to leave room for the label of the fault before it, and to a third one
// only if necessary.
func pack(faults []Fault, kinds map[string]int, a axis) ([]faultBar, int) {
	slices.SortStableFunc(faults, func(x, y Fault) int { return cmp.Compare(x.From, y.From) })
	perPixel := a.width() / assumedWidth
	type line struct {
		end, labelEnd number
		last          int // index of its last bar
	}
	var lines []line
	bars := make([]faultBar, 0, len(faults))
	for _, f := range faults {
		from, to, _ := a.clip(f.From, f.To)
		bar := faultBar{
			Name: f.Name, Label: describe(f, a), Kind: kinds[f.Name],
			From: a.at(from), To: a.at(to), Room: a.width(),
		}
		at := slices.IndexFunc(lines, func(l line) bool { return l.labelEnd <= bar.From })
		if at < 0 && len(lines) >= 2 {
			at = slices.IndexFunc(lines, func(l line) bool { return l.end <= bar.From })
		}
		if at < 0 {
			at = len(lines)
			lines = append(lines, line{last: -1})
		} else if last := lines[at].last; last >= 0 {
			bars[last].Room = bar.From
		}
		bar.Top = at * faultHeight
		lines[at] = line{
			end:      max(bar.To, bar.From+4*perPixel),
			labelEnd: max(bar.To, bar.From+number(len(f.Name)*7+12)*perPixel),
			last:     len(bars),
		}
		bars = append(bars, bar)
	}
	return bars, len(lines) * faultHeight
}

// describe describes a fault in words.
func describe(f Fault, a axis) string {
	text := f.Name
	if f.Target != "" {
		text += " of " + f.Target
	}
	text += " at " + a.since(f.From)
	if f.To > f.From {
		text += " for " + short(time.Duration(f.To-f.From))
	}
	if f.Note != "" {
		text += ": " + f.Note
	}
	return text
}
