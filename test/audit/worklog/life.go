// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/tom-ludwig/operator-scaling/test/audit"
)

// Life is what one process did. All times are within the run, and From <= To everywhere.
type Life struct {
	Process string
	// Members are its identities, in the order in which it took them.
	Members []string
	// Begin is the time of its first record; 0 if it has none. End is when it had died or left for good, or the end of the run.
	Begin, End int64
	// Ended is how it ended: [Left], [Died], or "" if it kept running. A process that was killed after it had left counts as
	// one that left.
	Ended Cause

	Reconciles int // started
	Failed     int // ended with an error
	Unfinished int // without an end
	Keys       int // different ones
	Activated  int // partitions gained
	Released   int // partitions released
	Owns       int // partitions at the end, or when it died
	Joins      int
	Fences     int

	// Owned has the times in which it was active on partitions, ordered by partition and time.
	Owned []*Span `json:"-"`
	// Joined, Fenced and Paused are the times in which it was on the ring, was fenced, and did not run.
	Joined, Fenced, Paused []Interval `json:"-"`
}

// Interval is a time span. From <= To.
type Interval struct{ From, To int64 }

// reading is the state while the records of a process are read.
type reading struct {
	Life
	report  *Report
	process *Process
	end     int64 // of the run, or the process's death
	died    bool
	work    []*Span
	owned   map[int][]*Span
	working map[string][]*Span // started and not ended, by key
	active  map[int]*Span      // by partition; nil while the member is fenced
	fenced  bool
	left    int64 // when Ended became Left
}

// read reads the records of a process up to the end of the run.
func (report *Report) read(p *Process) *reading {
	r := &reading{
		Life:   Life{Process: p.Name},
		report: report, process: p, end: report.End,
		owned: map[int][]*Span{}, working: map[string][]*Span{}, active: map[int]*Span{},
	}
	if p.Death != 0 && p.Death < r.end {
		r.end, r.died = p.Death, true
	}
	last := int64(0)
	for _, rec := range p.Records {
		if rec.Time > report.End {
			break
		}
		if rec.Time < last {
			r.problem(rec, "is older than the record before it")
		}
		last = rec.Time
		if p.Death != 0 && rec.Time > p.Death {
			r.problem(rec, "was written after the process died")
		}
		r.step(rec)
	}
	r.finish()
	return r
}

func (r *reading) problem(rec Record, what string) {
	r.report.found(audit.Finding{
		Kind: Problem, Subject: r.Process, From: rec.Time, To: rec.Time,
		What: fmt.Sprintf("at %s: %s %s %s", r.report.at(rec.Time), rec.Event, rec.Key, what),
	})
}

func (r *reading) step(rec Record) {
	if !slices.Contains(r.Members, rec.Member) {
		r.Members = append(r.Members, rec.Member)
	}
	if rec.Token != "" && !isNumber(rec.Token) {
		r.problem(rec, "has a token that is not a number")
	}
	switch rec.Event {
	case Start:
		s := &Span{subject: rec.Key, process: r.process, From: rec.Time, version: rec.Version, token: rec.Token}
		r.work = append(r.work, s)
		r.working[rec.Key] = append(r.working[rec.Key], s)
		r.Reconciles++
	case End:
		s := r.current(rec)
		if s == nil {
			return
		}
		s.To, s.failed = max(s.From, rec.Time), rec.Error != ""
		r.working[rec.Key] = r.working[rec.Key][:len(r.working[rec.Key])-1]
		if s.failed {
			r.Failed++
		}
	case Write:
		if s := r.current(rec); s != nil {
			s.writes = append(s.writes, rec.Time)
		}
	case Activate:
		r.Activated += len(rec.Partitions)
		for _, p := range rec.Partitions {
			if _, already := r.active[p]; !already {
				r.active[p] = nil
				r.open(p, rec.Time)
			}
		}
	case Release:
		r.Released += len(rec.Partitions)
		for _, p := range rec.Partitions {
			r.close(p, rec.Time, Released)
			r.endHeld(p, rec.Time)
			delete(r.active, p)
		}
	case Fence:
		r.Fences++
		r.fenced = true
		r.Fenced = begin(r.Fenced, rec.Time)
		for p := range r.active {
			r.close(p, rec.Time, Fenced)
		}
	case Resume:
		r.fenced = false
		r.Fenced = end(r.Fenced, rec.Time)
		for p := range r.active {
			r.open(p, rec.Time)
		}
	case Join, Leave:
		r.fenced = false
		r.Joined, r.Fenced = end(r.Joined, rec.Time), end(r.Fenced, rec.Time)
		if rec.Event == Join {
			r.Joins++
			r.Joined = begin(r.Joined, rec.Time)
		}
		if rec.Time <= r.end {
			r.Ended, r.left = "", rec.Time
			if rec.Event == Leave {
				r.Ended = Left
			}
		}
		for p := range r.active {
			r.close(p, rec.Time, Left)
			r.endHeld(p, rec.Time)
		}
		clear(r.active)
	default:
		r.problem(rec, "has an unknown event type")
	}
}

// current returns the work that a record belongs to: the latest on its key.
func (r *reading) current(rec Record) *Span {
	open := r.working[rec.Key]
	if len(open) == 0 {
		r.problem(rec, "does not belong to any work that was started")
		return nil
	}
	return open[len(open)-1]
}

func (r *reading) open(partition int, at int64) {
	if r.fenced || r.active[partition] != nil {
		return
	}
	r.endHeld(partition, at)
	s := &Span{subject: fmt.Sprintf("partition %d", partition), Partition: partition, process: r.process, From: at}
	r.active[partition] = s
	r.owned[partition] = append(r.owned[partition], s)
}

func (r *reading) close(partition int, at int64, why Cause) {
	if s := r.active[partition]; s != nil {
		s.To, s.Cause = max(s.From, at), why
		r.active[partition] = nil
	}
}

// endHeld notes that the process no longer keeps a partition that it kept while fenced, or works on it again.
func (r *reading) endHeld(partition int, at int64) {
	if spans := r.owned[partition]; len(spans) > 0 {
		if last := spans[len(spans)-1]; last.Held == 0 {
			last.Held = at
		}
	}
}

// finish ends everything that is open when the records end: at the process's death, or at the end of the run.
func (r *reading) finish() {
	if r.Ended == "" && r.died {
		r.Ended = Died
	}
	if records := r.process.Records; len(records) > 0 {
		r.Begin = min(records[0].Time, r.end)
	}
	r.End = r.end
	if r.Ended == Left {
		r.End = min(r.end, max(r.left, r.Begin))
	}
	r.Owns = len(r.active)
	for p, s := range r.active {
		if s != nil {
			s.Open = true
			r.close(p, r.end, r.Ended)
		}
		r.endHeld(p, r.end)
	}
	for _, spans := range r.owned {
		for _, s := range spans {
			s.Held = max(s.To, s.Held)
			r.Owned = append(r.Owned, s)
		}
	}
	slices.SortStableFunc(r.Owned, func(a, b *Span) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), byStart(a, b))
	})
	r.Keys = len(r.working)
	for _, spans := range r.working {
		for _, s := range spans {
			s.To, s.Open = max(s.From, r.end), true
			r.Unfinished++
		}
	}
	r.Joined, r.Fenced = end(r.Joined, r.End), end(r.Fenced, r.End)
	for _, p := range r.process.Pauses {
		if p.From < r.report.End {
			r.Paused = append(r.Paused, Interval{p.From, max(p.From, min(p.end(), r.end))})
		}
	}
}

// begin adds an interval without an end, unless the last one has no end yet.
func begin(all []Interval, at int64) []Interval {
	if n := len(all); n > 0 && all[n-1].To == 0 {
		return all
	}
	return append(all, Interval{From: at})
}

// end ends the last interval, if it has no end yet.
func end(all []Interval, at int64) []Interval {
	if n := len(all); n > 0 && all[n-1].To == 0 {
		all[n-1].To = max(at, all[n-1].From)
	}
	return all
}
