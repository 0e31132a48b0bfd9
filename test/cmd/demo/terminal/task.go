// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package terminal

import (
	"fmt"
	"io"
	"math"
	"time"
	"unicode/utf8"
)

const (
	// TickEvery is how often Tick wants to be called.
	TickEvery = 80 * time.Millisecond
	// ClearLine clears the terminal's line from the cursor on.
	ClearLine = "\x1b[K"

	plainEvery = 10 * time.Second // between two lines where nothing can move
)

// Task shows what is being done and for how long: on a line that moves, or line
// by line where that can't be. It is not safe for concurrent use.
type Task struct {
	out  io.Writer
	look Look
	size func() (width, height int) // nil: no terminal

	text  string // empty: there is none
	began time.Time
	told  time.Time
	spin  int
}

// NewTask returns a Task that shows nothing yet. size is that of the terminal;
// nil if it is none.
func NewTask(out io.Writer, look Look, size func() (width, height int)) *Task {
	return &Task{out: out, look: look, size: size}
}

// Show says what is being done. The time counts from the first call, and from the
// first one after End.
func (t *Task) Show(text string) {
	if t.text == "" {
		t.began, t.told = time.Now(), time.Time{}
	}
	t.text = text
	t.Draw()
}

// Tick makes the line move.
func (t *Task) Tick() {
	t.spin++
	t.Draw()
}

// Draw writes the line, again.
func (t *Task) Draw() {
	if t.text == "" {
		return
	}
	elapsed := Clock(time.Since(t.began))
	if t.size == nil {
		if time.Since(t.told) >= plainEvery {
			t.told = time.Now()
			t.write(elapsed + " " + t.text + "\n")
		}
		return
	}
	wheel := []rune(t.look.Or("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", `|/-\`))
	start, end := "", ""
	if t.look.Color {
		start, end = "\x1b[32m", "\x1b[0m"
	}
	width, _ := t.size()
	room := width - 1 - 1 - len(elapsed) - 2 // the last column is left free: some terminals wrap there
	text := t.text
	if utf8.RuneCountInString(text) > room {
		text = string([]rune(text)[:max(0, room)])
	}
	t.write(fmt.Sprintf("\r%s%c%s %s %s%s", start, wheel[t.spin%len(wheel)], end, elapsed, text, ClearLine))
}

// End leaves an empty line, or none at all.
func (t *Task) End() {
	if t.text != "" && t.size != nil {
		t.write("\r" + ClearLine)
	}
	t.text = ""
}

// write ignores errors: whoever closed the terminal has sent a signal as well.
func (t *Task) write(text string) { _, _ = io.WriteString(t.out, text) }

// Clock shows the time that has passed, as 01:07.
func Clock(d time.Duration) string {
	s := int(math.Max(0, d.Seconds()))
	return fmt.Sprintf("%02d:%02d", s/60, s%60)
}
