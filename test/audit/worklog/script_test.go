// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// parse turns a script into processes. A line is
//
//	PROCESS TIME EVENT [KEY] [rv=V] [token=T] [p=P,P…] [err=E]
//
// or, for what the caller knows,
//
//	PROCESS TIME died
//	PROCESS TIME paused UNTIL
//
// Times are milliseconds. The member of a process is its name and "_1".
func parse(t testing.TB, script string) []Process {
	t.Helper()
	var processes []Process
	for line := range strings.Lines(script) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		i := slices.IndexFunc(processes, func(p Process) bool { return p.Name == fields[0] })
		if i < 0 {
			i = len(processes)
			processes = append(processes, Process{Name: fields[0]})
		}
		p, at := &processes[i], ms(t, fields[1])
		switch fields[2] {
		case "died":
			p.Death = at
			continue
		case "paused":
			p.Pauses = append(p.Pauses, Pause{at, ms(t, fields[3])})
			continue
		}
		r := Record{Time: at, Event: Event(fields[2]), Member: p.Name + "_1"}
		for _, field := range fields[3:] {
			name, value, ok := strings.Cut(field, "=")
			switch {
			case !ok:
				r.Key = field
			case name == "rv":
				r.Version = value
			case name == "token":
				r.Token = value
			case name == "err":
				r.Error = value
			case name == "p":
				for n := range strings.SplitSeq(value, ",") {
					partition, err := strconv.Atoi(n)
					if err != nil {
						t.Fatalf("%q: %v", line, err)
					}
					r.Partitions = append(r.Partitions, partition)
				}
			default:
				t.Fatalf("%q: unknown field %s", line, field)
			}
		}
		p.Records = append(p.Records, r)
	}
	return processes
}

func ms(t testing.TB, s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n * 1e6
}

// findings lists a report line by line, for comparison.
func findings(r *Report) []string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, f := range r.Findings {
		switch f.Kind {
		case Problem: // listed last
		case Overlap, ActiveTwice:
			add("%s %s %d-%d %s %s", f.Kind[:2], f.Subject, f.From/1e6, f.To/1e6, f.First, f.Second)
		default:
			add("%s %s %s", f.Kind[:2], f.Subject, f.What)
		}
	}
	for _, g := range r.Gaps {
		after := g.After
		if g.Open {
			after = "no owner"
		}
		add("gap %s %d-%d after %s of %s, %s", g.Subject, g.From/1e6, g.To/1e6, g.Cause, g.Before, after)
	}
	for _, f := range r.VersionDrops {
		add("F6 %s %s", f.Subject, f.What)
	}
	for _, f := range r.Findings {
		if f.Kind == Problem {
			add("F7 %s %s", f.Subject, f.What)
		}
	}
	return lines
}
