// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

import (
	"cmp"
	"slices"
)

// Cause is the reason why an owner stopped owning a partition or a key.
type Cause string

const (
	Released Cause = "release" // it released the partition
	Left     Cause = "leave"   // it released everything
	Fenced   Cause = "fence"   // its last confirmed renewal was too old
	Died     Cause = "death"   // its process ended without leaving
	Paused   Cause = "pause"   // its process did not run
	Unknown  Cause = "unknown" // there are only records of work, and its process kept running
)

// ownershipGaps finds the times in which a partition had no owner, from the first
// owner to the end of the run, and counts how often another process took over.
func ownershipGaps(spans []*span, end int64) (gaps []Gap, handovers int) {
	type tenure struct {
		piece
		why Cause
	}
	var tenures []tenure
	for _, s := range spans {
		for _, p := range s.atWork(false) {
			t := tenure{p, Paused}
			if p.to == s.to {
				t.why = s.why
			}
			tenures = append(tenures, t)
		}
	}
	slices.SortStableFunc(tenures, func(a, b tenure) int { return cmp.Compare(a.from, b.from) })

	last := tenures[0] // the tenure seen so far that ends last
	for _, next := range tenures[1:] {
		if next.from > last.to {
			gaps = append(gaps, Gap{
				Subject: next.subject, Partition: next.partition, From: last.to, To: next.from, Cause: last.why,
				Before: last.process.Name, After: next.process.Name,
			})
		}
		if next.to < last.to {
			continue // the moment that a process needs to notice that it was paused
		}
		if next.process != last.process {
			handovers++
		}
		last = next
	}
	if last.to < end {
		gaps = append(gaps, Gap{
			Subject: last.subject, Partition: last.partition, From: last.to, To: end, Cause: last.why, Open: true,
			Before: last.process.Name,
		})
	}
	return gaps, handovers
}

// workGaps estimates from work alone the times in which a key had no owner: from when
// a process last worked on it, or had left or died, to when the next one starts. The
// former owner may have owned the key for longer than it worked on it, so a gap after
// an owner that kept running (Unknown) is an upper bound.
func workGaps(key string, spans []*span, end int64, final map[string]string) (gaps []Gap) {
	add := func(last *span, to int64, after string) {
		g := Gap{
			Subject: key, Partition: last.partition, From: last.to, To: to, Cause: Unknown, Keys: 1,
			Before: last.process.Name, After: after, Open: after == "",
		}
		if last.left != 0 && last.left < to {
			g.From, g.Cause = max(last.to, last.left), last.leftWhy
		}
		if g.From < g.To {
			gaps = append(gaps, g)
		}
	}
	last := spans[0] // the span seen so far that ends last
	for _, next := range spans[1:] {
		if next.process != last.process {
			add(last, next.from, next.process.Name)
		}
		if next.to >= last.to {
			last = next
		}
	}
	_, exists := final[key]
	if last.left != 0 && last.start.Version != Gone && (exists || final == nil) {
		add(last, end, "") // an orphan
	}
	return gaps
}
