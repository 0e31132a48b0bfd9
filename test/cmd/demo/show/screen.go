// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/tom-ludwig/operator-scaling/test/cmd/demo/terminal"
)

// output is what the user sees. Its methods may be called from any goroutine.
type output interface {
	// Say writes lines that stay.
	Say(lines ...line)
	// Progress shows the current activity, instead of the one before. An empty text ends
	// it. The elapsed time counts from the first call with a text.
	Progress(text string)
	// Event shows an event of the log as it happens.
	Event(event)
	// Draw shows a view instead of the one before.
	Draw(view)
	// Close ends the drawing for good. Later output appears below what was there before.
	Close()
	// Look returns what the output can show.
	Look() look
}

const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[2J" // the alternate screen, without a cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
)

// screen is an output on a terminal. Progress is updated on one line. Views are drawn in
// place on the alternate screen, so that the previous contents reappear afterwards.
type screen struct {
	mu     sync.Mutex
	out    io.Writer
	size   func() (width, height int)
	look   look
	closed bool

	task *terminal.Task // what Progress shows

	drawing       bool
	shown         []string // the current rows
	width, height int
	events        []event // to print when the alternate screen is left
}

func newScreen(out io.Writer, size func() (width, height int), look look) *screen {
	return &screen{out: out, size: size, look: look, task: terminal.NewTask(out, look, size)}
}

func (s *screen) Say(lines ...line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave()
	s.say(lines)
	s.task.Draw()
}

func (s *screen) say(lines []line) {
	for _, l := range lines {
		s.write("\r" + l.render(s.look.Color) + terminal.ClearLine + "\n")
	}
}

func (s *screen) Progress(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case text == "":
		s.task.End()
	case !s.drawing:
		s.task.Show(text)
	}
}

// Tick animates the progress line. It must be called about ten times a second.
func (s *screen) Tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.drawing {
		s.task.Tick()
	}
}

func (s *screen) Event(e event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
	if !s.drawing {
		s.say([]line{e.line(s.look)})
	}
}

func (s *screen) Draw(v view) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	width, height := s.size()
	var b strings.Builder
	if !s.drawing {
		b.WriteString(enterScreen)
		s.drawing, s.shown, s.events = true, nil, nil
	}
	if width != s.width || height != s.height {
		b.WriteString("\x1b[2J")
		s.width, s.height, s.shown = width, height, nil
	}
	rows := v.frame(width, height, s.look)
	for i, l := range rows {
		row := l.render(s.look.Color)
		if i < len(s.shown) && s.shown[i] == row {
			continue
		}
		if i >= len(s.shown) {
			s.shown = append(s.shown, "")
		}
		s.shown[i] = row
		fmt.Fprintf(&b, "\x1b[%d;1H%s%s", i+1, row, terminal.ClearLine)
	}
	s.write(b.String())
}

func (s *screen) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave()
	s.closed = true
}

func (s *screen) Look() look { return s.look }

// leave leaves the alternate screen, and prints the events below the previous contents.
func (s *screen) leave() {
	if !s.drawing {
		return
	}
	s.drawing = false
	s.write(leaveScreen)
	for _, e := range s.events {
		s.say([]line{e.line(s.look)})
	}
	s.events = nil
}

// write ignores errors, because closing the terminal also sends a signal.
func (s *screen) write(text string) { _, _ = io.WriteString(s.out, text) }
