// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"cmp"
	"slices"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// ownership is the chart of the owners of all partitions.
type ownership struct {
	Partitions int
	Row        int // height of a partition, in pixels
	Height     int
	Labels     []label
	// From back to front: partitions that were kept without work on them, partitions that were owned, times without an owner,
	// which are invisible and only for the tooltip, and times with two owners.
	Kept, Owned, Gaps []group
	Overlaps          []overlap
}

type label struct{ Top, Partition int }

// group has the rectangles with the same style and tooltip.
type group struct {
	style
	Rects []rect
}

type style struct {
	Class, Process string        // of owners
	Cause          worklog.Cause // of gaps
	Before, After  string
}

// rect is a time on adjacent partitions.
type rect struct {
	X, W number // in milliseconds. W >= 0
	Y, H int    // in pixels
	End  string // why it ended; "" if it was released
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

// layer collects the stretches of each style, in the order of the first ones.
type layer struct {
	axis
	styles    []style
	stretches map[style][]stretch
}

func (l *layer) add(s style, partition int, from, to int64, end string) {
	from, to, ok := l.clip(from, to)
	if !ok {
		return
	}
	if l.stretches == nil {
		l.stretches = map[style][]stretch{}
	}
	if l.stretches[s] == nil {
		l.styles = append(l.styles, s)
	}
	l.stretches[s] = append(l.stretches[s], stretch{partition, from, to, end})
}

func drawOwnership(run Run, a axis, pods pods) ownership {
	o := ownership{Partitions: max(run.Partitions, 1)}
	owned, kept, gaps := layer{axis: a}, layer{axis: a}, layer{axis: a}
	for i, l := range run.Report.Processes {
		class := pods.class(i)
		for _, s := range l.Owned {
			o.Partitions = max(o.Partitions, s.Partition+1)
			for _, p := range s.Pieces() {
				switch p.State {
				case worklog.Fenced:
					kept.add(style{Class: class + " fenced", Process: l.Process}, s.Partition, p.From, p.To, "")
				case worklog.Paused:
					kept.add(style{Class: class + " paused", Process: l.Process}, s.Partition, p.From, p.To, "")
				default:
					owned.add(style{Class: class, Process: l.Process}, s.Partition, p.From, p.To, ending(p.Cause()))
				}
			}
		}
	}
	for _, g := range run.Report.Gaps {
		gaps.add(style{Cause: g.Cause, Before: g.Before, After: g.After}, g.Partition, g.From, g.To, "")
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
	o.Owned, o.Kept, o.Gaps = o.draw(owned), o.draw(kept), o.draw(gaps)
	for _, f := range run.Report.Findings {
		if from, to, ok := a.clip(f.From, f.To); ok && f.Kind == worklog.ActiveTwice {
			r := o.rect(a, stretch{partition: f.Partition, from: from, to: to})
			o.Overlaps = append(o.Overlaps, overlap{r, "two owners of " + f.Subject + ": " + f.First + " and " + f.Second})
		}
	}
	return o
}

func ending(why worklog.Cause) string {
	switch why {
	case worklog.Released:
		return ""
	case "":
		return "end"
	}
	return string(why)
}

func (o *ownership) rect(a axis, s stretch) rect {
	x := a.at(s.from)
	return rect{X: x, W: a.at(s.to) - x, Y: s.partition * o.Row, H: o.Row, End: s.end}
}

// draw combines stretches of equal times on adjacent partitions into one rectangle each. This reduces the file size of a long
// run to a fraction.
func (o *ownership) draw(l layer) []group {
	groups := make([]group, 0, len(l.styles))
	for _, style := range l.styles {
		all := l.stretches[style]
		slices.SortStableFunc(all, func(x, y stretch) int {
			return cmp.Or(cmp.Compare(x.from, y.from), cmp.Compare(x.to, y.to), cmp.Compare(x.end, y.end), cmp.Compare(x.partition, y.partition))
		})
		g := group{style: style}
		for i, s := range all {
			if i > 0 && s == (stretch{all[i-1].partition + 1, all[i-1].from, all[i-1].to, all[i-1].end}) {
				g.Rects[len(g.Rects)-1].H += o.Row
			} else {
				g.Rects = append(g.Rects, o.rect(l.axis, s))
			}
		}
		groups = append(groups, g)
	}
	return groups
}
