// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

import (
	"cmp"
	"slices"
)

// Cause is the reason why an owner stopped owning a partition.
type Cause string

const (
	Released Cause = "release" // it released the partition
	Left     Cause = "leave"   // it released everything
	Fenced   Cause = "fence"   // its last confirmed renewal was too old
	Died     Cause = "death"   // its process ended without leaving
	Paused   Cause = "pause"   // its process did not run
)

// Span is the time from the start to the end of work on an object, or of the ownership of a partition.
// 0 < From <= To <= Held.
type Span struct {
	Partition int // if it is ownership
	From, To  int64
	// Held is when the process stopped keeping the partition while fenced, without working on it: when it resumed, released
	// it, left or died. Otherwise it equals To.
	Held int64
	// Cause is why the ownership ended, "" if it lasted until the end of the run.
	Cause Cause
	// Open means that no end was recorded.
	Open bool

	subject        string // the object, or "partition 17"
	process        *Process
	version, token string
	failed         bool    // work that returned an error
	writes         []int64 // when requests were sent
}

func byStart(a, b *Span) int { return cmp.Compare(a.From, b.From) }

// Piece is a part of a span.
type Piece struct {
	*Span
	From, To int64
	// State is "" if the process ran and was not fenced; Fenced; or Paused.
	State Cause
}

// Cause returns why the piece ended.
func (p Piece) Cause() Cause {
	if p.To < p.Span.To {
		return Paused
	}
	return p.Span.Cause
}

// Pieces splits the span into the times in which the process ran, was paused, and was fenced.
func (s *Span) Pieces() (all []Piece) {
	from := s.From
	for _, pause := range s.process.Pauses {
		to := min(pause.end(), s.To)
		if to <= from || pause.From >= s.To {
			continue
		}
		if pause.From > from {
			all = append(all, Piece{s, from, pause.From, ""})
		}
		all = append(all, Piece{s, max(s.From, pause.From), to, Paused})
		from = to
	}
	if from < s.To || s.From == s.To {
		all = append(all, Piece{s, from, s.To, ""})
	}
	if s.Held > s.To {
		all = append(all, Piece{s, s.To, s.Held, Fenced})
	}
	return all
}

// atWork returns the pieces in which the process ran. With onlyWrites, only the times of its writes count after a pause.
func (s *Span) atWork(onlyWrites bool) (running []Piece) {
	pieces := s.Pieces()
	for i, p := range pieces {
		if p.State == Paused && onlyWrites {
			for _, w := range s.writes {
				if w > pieces[i].From {
					running = append(running, Piece{s, w, w, ""})
				}
			}
			break
		}
		if p.State == "" {
			running = append(running, p)
		}
	}
	return running
}

// untilPause returns the span up to the first pause in it.
func (s *Span) untilPause() []Piece {
	if first := s.Pieces()[0]; first.State == "" {
		return []Piece{first}
	}
	return nil
}

// gaps finds the times in which a partition had no owner, from the first owner to the end of the run, and counts how often
// another process took over.
func (r *Report) gaps(spans []*Span) {
	var running []Piece
	for _, s := range spans {
		running = append(running, s.atWork(false)...)
	}
	if len(running) == 0 {
		return
	}
	slices.SortStableFunc(running, func(a, b Piece) int { return cmp.Compare(a.From, b.From) })

	last := running[0] // the piece seen so far that ends last
	gap := func(to int64, after string) {
		if last.To < to {
			r.Gaps = append(r.Gaps, Gap{
				Subject: last.subject, Partition: last.Partition, From: last.To, To: to,
				Cause: last.Cause(), Before: last.process.Name, After: after, Open: after == "",
			})
		}
	}
	for _, next := range running[1:] {
		gap(next.From, next.process.Name)
		if next.To < last.To {
			continue // the moment that a process needs to notice that it was paused
		}
		if next.process != last.process {
			r.Handovers++
		}
		last = next
	}
	gap(r.End, "")
}
