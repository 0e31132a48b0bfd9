// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"
)

func sampleSummary() summary {
	return summary{
		objects: 300,
		steps: []outcome{
			{name: "three replicas start", result: result{took: 1900 * time.Millisecond}},
			{name: "a replica joins", result: result{420 * time.Millisecond, 82, 74, 31 * time.Millisecond, 12 * time.Millisecond}, moves: true},
			{name: "one killed (SIGKILL)", result: result{16 * time.Second, 90, 80, 16 * time.Second, 15 * time.Second}, moves: true, atMost: 17 * time.Second},
		},
		members: sample(300).members,
		verdict: verdict{reconciles: 1628, by: []int{812, 231, 240, 345}},
	}
}

func TestSummaryFits(t *testing.T) {
	s := sampleSummary()
	for _, l := range s.table(look{UTF8: true}) {
		if l.width() > 80 {
			t.Errorf("%d columns: %s", l.width(), l.render(false))
		}
		t.Log(l.render(false))
	}
	if b := s.broken(); len(b) > 0 {
		t.Errorf("broken: %v", b)
	}
}

func TestSummaryReportsViolations(t *testing.T) {
	s := sampleSummary()
	s.verdict.overlaps = []string{"demo/foo-001: a and b, for 3ms"}
	s.verdict.forgotten = []string{"demo/foo-002", "demo/foo-003"}
	s.unowned = 1
	if got := len(s.broken()); got != 3 {
		t.Errorf("%d violated guarantees, want 3: %v", got, s.broken())
	}
	var b strings.Builder
	for _, l := range s.table(look{Color: true}) {
		b.WriteString(l.render(true) + "\n")
	}
	for _, want := range []string{"demo/foo-001: a and b", "\x1b[1;31mx       1", "\x1b[1;31mx       2"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
}
