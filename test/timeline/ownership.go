// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// ownership is the chart of the owners of all partitions.
type ownership struct {
	Partitions int
	Row        int // height of a partition, in pixels
	Height     int
	Labels     []label
	// From back to front: partitions that were kept without work on them, partitions
	// that were owned.
	Kept, Owned []group
	Gaps        []gapGroup
	Overlaps    []overlap
}

type label struct{ Top, Partition int }

// group has the rectangles of one process with the same style.
type group struct {
	Class   string
	Process string
	Rects   []rect
}

// rect is a time of one process on adjacent partitions.
type rect struct {
	X, W number // in milliseconds. W >= 0
	Y, H int    // in pixels
	End  string // why it ended; "" if it was released
}

type gapGroup struct {
	Cause         worklog.Cause
	Before, After string
	Rects         []rect
}

type overlap struct {
	rect
	Title string
}

// stretch is a time on one partition, before stretches are merged.
type stretch struct {
	partition int
	from, to  int64 // clipped
	end       string
}

func drawOwnership(run Run, lives []worklog.Life, a axis, pods pods) ownership {
	o := ownership{Partitions: max(run.Partitions, 1)}
	for _, l := range lives {
		for _, s := range l.Owned {
			o.Partitions = max(o.Partitions, s.Partition+1)
		}
	}
	o.Row = min(max(640/o.Partitions, 2), 10)
	if o.Partitions > 1000 {
		o.Row = 1
	}
	o.Height = o.Partitions * o.Row
	step := 1
	for step*o.Row < 40 {
		step *= 2
	}
	for p := 0; p < o.Partitions; p += step {
		o.Labels = append(o.Labels, label{p * o.Row, p})
	}

	for i, l := range lives {
		owned, fenced, paused := stretches(l, a)
		class := pods.class(i)
		for _, part := range []struct {
			to    *[]group
			class string
			all   []stretch
		}{
			{&o.Owned, class, owned},
			{&o.Kept, class + " fenced", fenced},
			{&o.Kept, class + " paused", paused},
		} {
			if len(part.all) > 0 {
				*part.to = append(*part.to, group{part.class, l.Process, o.merge(part.all, a)})
			}
		}
	}
	o.gaps(run.Report.Gaps, a)
	o.overlaps(run.Report, a)
	return o
}

// stretches splits what a process owned into the times in which it was active and
// running, was fenced, and was active but paused.
func stretches(l worklog.Life, a axis) (owned, fenced, paused []stretch) {
	add := func(to *[]stretch, s worklog.Ownership, from, until int64, end string) {
		if from, until, ok := a.clip(from, until); ok {
			*to = append(*to, stretch{s.Partition, from, until, end})
		}
	}
	for _, s := range l.Owned {
		from, end := s.From, ending(s)
		for _, pause := range l.Paused {
			if pause.To <= from || pause.From >= s.To {
				continue
			}
			if pause.From > from {
				add(&owned, s, from, pause.From, string(worklog.Paused))
			}
			from = min(pause.To, s.To)
			add(&paused, s, max(s.From, pause.From), from, "")
		}
		if from < s.To || s.From == s.To {
			add(&owned, s, from, s.To, end)
		}
		if s.Held > s.To {
			add(&fenced, s, s.To, s.Held, "")
		}
	}
	return owned, fenced, paused
}

func ending(s worklog.Ownership) string {
	switch {
	case s.Cause == worklog.Released:
		return ""
	case s.Cause == "":
		return "end"
	}
	return string(s.Cause)
}

// merge combines stretches of equal times on adjacent partitions into one rectangle
// each. This reduces the file size of a long run to a fraction.
func (o *ownership) merge(all []stretch, a axis) []rect {
	slices.SortStableFunc(all, func(x, y stretch) int {
		return cmp.Or(cmp.Compare(x.from, y.from), cmp.Compare(x.to, y.to), cmp.Compare(x.end, y.end), cmp.Compare(x.partition, y.partition))
	})
	var rects []rect
	var last stretch
	for i, s := range all {
		if i > 0 && s.from == last.from && s.to == last.to && s.end == last.end && s.partition == last.partition+1 {
			rects[len(rects)-1].H += o.Row
		} else {
			x := a.at(s.from)
			rects = append(rects, rect{X: x, W: a.at(s.to) - x, Y: s.partition * o.Row, H: o.Row, End: s.end})
		}
		last = s
	}
	return rects
}

// gaps draws the gaps invisibly, so that the tooltip can describe them.
func (o *ownership) gaps(gaps []worklog.Gap, a axis) {
	type kind struct {
		cause         worklog.Cause
		before, after string
	}
	var order []kind
	all := map[kind][]stretch{}
	for _, g := range gaps {
		from, to, ok := a.clip(g.From, g.To)
		if !ok || g.Partition < 0 || g.Partition >= o.Partitions || len(o.Owned) == 0 {
			continue
		}
		k := kind{g.Cause, g.Before, g.After}
		if all[k] == nil {
			order = append(order, k)
		}
		all[k] = append(all[k], stretch{g.Partition, from, to, ""})
	}
	for _, k := range order {
		o.Gaps = append(o.Gaps, gapGroup{k.cause, k.before, k.after, o.merge(all[k], a)})
	}
}

func (o *ownership) overlaps(r *worklog.Report, a axis) {
	for _, kind := range []struct {
		name string
		all  []worklog.Overlap
	}{
		{"two owners of ", r.ActiveTwice},
		{"two processes work on ", r.Overlaps},
	} {
		for _, found := range kind.all {
			from, to, ok := a.clip(found.From, found.To)
			if !ok || found.Partition < 0 || found.Partition >= o.Partitions {
				continue
			}
			x := a.at(from)
			o.Overlaps = append(o.Overlaps, overlap{
				rect{X: x, W: a.at(to) - x, Y: found.Partition * o.Row, H: o.Row},
				kind.name + found.Subject + " (partition " + strconv.Itoa(found.Partition) + "): " + found.A.Process + " and " + found.B.Process,
			})
		}
	}
}
