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
	// TickEvery is how often Tick must be called.
	TickEvery = 80 * time.Millisecond
	// ClearLine clears the terminal's line from the cursor on.
	ClearLine = "\x1b[K"

	plainEvery = 10 * time.Second // between two lines if the output is not a terminal
)

// Task shows the current activity and its duration: on one line that is updated in
// place, or line by line if the output is not a terminal. It is not safe for concurrent
// use.
type Task struct {
	out  io.Writer
	look Look
	size func() (width, height int) // nil: no terminal

	text  string // empty: no activity
	began time.Time
	shown time.Time
	spin  int
}

// NewTask returns a Task that shows nothing yet. size returns the size of the terminal;
// it is nil if out is not a terminal.
func NewTask(out io.Writer, look Look, size func() (width, height int)) *Task {
	return &Task{out: out, look: look, size: size}
}

// Show sets the current activity. The time counts from the first call, and from the
// first call after End.
func (t *Task) Show(text string) {
	if t.text == "" {
		t.began, t.shown = time.Now(), time.Time{}
	}
	t.text = text
	t.Draw()
}

// Tick animates the line.
func (t *Task) Tick() {
	t.spin++
	t.Draw()
}

// Draw writes the line again.
func (t *Task) Draw() {
	if t.text == "" {
		return
	}
	elapsed := Clock(time.Since(t.began))
	if t.size == nil {
		if time.Since(t.shown) >= plainEvery {
			t.shown = time.Now()
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
	room := width - 1 - 1 - len(elapsed) - 2 // the last column stays free, because some terminals wrap there
	text := t.text
	if utf8.RuneCountInString(text) > room {
		text = string([]rune(text)[:max(0, room)])
	}
	t.write(fmt.Sprintf("\r%s%c%s %s %s%s", start, wheel[t.spin%len(wheel)], end, elapsed, text, ClearLine))
}

// End ends the activity and clears its line on a terminal.
func (t *Task) End() {
	if t.text != "" && t.size != nil {
		t.write("\r" + ClearLine)
	}
	t.text = ""
}

// write ignores errors, because closing the terminal also sends a signal.
func (t *Task) write(text string) { _, _ = io.WriteString(t.out, text) }

// Clock formats elapsed time, such as 01:07.
func Clock(d time.Duration) string {
	s := int(math.Max(0, d.Seconds()))
	return fmt.Sprintf("%02d:%02d", s/60, s%60)
}
