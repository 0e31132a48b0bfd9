// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"time"
)

// summary is what the demo has shown, in figures.
type summary struct {
	objects int
	steps   []outcome
	members []memberView // as they were before they were stopped for good
	unowned int          // objects without an owner then
	verdict verdict
}

// outcome is a step and what it came to.
type outcome struct {
	name string
	result
	// moves is set for the steps that give objects another owner.
	moves bool
	// atMost is the time without an owner that is promised; zero if none is.
	atMost time.Duration
}

// broken names the promises that do not hold; none if all do.
func (s summary) broken() []string {
	var b []string
	if n := len(s.verdict.overlaps); n > 0 {
		b = append(b, plural(n, "time")+" two members worked on one object at once")
	}
	if n := len(s.verdict.forgotten); n > 0 {
		b = append(b, plural(n, "object")+" whose last version nobody worked on")
	}
	if n := s.unowned; n > 0 {
		b = append(b, plural(n, "object")+" without an owner at the end")
	}
	if n := len(s.verdict.faults); n > 0 {
		b = append(b, plural(n, "fault")+" in the records")
	}
	return b
}

// table returns the summary as lines of at most 80 columns.
func (s summary) table(look look) []line {
	rule := text(faint, "%s", strings.Repeat(look.Or("─", "-"), 79))
	lines := []line{
		nil,
		text(strong, "%s, %s, %s", plural(s.objects, "object"), plural(len(s.members), "replica"), plural(s.verdict.reconciles, "reconcile")),
		rule,
		text(faint, "%-22s %9s %7s %7s   %s", "", "settled", "objects", "", "time without an owner"),
		text(faint, "%-22s %9s %7s %7s   %9s  %9s", "what happened", "after", "moved", "ideal", "median", "longest"),
	}
	for _, o := range s.steps {
		l := text(normal, "%-22s %9s", o.name, seconds(o.took))
		if o.moves {
			l = l.and(normal, " %7d %7d   %9s", o.moved, o.ideal, seconds(o.median))
			style := normal
			if o.atMost > 0 && o.longest > o.atMost {
				style = warn
			}
			l = l.and(style, "  %9s", seconds(o.longest))
			if o.atMost > 0 {
				l = l.and(faint, "  %s %.0f s", look.Or("≤", "<"), o.atMost.Seconds())
			}
		}
		lines = append(lines, l)
	}
	lines = append(lines, rule, text(faint, "%-22s %9s %7s %10s", "replica", "", "objects", "reconciles"))
	for i, m := range s.members {
		lines = append(lines, text(memberStyle(i), "%-22s", m.name).and(faint, " %9s", m.phase).and(normal, " %7d %10d", m.owned, s.verdict.by[i]))
	}
	lines = append(lines, rule,
		judged(look, len(s.verdict.overlaps), "objects worked on by two members at once"),
		judged(look, len(s.verdict.forgotten), "objects whose last version nobody worked on"),
		judged(look, s.unowned, "objects without an owner at the end"),
	)
	if n := len(s.verdict.faults); n > 0 {
		lines = append(lines, judged(look, n, "other faults in the records"))
	}
	for _, examples := range [][]string{s.verdict.overlaps, s.verdict.forgotten, s.verdict.faults} {
		for _, e := range examples[:min(3, len(examples))] {
			lines = append(lines, text(bad, "  %s", e))
		}
	}
	return append(lines, rule)
}

// judged is a line with a number that must be 0.
func judged(look look, n int, what string) line {
	if n == 0 {
		return text(good, "%s", look.Or("✔", "+")).and(normal, " %7d  %s", n, what)
	}
	return text(bad, "%s %7d  %s", look.Or("✘", "x"), n, what)
}
