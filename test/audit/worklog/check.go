// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Options describe what is known about a run. The zero value is valid.
type Options struct {
	// End is when the run ended; later records are ignored. Set it before the replicas
	// are stopped for good. Otherwise the partitions that they release then count as
	// gaps. 0: the time of the last record.
	End int64
	// Final has the version of each object that existed at the end, as in
	// [Record.Version]; [Gone] for an object whose deletion must have
	// been processed. Nil: losses are not checked.
	Final map[string]string
	// WritesRecorded means that every mutating request was recorded. After a pause, a
	// process then counts as working only at the times of its writes. Otherwise it
	// counts as working until its work ends.
	WritesRecorded bool
	// WorkAlone ignores the records about partitions. Use it for runs in which the
	// number of partitions changes, because the same partition number then stands for
	// different partitions.
	WorkAlone bool
}

// Check checks the records of all processes of a run.
func Check(processes []Process, options Options) *Report {
	r := &Report{Begin: begin(processes), End: options.End, ReconcilesByKey: map[string]int{}}
	if r.End == 0 {
		r.End = end(processes)
	}

	work := map[string][]*span{}
	owned := map[int][]*span{}
	for i := range processes {
		p := read(&processes[i], r.End)
		r.Processes = append(r.Processes, p.summary)
		r.Problems = append(r.Problems, p.problems...)
		for _, s := range p.work {
			work[s.subject] = append(work[s.subject], s)
		}
		if options.WorkAlone {
			continue
		}
		for partition, spans := range p.owned {
			owned[partition] = append(owned[partition], spans...)
		}
	}

	for _, key := range slices.Sorted(maps.Keys(work)) {
		spans := work[key]
		slices.SortStableFunc(spans, byStart)
		r.ReconcilesByKey[key] = len(spans)
		r.Overlaps = append(r.Overlaps, overlaps(spans, func(s *span) []piece { return s.atWork(options.WritesRecorded) })...)
		r.countKey(spans)
		r.checkOrder(key, spans)
		if len(owned) == 0 {
			r.Gaps = append(r.Gaps, workGaps(key, spans, r.End, options.Final)...)
		}
	}
	keys := keysByPartition(work)
	for _, partition := range slices.Sorted(maps.Keys(owned)) {
		spans := owned[partition]
		slices.SortStableFunc(spans, byStart)
		r.ActiveTwice = append(r.ActiveTwice, overlaps(spans, (*span).untilPause)...)
		gaps, handovers := ownershipGaps(spans, r.End)
		for i := range gaps {
			gaps[i].Keys = keys[partition]
		}
		r.Gaps = append(r.Gaps, gaps...)
		r.Handovers += handovers
	}
	r.Losses = losses(options.Final, work)
	r.summarize()
	return r
}

// span is the time from the start to the end of work on a key, or of the ownership
// of a partition. 0 < from <= to.
type span struct {
	subject   string
	partition int // -1 if it is not known
	process   *Process
	member    string
	from, to  int64
	open      bool  // no end was recorded
	why       Cause // why it ended; "" if it lasted until the end of the run
	left      int64 // when the process had left or died, 0 if it had not
	leftWhy   Cause // whether it left or died
	start     Record
	failed    bool    // work that returned an error
	writes    []int64 // when requests were sent
	held      int64   // when a fenced process stopped keeping the partition; 0 if it was not fenced
}

// piece is the part of a span in which it can overlap another span.
type piece struct {
	*span
	from, to int64
}

func byStart(a, b *span) int { return cmp.Compare(a.from, b.from) }

// atWork returns the parts of a span in which its process ran. With onlyWrites, only
// the times of its writes count after a pause.
func (s *span) atWork(onlyWrites bool) []piece {
	var pieces []piece
	from, paused := s.from, false
	for _, pause := range s.process.Pauses {
		to := pause.end()
		if to <= from || pause.From >= s.to {
			continue
		}
		if !paused || !onlyWrites {
			pieces = append(pieces, piece{s, from, max(from, pause.From)})
		}
		from, paused = min(to, s.to), true
	}
	switch {
	case paused && onlyWrites:
		for _, w := range s.writes {
			if w > pieces[0].to {
				pieces = append(pieces, piece{s, w, w})
			}
		}
	case from < s.to || !paused:
		pieces = append(pieces, piece{s, from, s.to})
	}
	return pieces
}

// untilPause returns the span up to the first pause in it.
func (s *span) untilPause() []piece {
	to := s.to
	for _, pause := range s.process.Pauses {
		if pause.end() > s.from && pause.From < to {
			to = max(s.from, pause.From)
		}
	}
	return []piece{{s, s.from, to}}
}

func (p Pause) end() int64 {
	if p.To == 0 {
		return 1<<63 - 1
	}
	return p.To
}

// overlaps finds the spans whose pieces intersect pieces of earlier spans of the
// same subject.
func overlaps(spans []*span, pieces func(*span) []piece) []Overlap {
	var all []piece
	for _, s := range spans {
		all = append(all, pieces(s)...)
	}
	slices.SortStableFunc(all, func(a, b piece) int { return cmp.Compare(a.from, b.from) })

	var found []Overlap
	seen := map[[2]*span]bool{}
	var last piece // the piece seen so far that ends last
	for _, next := range all {
		if last.span != nil && next.from < last.to && next.span != last.span && !seen[[2]*span{last.span, next.span}] {
			seen[[2]*span{last.span, next.span}] = true
			seen[[2]*span{next.span, last.span}] = true
			found = append(found, Overlap{
				Subject:   next.subject,
				Partition: next.partition,
				From:      next.from,
				To:        min(last.to, next.to),
				A:         last.describe(),
				B:         next.describe(),
			})
		}
		if last.span == nil || next.to > last.to {
			last = next
		}
	}
	return found
}

func (s *span) describe() Span {
	return Span{
		Process: s.process.Name, Member: s.member, From: s.from, To: s.to, Open: s.open,
		Version: s.start.Version, Token: s.start.Token,
	}
}

// losses finds the objects whose final version was not processed.
func losses(final map[string]string, work map[string][]*span) []Loss {
	var found []Loss
	for _, key := range slices.Sorted(maps.Keys(final)) {
		loss := Loss{Key: key, Want: final[key]}
		done := false
		for _, s := range work[key] {
			if s.open || s.failed {
				continue
			}
			loss.Got = s.start.Version
			done = done || loss.Got == loss.Want
		}
		if !done {
			found = append(found, loss)
		}
	}
	return found
}

// checkOrder finds tokens and versions of a key that decrease.
func (r *Report) checkOrder(key string, spans []*span) {
	type use struct {
		*span
		at int64
	}
	var uses []use
	for _, s := range spans {
		uses = append(uses, use{s, s.from})
		for _, w := range s.writes {
			uses = append(uses, use{s, w})
		}
	}
	slices.SortStableFunc(uses, func(a, b use) int { return cmp.Compare(a.at, b.at) })

	var token, version Use
	for _, u := range uses {
		now := Use{Process: u.process.Name, Member: u.member, Time: u.at}
		if now.Value = u.start.Token; isNumber(now.Value) {
			if less(now.Value, token.Value) {
				r.TokenDrops = append(r.TokenDrops, Drop{Key: key, Before: token, After: now})
			} else {
				token = now
			}
		}
		switch now.Value = u.start.Version; {
		case now.Value == Gone:
			version = Use{} // a new object with the same name starts over
		case isNumber(now.Value) && u.at == u.from:
			if less(now.Value, version.Value) {
				r.VersionDrops = append(r.VersionDrops, Drop{Key: key, Before: version, After: now})
			} else {
				version = now
			}
		}
	}
}

// less compares decimal numbers without leading zeros, of any length.
func less(a, b string) bool {
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return a < b
}

func isNumber(s string) bool {
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

func begin(processes []Process) int64 {
	var first int64
	for _, p := range processes {
		if len(p.Records) > 0 && (first == 0 || p.Records[0].Time < first) {
			first = p.Records[0].Time
		}
	}
	return first
}

func end(processes []Process) int64 {
	var last int64
	for _, p := range processes {
		if n := len(p.Records); n > 0 {
			last = max(last, p.Records[n-1].Time)
		}
	}
	return last
}

// keysByPartition counts the keys that were worked on.
func keysByPartition(work map[string][]*span) map[int]int {
	count := map[int]int{}
	for _, spans := range work {
		if p := spans[len(spans)-1].partition; p >= 0 {
			count[p]++
		}
	}
	return count
}

// partitionOf returns the partition of the record's key, -1 if the record does not have it.
func partitionOf(rec Record) int {
	if len(rec.Partitions) != 1 {
		return -1
	}
	return rec.Partitions[0]
}

func partitionName(partition int) string { return fmt.Sprintf("partition %d", partition) }
