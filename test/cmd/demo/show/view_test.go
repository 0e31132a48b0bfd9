// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/cmd/demo/terminal"
)

func sample(objects int) view {
	v := view{
		title:   fmt.Sprintf("%d Foos, one operator, on a local control plane", objects),
		elapsed: 67 * time.Second,
		members: []memberView{
			{"foo-operator-0", active, objects / 2, 812, 9.5},
			{"foo-operator-1", stopped, 0, 231, 0},
			{"foo-operator-2", killed, 0, 240, 0},
			{"foo-operator-3", active, objects / 4, 345, 10},
		},
		unowned: objects - objects/2 - objects/4,
		now:     headline{text: "foo-operator-2 is killed (SIGKILL)", detail: "The others wait.", atMost: 17 * time.Second, passed: 4200 * time.Millisecond},
	}
	for i := range objects {
		v.cells = append(v.cells, cell{owner: []int{0, 3, 0, noOwner}[i%4], fresh: i%37 == 0})
	}
	for i := range 9 {
		v.log = append(v.log, event{at: time.Duration(i) * time.Second, mark: mark(i % 4), text: fmt.Sprintf("event %d", i)})
	}
	return v
}

func TestFrameFitsEveryTerminal(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {120, 50}, {40, 12}, {200, 10}, {20, 3}, {1, 1}} {
		for _, objects := range []int{1, 300, 10000} {
			for _, l := range []look{{Color: true, UTF8: true}, {}} {
				lines := sample(objects).frame(size[0], size[1], l)
				if len(lines) != size[1] {
					t.Errorf("%v: %d lines", size, len(lines))
				}
				for i, l := range lines {
					if l.width() > size[0] {
						t.Errorf("%v: line %d has %d columns", size, i, l.width())
					}
				}
			}
		}
	}
}

func TestFrameShowsWhatMatters(t *testing.T) {
	var b strings.Builder
	for _, l := range sample(300).frame(80, 24, look{UTF8: true}) {
		b.WriteString(l.render(false) + "\n")
	}
	for _, want := range []string{"foo-operator-0", "812", "without an owner", "75", "4.2 s of at most 17 s", "event 8", "01:07", "Ctrl-C", "030□030□"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not on the screen:\n%s", want, b.String())
		}
	}
	t.Log("\n" + b.String())
}

func TestFrameIsASCIIWithoutUTF8(t *testing.T) {
	for _, l := range sample(300).frame(80, 24, look{}) {
		for _, c := range l.render(false) {
			if c > 126 || c < 32 {
				t.Errorf("%q in %q", c, l.render(false))
				break
			}
		}
	}
}

func TestScreenDrawsOnlyWhatChanged(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out, func() (int, int) { return 80, 24 }, look{Color: true, UTF8: true})
	s.Say(text(normal, "before"))
	v := sample(300)
	s.Draw(v)
	if !strings.Contains(out.String(), enterScreen) || !strings.Contains(out.String(), "foo-operator-3") {
		t.Error("the first frame is incomplete")
	}
	out.Reset()
	v.elapsed += time.Second
	s.Draw(v)
	if got := out.String(); !strings.Contains(got, "01:08") || strings.Contains(got, "foo-operator-3") {
		t.Errorf("the second frame: %q", got)
	}
	out.Reset()
	s.Event(event{text: "something happened"})
	s.Close()
	if got := out.String(); !strings.Contains(got, leaveScreen) || !strings.Contains(got, "something happened") {
		t.Errorf("after the end: %q", got)
	}
	out.Reset()
	s.Draw(v)
	if out.Len() > 0 {
		t.Errorf("drawn after Close: %q", out.String())
	}
}

func TestScreenShowsProgress(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out, func() (int, int) { return 30, 24 }, look{UTF8: true})
	s.Progress("building something with a very long name")
	s.Tick()
	for _, l := range strings.Split(out.String(), "\r") {
		if l = strings.TrimSuffix(l, terminal.ClearLine); len([]rune(l)) > 29 {
			t.Errorf("%q wraps", l)
		}
	}
	s.Say(text(normal, "ok"))
	s.Progress("")
	if !strings.HasSuffix(out.String(), "\r"+terminal.ClearLine) {
		t.Errorf("progress remains on the screen: %q", out.String())
	}
}

func TestPlainWritesALineEachSecond(t *testing.T) {
	var out bytes.Buffer
	p := newPlain(&out, look{})
	v := sample(300)
	for range 5 {
		p.Draw(v)
		v.elapsed += 300 * time.Millisecond
	}
	want := "01:07   owned 150 stopped killed 75, without an owner 75, 20 reconciles/s\n" +
		"01:08   owned 150 stopped killed 75, without an owner 75, 20 reconciles/s\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}
