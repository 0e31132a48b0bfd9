// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"time"
)

// summary has the figures of the demo.
type summary struct {
	objects int
	steps   []outcome
	members []memberView // before they were stopped for good
	unowned int          // objects without an owner at that time
	verdict verdict
}

// outcome is a step and its result.
type outcome struct {
	name string
	result
	// moves is set for steps in which objects change their owner.
	moves bool
	// atMost is the guaranteed maximum time without an owner; zero if there is none.
	atMost time.Duration
}

// broken returns the guarantees that were violated.
func (s summary) broken() []string {
	var b []string
	if n := len(s.verdict.overlaps); n > 0 {
		b = append(b, "two members worked on one object at the same time: "+plural(n, "time"))
	}
	if n := len(s.verdict.forgotten); n > 0 {
		b = append(b, plural(n, "object")+" not processed at the last version")
	}
	if n := s.unowned; n > 0 {
		b = append(b, plural(n, "object")+" without an owner at the end")
	}
	if n := len(s.verdict.faults); n > 0 {
		b = append(b, plural(n, "other violation")+" in the records")
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
		judged(look, len(s.verdict.overlaps), "objects that two members worked on at the same time"),
		judged(look, len(s.verdict.forgotten), "objects not processed at their last version"),
		judged(look, s.unowned, "objects without an owner at the end"),
	)
	if n := len(s.verdict.faults); n > 0 {
		lines = append(lines, judged(look, n, "other violations in the records"))
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
