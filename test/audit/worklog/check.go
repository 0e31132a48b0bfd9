// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/tom-ludwig/operator-scaling/test/audit"
)

// Kinds of findings.
const (
	Overlap     = "F1 overlapping work"
	ActiveTwice = "F2 partition active on two members"
	TokenDrop   = "F3 token decreased"
	Loss        = "F4 last version not processed"
	VersionDrop = "F6 version decreased"
	Problem     = "F7 impossible record"
)

// Options describe what is known about a run. The zero value is valid.
type Options struct {
	// End is when the run ended; later records are ignored. Set it before the replicas are stopped for good. Otherwise the
	// partitions that they release then count as gaps. 0: the time of the last record.
	End int64
	// Final has the version of each object that existed at the end, as in [Record.Version]; [Gone] for an object whose
	// deletion must have been processed. Nil: losses are not checked.
	Final map[string]string
	// WritesRecorded means that every mutating request was recorded. After a pause, a process then counts as working only at
	// the times of its writes. Otherwise it counts as working until its work ends.
	WritesRecorded bool
	// WorkAlone ignores the records about partitions. Use it for runs in which the number of partitions changes, because
	// the same partition number then stands for different partitions.
	WorkAlone bool
}

// Check checks the records of all processes of a run.
func Check(processes []Process, options Options) *Report {
	r := &Report{KeysByReconciles: map[int]int{}}
	for _, p := range processes {
		if n := len(p.Records); n > 0 {
			if first := p.Records[0].Time; r.Begin == 0 || first < r.Begin {
				r.Begin = first
			}
			r.End = max(r.End, p.Records[n-1].Time)
		}
	}
	r.End = cmp.Or(options.End, r.End)

	work := map[string][]*Span{}
	owned := map[int][]*Span{}
	for i := range processes {
		p := r.read(&processes[i])
		r.Processes = append(r.Processes, p.Life)
		r.Reconciles += p.Reconciles
		r.Failed += p.Failed
		for _, s := range p.work {
			work[s.subject] = append(work[s.subject], s)
		}
		for _, s := range p.Owned {
			if !options.WorkAlone {
				owned[s.Partition] = append(owned[s.Partition], s)
			}
		}
	}
	r.Keys = len(work)
	for _, key := range slices.Sorted(maps.Keys(work)) {
		spans := work[key]
		slices.SortStableFunc(spans, byStart)
		r.KeysByReconciles[len(spans)]++
		for i, s := range spans {
			if i > 0 && spans[i-1].process != s.process {
				r.Moves++
			}
		}
		r.overlaps(Overlap, spans, func(s *Span) []Piece { return s.atWork(options.WritesRecorded) })
		r.checkOrder(key, spans)
	}
	for _, partition := range slices.Sorted(maps.Keys(owned)) {
		spans := owned[partition]
		slices.SortStableFunc(spans, byStart)
		r.overlaps(ActiveTwice, spans, (*Span).untilPause)
		r.gaps(spans)
	}
	r.losses(options.Final, work)
	slices.SortStableFunc(r.Findings, func(a, b audit.Finding) int { return cmp.Compare(a.Kind, b.Kind) })
	r.summarize()
	return r
}

func (r *Report) found(f audit.Finding) { r.Findings = append(r.Findings, f) }

// overlaps finds the spans of a subject whose pieces intersect pieces of earlier spans.
func (r *Report) overlaps(kind string, spans []*Span, pieces func(*Span) []Piece) {
	var all []Piece
	for _, s := range spans {
		all = append(all, pieces(s)...)
	}
	slices.SortStableFunc(all, func(a, b Piece) int { return cmp.Compare(a.From, b.From) })

	describe := func(s *Span) string {
		to := "to " + r.at(s.To)
		if s.Open {
			to = "without a recorded end"
		}
		return fmt.Sprintf("%s from %s %s", s.process.Name, r.at(s.From), to)
	}
	seen := map[[2]*Span]bool{}
	var last Piece // the piece seen so far that ends last
	for _, next := range all {
		if last.Span != nil && next.From < last.To && next.Span != last.Span && !seen[[2]*Span{last.Span, next.Span}] {
			seen[[2]*Span{last.Span, next.Span}] = true
			seen[[2]*Span{next.Span, last.Span}] = true
			from, to := next.From, min(last.To, next.To)
			r.found(audit.Finding{
				Kind: kind, Subject: next.subject, Partition: next.Partition, From: from, To: to, First: last.process.Name, Second: next.process.Name,
				What: fmt.Sprintf("for %s at %s: %s, %s", duration(from, to), r.at(from), describe(last.Span), describe(next.Span)),
			})
		}
		if last.Span == nil || next.To > last.To {
			last = next
		}
	}
}

// losses finds the objects whose final version was not processed.
func (r *Report) losses(final map[string]string, work map[string][]*Span) {
	for _, key := range slices.Sorted(maps.Keys(final)) {
		got, done := "", false
		for _, s := range work[key] {
			if !s.Open && !s.failed {
				got = s.version
				done = done || got == final[key]
			}
		}
		switch {
		case done:
		case got == "":
			r.found(audit.Finding{Kind: Loss, Subject: key, What: "no replica finished processing it"})
		default:
			r.found(audit.Finding{Kind: Loss, Subject: key, What: fmt.Sprintf("is at version %s, last processed at version %s", final[key], got)})
		}
	}
}

// checkOrder finds tokens and versions of a key that decrease.
func (r *Report) checkOrder(key string, spans []*Span) {
	type use struct {
		*Span
		at int64
	}
	var uses []use
	for _, s := range spans {
		uses = append(uses, use{s, s.From})
		for _, w := range s.writes {
			uses = append(uses, use{s, w})
		}
	}
	slices.SortStableFunc(uses, func(a, b use) int { return cmp.Compare(a.at, b.at) })

	drop := func(kind, before, after string, x, y use) audit.Finding {
		return audit.Finding{
			Kind: kind, Subject: key, From: y.at, To: y.at, First: x.process.Name, Second: y.process.Name,
			What: fmt.Sprintf("%s at %s by %s, then %s at %s by %s", before, r.at(x.at), x.process.Name, after, r.at(y.at), y.process.Name),
		}
	}
	var token, version use
	for _, u := range uses {
		switch {
		case !isNumber(u.token):
		case token.Span != nil && less(u.token, token.token):
			r.found(drop(TokenDrop, token.token, u.token, token, u))
		default:
			token = u
		}
		switch {
		case u.version == Gone:
			version = use{} // a new object with the same name starts over
		case !isNumber(u.version) || u.at != u.From:
		case version.Span != nil && less(u.version, version.version):
			r.VersionDrops = append(r.VersionDrops, drop(VersionDrop, version.version, u.version, version, u))
		default:
			version = u
		}
	}
}

// less compares decimal numbers without leading zeros, of any length.
func less(a, b string) bool {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) < 0
}

func isNumber(s string) bool {
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}
