// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func sample() view {
	return view{
		title:   "300 Foos, one operator, on a local control plane",
		elapsed: 67 * time.Second,
		members: []row{
			{"foo-operator-0", active, 150, 812, 9.5},
			{"foo-operator-1", stopped, 0, 231, 0},
			{"foo-operator-2", killed, 0, 240, 0},
			{"foo-operator-3", active, 75, 345, 10},
		},
		unowned: 75,
		now:     headline{text: "foo-operator-2 is killed (SIGKILL)", detail: "The others wait.", atMost: 17 * time.Second, passed: 4200 * time.Millisecond},
	}
}

func TestTableFits(t *testing.T) {
	for _, width := range []int{80, 120, 200, 10, 1} {
		v := sample()
		for _, late := range []time.Duration{0, time.Minute} {
			v.now.passed += late
			for i, l := range v.table(width) {
				// The terminal cuts the texts of a narrow one.
				if n := utf8.RuneCountInString(painting.ReplaceAllString(l, "")); n > max(80, width) {
					t.Errorf("%d: line %d has %d columns: %s", width, i, n, l)
				}
			}
		}
	}
}

func TestTableShowsWhatMatters(t *testing.T) {
	text := painting.ReplaceAllString(strings.Join(sample().table(80), "\n"), "")
	for _, want := range []string{
		"01:07", "foo-operator-0   active   █████████████████████████      150         812   10", "foo-operator-2   killed",
		"without an owner          █████████████                   75", "4.2 s of at most 17 s", "Ctrl-C",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not on the screen", want)
		}
	}
	t.Log("\n" + text)
}

func TestPlainLine(t *testing.T) {
	const want = "01:07   owned 150 stopped killed 75, without an owner 75, 20 reconciles/s"
	if got := sample().plain(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
