// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"bytes"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tom-ludwig/operator-scaling/test/audit"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

var keep = flag.String("keep", "", "directory for example charts, to look at")

// TestKeep writes charts for a person to look at: go test ./timeline -args -keep=/some/directory
func TestKeep(t *testing.T) {
	if *keep == "" {
		t.Skip("-keep is not given")
	}
	for name, run := range map[string]Run{
		"small":  randomRun(1, 64, 4, 8, 3*time.Minute).Run,
		"failed": withViolations(randomRun(2, 100, 8, 14, 5*time.Minute), origin+int64(70*time.Second), 3*time.Second, 40),
		"large":  randomRun(3, 128, 6, 200, 15*time.Minute).Run,
		"many":   randomRun(4, 509, 10, 40, 15*time.Minute).Run,
	} {
		if err := os.WriteFile(filepath.Join(*keep, name+".html"), write(t, run), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t testing.TB, run Run) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, run); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b.Bytes(), []byte("ZgotmplZ")) {
		t.Error("the template engine has replaced a value of the page: ZgotmplZ")
	}
	return b.Bytes()
}

// drawn is a rectangle of the ownership chart, found in the file.
type drawn struct {
	layer       string // kept, owned, gaps, overlaps
	class       string
	process     string
	from, to    int64 // microseconds after the start of the chart
	top, bottom int   // partitions
}

func (d drawn) String() string {
	return fmt.Sprintf("%s %q %s %d-%d µs, partitions %d-%d", d.layer, d.class, d.process, d.from, d.to, d.top, d.bottom)
}

// parse reads a page as strict XML and returns what the chart shows.
func parse(t testing.TB, page []byte) []drawn {
	t.Helper()
	var all []drawn
	var path []xml.StartElement
	attribute := func(e xml.StartElement, name string) string {
		for _, a := range e.Attr {
			if a.Name.Local == name {
				return a.Value
			}
		}
		return ""
	}
	decoder := xml.NewDecoder(bytes.NewReader(page))
	row := 0
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatalf("the page is not well-formed: %v", err)
		}
		switch e := token.(type) {
		case xml.EndElement:
			path = path[:len(path)-1]
		case xml.StartElement:
			path = append(path, e.Copy())
			if n, err := strconv.Atoi(attribute(e, "data-row")); err == nil {
				row = n
			}
			if e.Name.Local != "rect" {
				continue
			}
			number := func(name string) int64 {
				v, err := strconv.ParseFloat(attribute(e, name), 64)
				if err != nil || v < 0 {
					t.Fatalf("%s=%q of a rectangle", name, attribute(e, name))
				}
				return int64(v*1000 + 0.5)
			}
			x, y, w, h := number("x"), number("y"), number("width"), number("height")
			parent := path[len(path)-2]
			d := drawn{class: attribute(parent, "class"), process: attribute(parent, "data-process"), from: x, to: x + w}
			for _, p := range path {
				switch c := attribute(p, "class"); c {
				case "kept", "owned", "gaps", "overlaps":
					d.layer = c
				}
			}
			if d.layer == "" {
				continue // of a lane
			}
			d.top = int(y) / 1000 / row
			d.bottom = d.top + int(h)/1000/row - 1
			all = append(all, d)
		}
	}
}

func event(at int, e worklog.Event, partitions ...int) worklog.Record {
	return worklog.Record{Time: int64(at) * 1e6, Event: e, Member: "m_1", Partitions: partitions}
}

// A run of 100 ms: a owns 0 to 3, hands 2 and 3 over to b, is fenced and resumes; b is
// paused; b activates partition 3 too early.
func scripted() recorded {
	a := worklog.Process{Name: "a", Records: []worklog.Record{
		event(1, worklog.Join), event(11, worklog.Activate, 0, 1, 2, 3),
		event(31, worklog.Release, 2, 3), event(51, worklog.Fence), event(61, worklog.Resume), event(101, worklog.Join),
	}}
	b := worklog.Process{Name: "b", Records: []worklog.Record{
		event(2, worklog.Join), event(21, worklog.Activate, 3), event(41, worklog.Activate, 2),
	}, Pauses: []worklog.Pause{{From: 71e6, To: 81e6}}}
	for i := range b.Records {
		b.Records[i].Member = "n_1"
	}
	run := recorded{Run{Title: "scripted", Partitions: 8}, []worklog.Process{a, b}}
	run.Report = worklog.Check(run.processes, worklog.Options{End: 101e6})
	return run
}

func TestScriptedRun(t *testing.T) {
	var got []string
	for _, d := range parse(t, write(t, scripted().Run)) {
		got = append(got, d.String())
	}
	want := []string{
		`kept "c0 fenced" a 50000-60000 µs, partitions 0-1`,
		`kept "c1 paused" b 70000-80000 µs, partitions 2-3`,
		`owned "c0" a 10000-30000 µs, partitions 2-3`,
		`owned "c0" a 10000-50000 µs, partitions 0-1`,
		`owned "c0" a 60000-100000 µs, partitions 0-1`,
		`owned "c1" b 20000-70000 µs, partitions 3-3`,
		`owned "c1" b 40000-70000 µs, partitions 2-2`,
		`owned "c1" b 80000-100000 µs, partitions 2-3`,
		`gaps ""  50000-60000 µs, partitions 0-1`,
		`gaps ""  30000-40000 µs, partitions 2-2`,
		`gaps ""  70000-80000 µs, partitions 2-3`,
		`overlaps "overlaps"  20000-30000 µs, partitions 3-3`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rectangles (-want +got):\n%s", diff)
	}
}

func TestD1_SameInputSameBytes(t *testing.T) {
	for range 5 {
		if !bytes.Equal(write(t, randomRun(7, 64, 5, 20, time.Minute).Run), write(t, randomRun(7, 64, 5, 20, time.Minute).Run)) {
			t.Fatal("two charts of one run differ")
		}
	}
}

// TestD2_EachOwnershipIsDrawn splits the rectangles again: exactly the ownership of each
// partition must be drawn, to the microsecond, and nothing else.
func TestD2_EachOwnershipIsDrawn(t *testing.T) {
	for seed := range uint64(12) {
		run := withViolations(randomRun(seed, 40, 5, 25, 2*time.Minute), origin+int64(30*time.Second), time.Second, 7)
		checkDrawn(t, run)
	}
}

func checkDrawn(t testing.TB, run Run) {
	t.Helper()
	a := newAxis(run.Report)
	type cell struct {
		layer, process string
		partition      int
		from, to       int64
	}
	want := map[cell]int{}
	for _, l := range run.Report.Processes {
		for _, s := range l.Owned {
			layer := func(layer string, from, to int64) {
				if from, to, ok := a.clip(from, to); ok {
					want[cell{layer, l.Process, s.Partition, (from - a.begin) / 1000, (to - a.begin) / 1000}]++
				}
			}
			at := s.From
			for _, p := range l.Paused {
				if p.To > at && p.From < s.To {
					if p.From > at {
						layer("owned", at, p.From)
					}
					layer("kept", max(p.From, s.From), min(p.To, s.To))
					at = min(p.To, s.To)
				}
			}
			if at < s.To || s.From == s.To {
				layer("owned", at, s.To)
			}
			if s.Held > s.To {
				layer("kept", s.To, s.Held)
			}
		}
	}
	got := map[cell]int{}
	for _, d := range parse(t, write(t, run)) {
		if d.layer != "owned" && d.layer != "kept" {
			continue
		}
		for p := d.top; p <= d.bottom; p++ {
			got[cell{d.layer, d.process, p, d.from, d.to}]++
		}
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(cell{})); diff != "" {
		t.Fatalf("%s: cells (-want +got):\n%.3000s", run.Title, diff)
	}
}

func TestD3_EachOverlapIsDrawn(t *testing.T) {
	run := withViolations(randomRun(1, 40, 5, 25, 2*time.Minute), origin+int64(30*time.Second), time.Second, 7)
	want := audit.Count(run.Report.Findings, worklog.ActiveTwice)
	got := 0
	for _, d := range parse(t, write(t, run)) {
		if d.layer == "overlaps" {
			got++
		}
	}
	if want < 1 || got != want {
		t.Errorf("%d overlaps drawn, want %d, and at least 1", got, want)
	}
}

func TestD4_NamesAreEscaped(t *testing.T) {
	const nasty = "</title><script>alert(1)</script>\"'&lt;]]>--\x00\x01\x1b\ufffe\xff"
	run := scripted()
	run.Title = nasty
	run.processes[0].Name = nasty
	run.processes[1].Records[0].Member = nasty + "_1"
	run.Faults = []Fault{
		{Name: nasty, Target: nasty, From: 20e6, To: 30e6, Note: nasty},
		{Name: "x", Target: nasty + "2", From: 20e6},
	}
	run.Report = worklog.Check(run.processes, worklog.Options{End: 101e6, Final: map[string]string{nasty: nasty}})
	page := write(t, run.Run)
	parse(t, page)
	if n := bytes.Count(page, []byte("<script>")); n != 1 {
		t.Errorf("%d scripts, want 1", n)
	}
}

func TestPageIsSelfContained(t *testing.T) {
	page := write(t, withViolations(randomRun(1, 40, 5, 25, 2*time.Minute), origin+int64(30*time.Second), time.Second, 7))
	links := regexp.MustCompile(`(?:https?:|@import|src=|url\(|href=)[^\s>]*`)
	for _, link := range links.FindAll(page, -1) {
		l := string(link)
		if strings.HasPrefix(l, `href="#`) || strings.HasPrefix(l, "url(#") ||
			l == `http://www.w3.org/1999/xhtml"` || l == `http://www.w3.org/2000/svg"` {
			continue
		}
		t.Errorf("the page refers to %s", l)
	}
}

func TestLongRunStaysSmall(t *testing.T) {
	run := randomRun(3, 128, 6, 200, 15*time.Minute)
	if n := len(write(t, run.Run)); n > 5<<20 {
		t.Errorf("%d bytes, want at most 5 MB", n)
	}
}

func TestVerdict(t *testing.T) {
	run := randomRun(1, 40, 5, 5, time.Minute)
	if page := string(write(t, run.Run)); !strings.Contains(page, `class="verdict passed"`) || strings.Contains(page, `class="verdict failed"`) {
		t.Error("a clean run has not passed")
	}
	page := string(write(t, withViolations(run, origin+int64(30*time.Second), time.Second, 7)))
	if !strings.Contains(page, `class="verdict failed"`) || !strings.Contains(page, "default/lost: no replica finished processing it") {
		t.Error("a run with overlaps and a loss has not failed, or the loss is not listed")
	}
	if err := Write(io.Discard, Run{}); err == nil {
		t.Error("a run without a report was drawn")
	}
	if page := string(write(t, Run{Report: worklog.Check(nil, worklog.Options{})})); strings.Contains(page, "NaN") || strings.Contains(page, "Inf") {
		t.Error("a run without records is drawn with NaN or Inf")
	}
}

func TestTicksAreFewAndRound(t *testing.T) {
	for _, length := range []time.Duration{time.Microsecond, 700 * time.Microsecond, time.Second, 15 * time.Minute, 5 * time.Hour, 3000 * time.Hour} {
		a := axis{begin: 12345, end: 12345 + int64(length)}
		ticks := a.ticks()
		if len(ticks) < 1 || len(ticks) > 13 || ticks[0].Label != "0" {
			t.Errorf("%v: %d ticks: %v", length, len(ticks), ticks)
		}
	}
	if ticks := (axis{end: int64(5 * time.Minute)}).ticks(); ticks[1].Label != "30s" {
		t.Errorf("5 minutes: the first step is %s, want 30s", ticks[1].Label)
	}
}

// FuzzWrite draws arbitrary records in any order.
func FuzzWrite(f *testing.F) {
	f.Add([]byte{0, 4, 1, 1, 9, 2, 0, 5, 3, 2, 6, 3, 0, 7, 9, 4, 8, 0})
	f.Add([]byte{0, 3, 9, 0, 6, 1, 0, 7, 200, 1, 3, 2, 1, 3, 9, 0, 10, 4, 1, 11, 30})
	events := []worklog.Event{
		worklog.Start, worklog.End, worklog.Write, worklog.Activate, worklog.Release, worklog.Fence,
		worklog.Resume, worklog.Join, worklog.Leave, "nonsense",
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		processes := []worklog.Process{{Name: "op-0.001"}, {Name: "op-0.002"}, {Name: "op-1.003"}}
		run := Run{Title: "fuzz"}
		now := int64(1e6)
		for step := range slices.Chunk(data, 3) {
			if len(step) < 3 {
				break
			}
			p := &processes[int(step[0])%len(processes)]
			now += int64(step[2]) * 10_000
			switch kind := int(step[1]) % (len(events) + 3); {
			case kind < len(events):
				p.Records = append(p.Records, worklog.Record{
					Time: now, Event: events[kind], Member: p.Name, Key: "x", Partitions: []int{int(step[2]) % 5},
				})
			case kind == len(events):
				p.Death = now
			case kind == len(events)+1:
				p.Pauses = append(p.Pauses, worklog.Pause{From: now, To: now + int64(step[2])*1000})
				now += int64(step[2]) * 1000
			default:
				run.Faults = append(run.Faults, Fault{Name: "f", Target: p.Name, From: now, To: now + int64(step[2])*5000 - 1000})
			}
		}
		run.Report = worklog.Check(processes, worklog.Options{})
		checkDrawn(t, run)
	})
}
