// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// style is the style of a text on a terminal: the parameters of an SGR sequence.
type style string

const (
	normal style = "0"
	strong style = "1"
	faint  style = "2"
	good   style = "32"
	bad    style = "1;31"
	warn   style = "33"
)

func paint(s style, text string) string { return "\x1b[" + string(s) + "m" + text + "\x1b[0m" }

var (
	painting = regexp.MustCompile("\x1b\\[[0-9;]*m")
	ascii    = strings.NewReplacer("█", "#", "━", "=", "─", "-", "▶", ">", "✔", "+", "✘", "x", "·", "-", "≤", "<")
)

// plainEvery is the time between two lines of progress if the output is not a terminal.
const plainEvery = 10 * time.Second

// display is what the user sees: lines that stay and, on a terminal, a block below them that is drawn again and again. Its
// methods may be called from any goroutine.
type display struct {
	out         io.Writer
	size        func() (width, height int) // nil: not a terminal
	color, utf8 bool

	mu    sync.Mutex // guards what follows
	block []string
	shown time.Time // when progress was last written, if this is not a terminal
}

// openDisplay determines from the environment what a file can show: TERM, NO_COLOR (no-color.org) and the locale.
func openDisplay(f *os.File) *display {
	locale := os.Getenv("LC_ALL")
	for _, name := range []string{"LC_CTYPE", "LANG"} {
		if locale == "" {
			locale = os.Getenv(name)
		}
	}
	locale = strings.ReplaceAll(strings.ToLower(locale), "-", "")
	d := &display{out: f, utf8: strings.Contains(locale, "utf8")}
	if term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		d.color = os.Getenv("NO_COLOR") == ""
		d.size = func() (int, int) {
			width, height, err := term.GetSize(int(f.Fd()))
			if err != nil || width == 0 || height == 0 { // unknown
				return 80, 24
			}
			return width, height
		}
	}
	return d
}

// say writes lines that stay.
func (d *display) say(lines ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.write(lines, d.block)
}

// draw replaces the block, on a terminal. It omits the lines for which there is no room.
func (d *display) draw(block ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.size == nil || slices.Equal(block, d.block) {
		return
	}
	_, height := d.size()
	d.write(nil, block[:min(len(block), height-1)])
}

// progress shows the current activity. An empty text ends it.
func (d *display) progress(text string) {
	switch {
	case d.size == nil && text != "" && d.due():
		d.say(text)
	case text != "":
		d.draw(text)
	default:
		d.draw()
	}
}

// due reports whether it is time for a line of progress.
func (d *display) due() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.shown) < plainEvery {
		return false
	}
	d.shown = time.Now()
	return true
}

// Write shows the last line as progress, for builds.
func (d *display) Write(text []byte) (int, error) {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	d.progress(lines[len(lines)-1])
	return len(text), nil
}

// task does a part of the preparation, and shows how long it took.
func (d *display) task(name string, do func() error) error {
	d.progress(name)
	defer d.progress("")
	began := time.Now()
	err := do()
	if err == nil {
		d.say(paint(good, "ok ") + name + paint(faint, fmt.Sprintf(" (%.1f s)", time.Since(began).Seconds())))
	}
	return err
}

// write writes lines instead of the block, then the next block. The terminal cuts the lines of the block, so that it knows how
// far to go back. It ignores errors, because closing the terminal also sends a signal.
func (d *display) write(lines, block []string) {
	text := ""
	if n := len(d.block); n > 0 {
		text = fmt.Sprintf("\r\x1b[%dA\x1b[J", n)
	}
	for _, l := range lines {
		text += l + "\n"
	}
	if len(block) > 0 {
		text += "\x1b[?7l" + strings.Join(block, "\n") + "\n\x1b[?7h"
	}
	d.block = block
	if !d.color {
		text = painting.ReplaceAllString(text, "")
	}
	if !d.utf8 {
		text = ascii.Replace(text)
	}
	_, _ = io.WriteString(d.out, text)
}

// clock formats elapsed time, such as 01:07.
func clock(d time.Duration) string {
	return fmt.Sprintf("%02d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

// seconds formats a measured duration with a precision that suits its size.
func seconds(d time.Duration) string {
	switch {
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
