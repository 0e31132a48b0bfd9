// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

import (
	"maps"
	"slices"
)

// reading is what the records of one process say.
type reading struct {
	process  *Process
	end      int64 // of the run, or the process's death
	died     bool
	work     []*span
	owned    map[int][]*span
	summary  Summary
	problems []Problem

	working map[string][]*span // started and not ended, by key
	active  map[int]*span      // by partition; nil while the member is fenced
	fenced  bool
	keys    map[string]bool

	joins, fences []Interval // the last one has no end while it continues
}

// read reads the records of a process up to the end of the run.
func read(p *Process, end int64) *reading {
	r := &reading{
		process: p,
		end:     end,
		owned:   map[int][]*span{},
		working: map[string][]*span{},
		active:  map[int]*span{},
		keys:    map[string]bool{},
		summary: Summary{Process: p.Name, Torn: p.Torn},
	}
	if p.Death != 0 && p.Death < end {
		r.end, r.died = p.Death, true
	}
	last := int64(0)
	for _, rec := range p.Records {
		if rec.Time > end {
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
	r.problems = append(r.problems, Problem{Process: r.process.Name, Record: rec, What: what})
}

func (r *reading) step(rec Record) {
	if !slices.Contains(r.summary.Members, rec.Member) {
		r.summary.Members = append(r.summary.Members, rec.Member)
	}
	if rec.Token != "" && !isNumber(rec.Token) {
		r.problem(rec, "has a token that is not a number")
	}
	switch rec.Event {
	case Start:
		s := &span{subject: rec.Key, partition: partitionOf(rec), process: r.process, member: rec.Member, from: rec.Time, start: rec}
		r.work = append(r.work, s)
		r.working[rec.Key] = append(r.working[rec.Key], s)
		r.keys[rec.Key] = true
		r.summary.Reconciles++
	case End:
		s := r.current(rec)
		if s == nil {
			return
		}
		s.to, s.failed = rec.Time, rec.Error != ""
		r.working[rec.Key] = r.working[rec.Key][:len(r.working[rec.Key])-1]
		if s.failed {
			r.summary.Failed++
		}
	case Write:
		if s := r.current(rec); s != nil {
			s.writes = append(s.writes, rec.Time)
		}
	case Activate:
		r.summary.Activated += len(rec.Partitions)
		for _, p := range rec.Partitions {
			if _, already := r.active[p]; !already {
				r.active[p] = nil
				r.open(p, rec)
			}
		}
	case Release:
		r.summary.Released += len(rec.Partitions)
		for _, p := range rec.Partitions {
			r.close(p, rec.Time, Released)
			r.endHeld(p, rec.Time)
			delete(r.active, p)
		}
	case Fence:
		r.summary.Fences++
		r.closeAll(rec.Time, Fenced)
		r.fenced = true
		r.fences = begun(r.fences, rec.Time)
	case Resume:
		r.fenced = false
		r.fences = ended(r.fences, rec.Time)
		for p := range r.active {
			r.open(p, rec)
		}
	case Join, Leave:
		r.joins, r.fences = ended(r.joins, rec.Time), ended(r.fences, rec.Time)
		if rec.Event == Join {
			r.summary.Joins++
			r.joins = begun(r.joins, rec.Time)
		}
		r.closeAll(rec.Time, Left)
		r.endAllHeld(rec.Time)
		clear(r.active)
		r.fenced = false
	default:
		r.problem(rec, "has an unknown event type")
	}
}

// current returns the work that a record belongs to: the latest on its key.
func (r *reading) current(rec Record) *span {
	open := r.working[rec.Key]
	if len(open) == 0 {
		r.problem(rec, "does not belong to any work that was started")
		return nil
	}
	return open[len(open)-1]
}

func (r *reading) open(partition int, rec Record) {
	if r.fenced || r.active[partition] != nil {
		return
	}
	r.endHeld(partition, rec.Time)
	s := &span{
		subject: partitionName(partition), partition: partition, process: r.process, member: rec.Member,
		from: rec.Time, start: Record{Token: rec.Token},
	}
	r.active[partition] = s
	r.owned[partition] = append(r.owned[partition], s)
}

func (r *reading) close(partition int, at int64, why Cause) {
	if s := r.active[partition]; s != nil {
		s.to, s.why = at, why
		r.active[partition] = nil
	}
}

func (r *reading) closeAll(at int64, why Cause) {
	for p := range r.active {
		r.close(p, at, why)
	}
}

// finish ends everything that is open when the records end.
func (r *reading) finish() {
	left, why := r.left()
	r.summary.Left, r.summary.Died = why == Left, why == Died
	r.closeOpen(why)
	r.endAllHeld(r.end)
	for _, key := range slices.Sorted(maps.Keys(r.working)) {
		for _, s := range r.working[key] {
			s.to, s.open = max(s.from, r.end), true
			r.summary.Unfinished++
		}
	}
	for _, s := range r.work {
		s.left, s.leftWhy = left, why
	}
	r.summary.Keys = len(r.keys)
}

// closeOpen ends what is owned when the records end: at the process's death, or at the
// end of the run.
func (r *reading) closeOpen(why Cause) {
	for p, s := range r.active {
		r.summary.Owned++
		if s != nil {
			s.open = true
			r.close(p, max(s.from, r.end), why)
		}
	}
}

// left returns when and how the process left or died; 0 and "" if it did neither.
func (r *reading) left() (int64, Cause) {
	var at int64
	var why Cause
	for _, rec := range r.process.Records {
		switch {
		case rec.Time > r.end:
		case rec.Event == Leave:
			at, why = rec.Time, Left
		case rec.Event == Join:
			at, why = 0, ""
		}
	}
	if why == "" && r.died {
		return r.end, Died
	}
	return at, why
}
