// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"
)

// view is everything that is shown at one moment. It is a copy that does not change.
type view struct {
	title   string
	elapsed time.Duration
	members []row
	unowned int
	now     headline
}

// row is one member.
type row struct {
	name       string
	phase      phase
	owned      int // objects
	reconciles int
	rate       float64 // reconciles per second
}

// headline describes the current step. With atMost, a bar shows the time that has passed.
type headline struct {
	text, detail   string
	passed, atMost time.Duration
}

// memberStyles distinguish members. None of them is red, because red marks missing owners.
var memberStyles = []style{"36", "33", "35", "32", "94", "96", "93", "95"}

func memberStyle(m int) style { return memberStyles[m%len(memberStyles)] }

// plain summarizes the view in one line.
func (v view) plain() string {
	rate, owned := 0.0, ""
	for _, m := range v.members {
		rate += m.rate
		if m.phase.gone() {
			owned += " " + string(m.phase)
		} else {
			owned += fmt.Sprintf(" %d", m.owned)
		}
	}
	return fmt.Sprintf("%s   owned%s, without an owner %d, %.0f reconciles/s", clock(v.elapsed), owned, v.unowned, rate)
}

// table draws the view for a terminal.
func (v view) table(width int) []string {
	total := max(1, v.unowned)
	for _, m := range v.members {
		total += m.owned
	}
	room := max(0, width-55) // for the bars
	bar := func(s style, n int) string {
		full := min(room, (2*n*room+total-1)/total) // a member that owns half of the objects has a full bar
		return paint(s, strings.Repeat("█", full)) + strings.Repeat(" ", room-full)
	}
	lines := []string{
		"",
		paint(strong, fmt.Sprintf("%-*s%s", max(0, width-5), v.title, clock(v.elapsed))),
		paint(faint, fmt.Sprintf("%-16s %-9s%*s  objects  reconciles   /s", "member", "state", room, "")),
	}
	for i, m := range v.members {
		name, state, rate := memberStyle(i), warn, fmt.Sprintf("  %3.0f", m.rate)
		switch m.phase {
		case active:
			state = normal
		case stopped:
			name, state, rate = faint, faint, ""
		case killed:
			name, state, rate = faint, bad, ""
		}
		lines = append(lines, paint(name, fmt.Sprintf("%-16.16s ", m.name))+paint(state, fmt.Sprintf("%-9s", m.phase))+
			bar(memberStyle(i), m.owned)+fmt.Sprintf("  %7d  %10d", m.owned, m.reconciles)+paint(faint, rate))
	}
	s := faint
	if v.unowned > 0 {
		s = bad
	}
	h := v.now
	lines = append(lines, paint(s, fmt.Sprintf("%-26s", "without an owner"))+bar(bad, v.unowned)+paint(s, fmt.Sprintf("  %7d", v.unowned)),
		"", paint(strong, "▶ "+h.text), "  "+h.detail)
	if h.atMost > 0 {
		after := fmt.Sprintf(" %4.1f s of at most %.0f s", h.passed.Seconds(), h.atMost.Seconds())
		room := max(0, width-2-len(after))
		full := min(room, int(float64(room)*h.passed.Seconds()/h.atMost.Seconds()))
		lines = append(lines, "  "+paint(warn, strings.Repeat("━", full))+paint(faint, strings.Repeat("─", room-full))+after)
	}
	return append(lines, "", paint(faint, "Press Ctrl-C to end the demo and clean up"))
}
