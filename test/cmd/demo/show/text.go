// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tom-ludwig/operator-scaling/test/cmd/demo/terminal"
)

// style is the style of a text on a terminal: the parameters of an SGR sequence.
type style string

const (
	normal style = ""
	strong style = "1"
	faint  style = "2"
	good   style = "32"
	bad    style = "1;31"
	warn   style = "33"
	flash  style = "1;97" // an object that was worked on just now
)

// memberStyles distinguish members. None of them is red, because red marks missing owners.
var memberStyles = []style{"36", "33", "35", "32", "94", "96", "93", "95"}

func memberStyle(m int) style { return memberStyles[m%len(memberStyles)] }

// span is a text in one style, line a row of them.
type (
	span struct {
		text  string
		style style
	}
	line []span
)

// text returns a line in one style.
func text(s style, format string, args ...any) line {
	return line{{fmt.Sprintf(format, args...), s}}
}

// and appends a text.
func (l line) and(s style, format string, args ...any) line {
	return append(l, span{fmt.Sprintf(format, args...), s})
}

// width counts the columns that the line takes. All characters used here take one.
func (l line) width() int {
	n := 0
	for _, s := range l {
		n += utf8.RuneCountInString(s.text)
	}
	return n
}

// pad appends spaces up to a column.
func (l line) pad(column int) line {
	return l.and(normal, "%s", strings.Repeat(" ", max(0, column-l.width())))
}

// cut returns at most width columns of the line.
func (l line) cut(width int) line {
	var out line
	for _, s := range l {
		n := utf8.RuneCountInString(s.text)
		if n > width {
			s.text = string([]rune(s.text)[:max(0, width)])
			n = max(0, width)
		}
		out = append(out, s)
		width -= n
	}
	return out
}

// render returns the line with terminal styles, or without styles.
func (l line) render(color bool) string {
	var b strings.Builder
	for _, s := range l {
		if !color || s.style == normal || s.text == "" {
			b.WriteString(s.text)
			continue
		}
		b.WriteString("\x1b[" + string(s.style) + "m" + s.text + "\x1b[0m")
	}
	return b.String()
}

// look describes what the output can show.
type look = terminal.Look

// seconds formats a measured duration with a precision that suits its size.
func seconds(d time.Duration) string {
	switch {
	case d < resolution:
		return fmt.Sprintf("< %d ms", resolution.Milliseconds())
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	default:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
}

// plural returns "1 object" or "2 objects".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
