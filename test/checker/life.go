// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package checker

import (
	"cmp"
	"slices"
)

// Life is what one process was over time, for a picture or a closer look. All
// times are within the run, and From <= To everywhere.
type Life struct {
	Process string
	// Members are its identities, in the order in which it took them.
	Members []string
	// Begin is its first record; 0 if it has none. End is when it had died or had
	// left for good, or the end of the run.
	Begin, End int64
	// Ended says how: [Left], [Died], or "" if it went on. A process that was
	// killed after it had left is one that left.
	Ended Cause
	// Owned has what it was active on, in the order of partitions and times.
	Owned []Ownership
	// Joined, Fenced and Paused are the times in which it had its place on the
	// ring, was fenced, and did not run.
	Joined, Fenced, Paused []Interval
}

// Interval is a time. From <= To.
type Interval struct{ From, To int64 }

// Ownership is the time in which a process was active on a partition.
// From <= To <= Held.
type Ownership struct {
	Partition int
	Member    string
	From, To  int64
	// Held is until when the process kept the partition fenced, without working
	// on it: until it resumed, released it, left or died. It is To otherwise.
	Held int64
	// Cause is why it ended, "" if it had not when the run did.
	Cause Cause
	// Open says that no end was recorded.
	Open bool
}

// Lives says what each process was up to the end of the run, in the order of the
// processes. It is how [Check] reads their records; end is as [Options.End].
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

// begun adds an interval without an end, unless the last one has none either.
func begun(all []Interval, at int64) []Interval {
	if n := len(all); n > 0 && all[n-1].To == 0 {
		return all
	}
	return append(all, Interval{From: at})
}

// ended gives the last interval its end, if it has none.
func ended(all []Interval, at int64) []Interval {
	if n := len(all); n > 0 && all[n-1].To == 0 {
		all[n-1].To = max(at, all[n-1].From)
	}
	return all
}

// letGo notes that a partition which was kept while fenced is kept no longer, or is
// worked on again.
func (r *reading) letGo(partition int, at int64) {
	spans := r.owned[partition]
	if len(spans) == 0 {
		return
	}
	if last := spans[len(spans)-1]; last.why == Fenced && last.held == 0 {
		last.held = at
	}
}

func (r *reading) letGoAll(at int64) {
	for p := range r.active {
		r.letGo(p, at)
	}
}
