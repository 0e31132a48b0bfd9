// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

import (
	"cmp"
	"slices"
)

// Life is the state of one process over time, for charts and detailed analysis. All
// times are within the run, and From <= To everywhere.
type Life struct {
	Process string
	// Members are its identities, in the order in which it took them.
	Members []string
	// Begin is the time of its first record; 0 if it has none. End is when it had died
	// or left for good, or the end of the run.
	Begin, End int64
	// Ended is how it ended: [Left], [Died], or "" if it kept running. A process that
	// was killed after it had left counts as one that left.
	Ended Cause
	// Owned has the partitions on which it was active, ordered by partition and time.
	Owned []Ownership
	// Joined, Fenced and Paused are the times in which it was on the ring, was fenced,
	// and did not run.
	Joined, Fenced, Paused []Interval
}

// Interval is a time span. From <= To.
type Interval struct{ From, To int64 }

// Ownership is the time in which a process was active on a partition.
// From <= To <= Held.
type Ownership struct {
	Partition int
	Member    string
	From, To  int64
	// Held is when the process stopped keeping the partition while fenced, without
	// working on it: when it resumed, released it, left or died. Otherwise it equals To.
	Held int64
	// Cause is why it ended, "" if it lasted until the end of the run.
	Cause Cause
	// Open means that no end was recorded.
	Open bool
}

// Lives returns the state of each process over time, until the end of the run, in the
// order of the processes. [Check] reads their records in the same way. atEnd has the
// meaning of [Options.End].
func Lives(processes []Process, atEnd int64) []Life {
	if atEnd == 0 {
		atEnd = end(processes)
	}
	lives := make([]Life, len(processes))
	for i := range processes {
		lives[i] = read(&processes[i], atEnd).life(atEnd)
	}
	return lives
}

func (r *reading) life(end int64) Life {
	l := Life{Process: r.process.Name, Members: r.summary.Members, End: r.end}
	if records := r.process.Records; len(records) > 0 {
		l.Begin = min(records[0].Time, r.end)
	}
	at, why := r.left()
	if l.Ended = why; why == Left {
		l.End = min(l.End, max(at, l.Begin))
	}
	for partition, spans := range r.owned {
		for _, s := range spans {
			to := max(s.from, s.to)
			l.Owned = append(l.Owned, Ownership{
				Partition: partition, Member: s.member,
				From: s.from, To: to, Held: max(to, s.held), Cause: s.why, Open: s.open,
			})
		}
	}
	slices.SortStableFunc(l.Owned, func(a, b Ownership) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.From, b.From))
	})
	l.Joined, l.Fenced = ended(r.joins, l.End), ended(r.fences, l.End)
	for _, p := range r.process.Pauses {
		if p.From < end {
			l.Paused = append(l.Paused, Interval{p.From, max(p.From, min(p.end(), r.end))})
		}
	}
	return l
}

// begun adds an interval without an end, unless the last one has no end yet.
func begun(all []Interval, at int64) []Interval {
	if n := len(all); n > 0 && all[n-1].To == 0 {
		return all
	}
	return append(all, Interval{From: at})
}

// ended ends the last interval, if it has no end yet.
func ended(all []Interval, at int64) []Interval {
	if n := len(all); n > 0 && all[n-1].To == 0 {
		all[n-1].To = max(at, all[n-1].From)
	}
	return all
}

// endHeld notes that the process no longer keeps a partition that it kept while fenced,
// or works on it again.
func (r *reading) endHeld(partition int, at int64) {
	spans := r.owned[partition]
	if len(spans) == 0 {
		return
	}
	if last := spans[len(spans)-1]; last.why == Fenced && last.held == 0 {
		last.held = at
	}
}

func (r *reading) endAllHeld(at int64) {
	for p := range r.active {
		r.endHeld(p, at)
	}
}
