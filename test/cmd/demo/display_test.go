// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// screen returns a display on a terminal of 80 columns and 24 lines.
func screen(color, utf8 bool) (*display, *bytes.Buffer) {
	out := &bytes.Buffer{}
	return &display{out: out, size: func() (int, int) { return 80, 24 }, color: color, utf8: utf8}, out
}

func TestTheBlockStaysBelowOtherLines(t *testing.T) {
	d, out := screen(true, true)
	const from, to = "\x1b[?7l", "\n\x1b[?7h" // without automatic line breaks
	for _, c := range []struct {
		do   func()
		want string
	}{
		{func() { d.say("before") }, "before\n"},
		{func() { d.draw("a", "b") }, from + "a\nb" + to},
		{func() { d.draw("a", "b") }, ""}, // unchanged
		{func() { d.draw("a", "c", "d") }, "\r\x1b[2A\x1b[J" + from + "a\nc\nd" + to},
		{func() { d.say("happened") }, "\r\x1b[3A\x1b[Jhappened\n" + from + "a\nc\nd" + to},
		{func() { d.progress("working") }, "\r\x1b[3A\x1b[J" + from + "working" + to},
		{func() { d.progress("") }, "\r\x1b[1A\x1b[J"},
		{func() { d.draw(make([]string, 30)...) }, from + strings.Repeat("\n", 22) + to}, // one line is for the cursor
	} {
		out.Reset()
		if c.do(); out.String() != c.want {
			t.Errorf("written %q, want %q", out, c.want)
		}
	}
}

func TestOutputIsASCIIWithoutUTF8(t *testing.T) {
	d, out := screen(false, false)
	d.write(slices.Concat(sample().table(80), sampleSummary().table()), nil)
	for _, c := range out.String() {
		if c > 126 || c < 32 && c != '\n' {
			t.Fatalf("%q in\n%s", c, out)
		}
	}
}

func TestPlainOutputGetsLittleProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &bytes.Buffer{}
		d := &display{out: out}
		for range 15 {
			_, _ = d.Write([]byte("one\ntwo\n")) // it has no errors
			d.draw("a block")
			time.Sleep(time.Second)
		}
		d.progress("")
		if got := out.String(); got != "two\ntwo\n" {
			t.Errorf("written %q in 15 s, want a line every 10 s", got)
		}
	})
}
