// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/cmd/demo/terminal"
)

// flashTime is how long an object is highlighted after work on it.
const flashTime = 350 * time.Millisecond

// view is everything that is shown at one moment. It is a copy that does not change.
type view struct {
	title   string
	elapsed time.Duration
	members []memberView
	unowned int
	cells   []cell // one for each object
	now     headline
	log     []event
}

// memberView is one member.
type memberView struct {
	name       string
	phase      phase
	owned      int
	reconciles int
	rate       float64
}

// cell is one object on the map.
type cell struct {
	owner int // index of a member, or noOwner
	fresh bool
}

// headline describes the current step.
type headline struct {
	text, detail string
	// since and atMost define a bar that shows the elapsed time. Zero: no bar.
	since  time.Time
	atMost time.Duration
	passed time.Duration // set by the view
}

// event is a line of the log.
type event struct {
	at   time.Duration
	mark mark
	text string
}

// mark is the type of an event.
type mark int

const (
	info mark = iota
	done
	slow
	failed
)

func (e event) line(look look) line {
	l := text(faint, "%s ", terminal.Clock(e.at))
	switch e.mark {
	case done:
		l = l.and(good, "%s ", look.Or("✔", "+"))
	case slow:
		l = l.and(warn, "! ")
	case failed:
		l = l.and(bad, "%s ", look.Or("✘", "x"))
	default:
		l = l.and(faint, "%s ", look.Or("·", "-"))
	}
	return l.and(normal, "%s", e.text)
}

// eventsKept is how many events are shown before the object map gets space.
const eventsKept = 4

// frame draws a view with the given size. On a small terminal, it omits the oldest events
// first, then the end of the map.
func (v view) frame(width, height int, look look) []line {
	head := v.header(width, look)
	headline := v.headline(width, look)
	foot := text(faint, "Press Ctrl-C to end the demo and clean up")

	room := max(0, height-len(head)-len(headline)-1)
	objects := v.objectMap(width, room-min(eventsKept, len(v.log)), look)
	log := v.log[max(0, len(v.log)-max(0, room-len(objects))):]

	var lines []line
	lines = append(lines, head...)
	lines = append(lines, objects...)
	lines = append(lines, headline...)
	for _, e := range log {
		lines = append(lines, e.line(look))
	}
	for len(lines) < height-1 {
		lines = append(lines, nil)
	}
	lines = append(lines[:max(0, height-1)], foot)
	for i := range lines {
		lines[i] = lines[i].cut(width)
	}
	return lines
}

// header is the table of members.
func (v view) header(width int, look look) []line {
	passed := terminal.Clock(v.elapsed)
	lines := []line{
		text(strong, "%s", v.title).cut(width-len(passed)-1).pad(width-len(passed)).and(strong, "%s", passed),
		nil,
		text(faint, "%-16s %-9s", "member", "state").pad(max(0, width-29)).and(faint, "%s", "objects  reconciles   /s"),
	}
	most := 1
	for _, m := range v.members {
		most = max(most, m.owned)
	}
	most = max(most, v.unowned, v.total()*4/10) // so that the scale of the bars is constant most of the time
	bar := func(n int, s style) line {
		room := max(0, width-29-26)
		full := min(room, (n*room+most-1)/most)
		return text(s, "%s", strings.Repeat(look.Or("█", "#"), full)).pad(room)
	}
	for i, m := range v.members {
		name, state := memberStyle(i), normal
		switch {
		case m.phase == killed:
			name, state = faint, bad
		case m.phase == stopped:
			name, state = faint, faint
		case m.phase != active:
			state = warn
		}
		l := text(name, "%-16.16s ", m.name).and(state, "%-9s", m.phase)
		l = append(l, bar(m.owned, memberStyle(i))...)
		l = l.and(normal, "  %7d  %10d", m.owned, m.reconciles)
		if !m.phase.gone() {
			l = l.and(faint, "  %3.0f", m.rate)
		}
		lines = append(lines, l)
	}
	s := faint
	if v.unowned > 0 {
		s = bad
	}
	l := text(s, "%-26s", "without an owner")
	l = append(l, bar(v.unowned, bad)...)
	return append(lines, l.and(s, "  %7d", v.unowned), nil)
}

func (v view) total() int {
	n := v.unowned
	for _, m := range v.members {
		n += m.owned
	}
	return n
}

// objectMap draws each object as one square in the colour of its owner.
func (v view) objectMap(width, rows int, look look) []line {
	if rows < 3 || len(v.cells) == 0 {
		return nil
	}
	needed := (len(v.cells) + width - 1) / width
	// Rows of equal length look like a map and not like a text.
	columns := (len(v.cells) + needed - 1) / needed
	shown := min(len(v.cells), columns*(rows-2))
	about := "each object in its owner's colour; white: work just finished; red: no owner"
	if !look.Color {
		about = "each object by its owner's number; *: work just finished; " + look.Or("□", ".") + ": no owner"
	}
	if shown < len(v.cells) {
		about = fmt.Sprintf("the first %d objects; ", shown) + about
	}
	lines := []line{text(faint, "%s", about)}
	for from := 0; from < shown; from += columns {
		var l line
		for _, c := range v.cells[from:min(from+columns, shown)] {
			l = append(l, v.cell(c, look))
		}
		lines = append(lines, merge(l))
	}
	return append(lines, nil)
}

func (v view) cell(c cell, look look) span {
	switch {
	case c.owner == noOwner:
		return span{look.Or("□", "."), bad}
	case c.fresh && look.Color:
		return span{look.Or("■", "#"), flash}
	case c.fresh:
		return span{"*", normal}
	case look.Color:
		return span{look.Or("■", "#"), memberStyle(c.owner)}
	default:
		return span{string(rune('0' + c.owner%10)), normal}
	}
}

// merge joins adjacent spans of the same style, to send fewer bytes to the terminal.
func merge(l line) line {
	var out line
	for _, s := range l {
		if last := len(out) - 1; last >= 0 && out[last].style == s.style {
			out[last].text += s.text
			continue
		}
		out = append(out, s)
	}
	return out
}

// headline draws the headline, with a bar if the step takes a while.
func (v view) headline(width int, look look) []line {
	if v.now.text == "" {
		return nil
	}
	lines := []line{text(strong, "%s %s", look.Or("▶", ">"), v.now.text)}
	if v.now.detail != "" {
		lines = append(lines, text(normal, "  %s", v.now.detail))
	}
	if v.now.atMost > 0 {
		after := fmt.Sprintf(" %4.1f s of at most %.0f s", v.now.passed.Seconds(), v.now.atMost.Seconds())
		room := max(0, width-2-len(after))
		full := min(room, int(float64(room)*v.now.passed.Seconds()/v.now.atMost.Seconds()))
		s := warn
		if v.now.passed > v.now.atMost {
			s = bad
		}
		lines = append(lines, text(normal, "  ").and(s, "%s", strings.Repeat(look.Or("━", "="), full)).
			and(faint, "%s", strings.Repeat(look.Or("─", "-"), room-full)).and(normal, "%s", after))
	}
	return append(lines, nil)
}
