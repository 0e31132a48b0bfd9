// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/test/audit"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

const ms = int64(time.Millisecond)

// process returns a process that records one event for the partitions of objects after another.
func process(name string, records ...worklog.Record) worklog.Process {
	p := worklog.Process{Name: name}
	for _, r := range records {
		r.Member = name
		p.Records = append(p.Records, r)
	}
	return p
}

func event(at int64, e worklog.Event, objects ...object) worklog.Record {
	r := worklog.Record{Time: at * ms, Event: e}
	for _, o := range objects {
		r.Partitions = append(r.Partitions, o.partition)
	}
	return r
}

// split returns the objects that move from m0 to m1 when m1 joins, and those that stay.
func split(t *testing.T, one, both *ring.Ring, objects []object) (moving, staying []object) {
	t.Helper()
	for _, o := range objects {
		if owner, _ := both.Owner(o.partition); owner == "m1" {
			moving = append(moving, o)
		} else {
			staying = append(staying, o)
		}
	}
	if len(moving) < 2 || len(staying) < 2 {
		t.Fatalf("%d objects move, %d stay", len(moving), len(staying))
	}
	return moving, staying
}

func TestMeasure(t *testing.T) {
	objects := newBoard("d", []string{"a", "b", "c", "d", "e", "f", "g", "h"}).objects
	one, both := ringOf(t, "m0"), ringOf(t, "m0", "m1")
	moving, staying := split(t, one, both, objects)
	n := len(moving)

	first := process("m0", event(10, worklog.Activate, objects...))
	got, ok := measure(worklog.Check([]worklog.Process{first}, worklog.Options{}), objects, nil, one, 4*ms)
	if want := (result{took: 6 * time.Millisecond}); !ok || got != want {
		t.Errorf("the first start: %+v, %v, want %+v", got, ok, want)
	}

	// All but one object move at once, the last one later.
	m0 := process("m0", event(10, worklog.Activate, objects...),
		event(100, worklog.Release, moving[1:]...), event(150, worklog.Release, moving[0]))
	m1 := process("m1", event(120, worklog.Activate, moving[1:]...))
	if got, ok := measure(worklog.Check([]worklog.Process{m0, m1}, worklog.Options{}), objects, one, both, 90*ms); ok {
		t.Errorf("measured although one object has no owner: %+v", got)
	}
	m1.Records = append(m1.Records, event(200, worklog.Activate, moving[0]))
	got, ok = measure(worklog.Check([]worklog.Process{m0, m1}, worklog.Options{}), objects, one, both, 90*ms)
	want := result{took: 110 * time.Millisecond, moved: n, ideal: n, longest: 50 * time.Millisecond, median: 20 * time.Millisecond}
	if n < 3 {
		want.median = 50 * time.Millisecond
	}
	if !ok || got != want {
		t.Errorf("one joins: %+v, %v, want %+v", got, ok, want)
	}

	// m1 is killed; only what it owned has no owner until m0 takes it over. Earlier gaps do not count.
	m1.Death = 1000 * ms
	m0.Records = append(m0.Records, event(3000, worklog.Activate, moving...))
	got, ok = measure(worklog.Check([]worklog.Process{m0, m1}, worklog.Options{}), objects, both, one, 990*ms)
	want = result{took: 2010 * time.Millisecond, moved: n, ideal: n, longest: 2 * time.Second, median: 2 * time.Second}
	if !ok || got != want {
		t.Errorf("one is killed: %+v, %v, want %+v", got, ok, want)
	}

	// An object that stays with its member counts if it had no owner for a while.
	m0 = process("m0", event(10, worklog.Activate, objects...), event(100, worklog.Release, staying[0]), event(101, worklog.Release, moving...),
		event(130, worklog.Activate, staying[0]))
	m1 = process("m1", event(101, worklog.Activate, moving...))
	got, ok = measure(worklog.Check([]worklog.Process{m0, m1}, worklog.Options{}), objects, one, both, 90*ms)
	if !ok || got.longest != 30*time.Millisecond || got.moved != n {
		t.Errorf("one is interrupted: %+v, %v, want %d moved and 30 ms without an owner", got, ok, n)
	}
}

// The demo must report a violated guarantee.
func TestDemoFindsViolations(t *testing.T) {
	work := func(at int64, e worklog.Event) worklog.Record {
		return worklog.Record{Time: at * ms, Event: e, Key: "d/a", Version: "1"}
	}
	processes := []worklog.Process{
		process("m0", work(1, worklog.Start), work(9, worklog.End)),
		process("m1", work(5, worklog.Start), work(7, worklog.End)),
	}
	v := worklog.Check(processes, worklog.Options{Final: map[string]string{"d/a": "2"}})
	if text := strings.Join(summary{verdict: v}.table(), "\n"); strings.Count(text, "✘       1") != 2 || (summary{verdict: v}).err() == nil {
		t.Errorf("no overlap and loss in\n%s", text)
	}
	v = worklog.Check(processes[:1], worklog.Options{Final: map[string]string{"d/a": "1"}})
	if err := (summary{verdict: v}).err(); err != nil {
		t.Error(err)
	}
}

func sampleSummary() summary {
	return summary{
		objects: 300,
		steps: []outcome{
			{name: "three replicas start", result: result{took: 1900 * time.Millisecond}},
			{name: "a replica joins", result: result{420 * time.Millisecond, 82, 74, 31 * time.Millisecond, 12 * time.Millisecond}, moves: true},
			{name: "one killed (SIGKILL)", result: result{16 * time.Second, 90, 80, 16 * time.Second, 15 * time.Second}, moves: true, atMost: 17 * time.Second},
		},
		members: sample().members,
		verdict: &worklog.Report{
			Reconciles: 1628,
			Processes:  []worklog.Life{{Reconciles: 812}, {Reconciles: 231}, {Reconciles: 240}, {Reconciles: 345}},
		},
	}
}

func TestSummaryFits(t *testing.T) {
	s := sampleSummary()
	for _, l := range s.table() {
		l = painting.ReplaceAllString(l, "")
		if n := utf8.RuneCountInString(l); n > 80 {
			t.Errorf("%d columns: %s", n, l)
		}
		t.Log(l)
	}
	if err := s.err(); err != nil {
		t.Error(err)
	}
}

func TestSummaryReportsViolations(t *testing.T) {
	s := sampleSummary()
	s.verdict.Findings = []audit.Finding{
		{Kind: worklog.Overlap, Subject: "demo/foo-001"},
		{Kind: worklog.Loss, Subject: "demo/foo-002"},
		{Kind: worklog.Loss, Subject: "demo/foo-003"},
		{Kind: worklog.TokenDrop, Subject: "demo/foo-004"},
	}
	s.unowned = 4
	text := strings.Join(s.table(), "\n")
	for _, want := range []string{"✘       1  objects that two", "✘       2  objects not", "✘       4  objects without", "✘       1  other"} {
		if !strings.Contains(text, "\x1b[1;31m"+want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	err := s.err()
	for _, want := range []string{"demo/foo-001", "demo/foo-002", "demo/foo-004", "4 objects without an owner"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
}
