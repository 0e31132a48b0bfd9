// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

const (
	laneHeight = 54 // of a line of processes, in pixels
	chartBase  = 46 // bottom of the step chart, from the top of its line
	chartSize  = 32 // height of the step chart for the largest number of partitions that any process owned
)

// lane has the processes of a Pod.
type lane struct {
	Pod    pod
	Height int
	Lives  []laneLife
	Marks  []mark
}

// laneLife is one process.
type laneLife struct {
	Class, Process string
	Alive          rect
	Joined, Kept   []rect // Kept: fenced
	Paused         []rect
	Path           string // of the step chart
	Steps          string // its steps for the script: time, partitions, time, ...

	// Name distinguishes the process from the others of its Pod. It starts at From and has room until Room.
	Name       string
	From, Room number
	Top        int
}

// mark marks the end of a process.
type mark struct {
	At          number
	Top         int
	Sign, Title string
}

func drawLanes(lives []worklog.Life, a axis, pods pods) []lane {
	most := 1
	for _, l := range lives {
		for _, s := range ownedSteps(l, a) {
			most = max(most, s.owned)
		}
	}
	lanes := make([]lane, 0, len(pods.list))
	for _, pod := range pods.list {
		lane := lane{Pod: pod}
		var free []int64 // when each line is free again
		var last []int   // the last process in each line
		order := slices.Clone(pod.lives)
		slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(lives[i].Begin, lives[j].Begin) })
		for _, i := range order {
			l := lives[i]
			from, _, ok := a.clip(l.Begin, l.End)
			if !ok || l.Begin == 0 {
				continue
			}
			line := slices.IndexFunc(free, func(t int64) bool { return t <= l.Begin })
			if line < 0 {
				line = len(free)
				free, last = append(free, 0), append(last, 0)
			} else {
				lane.Lives[last[line]].Room = a.at(from)
			}
			free[line], last[line] = l.End, len(lane.Lives)
			top := line * laneHeight
			drawn := drawLife(l, pods.class(i), top, most, a)
			drawn.Name, drawn.From, drawn.Room = cmp.Or(strings.TrimPrefix(l.Process, pod.Name), l.Process), a.at(from), a.width()
			lane.Lives = append(lane.Lives, drawn)
			lane.Marks = append(lane.Marks, endMark(l, top, a)...)
		}
		lane.Height = max(1, len(free)) * laneHeight
		lanes = append(lanes, lane)
	}
	return lanes
}

func drawLife(l worklog.Life, class string, top, most int, a axis) laneLife {
	rects := func(y, h int, all ...worklog.Interval) []rect {
		var rects []rect
		for _, i := range all {
			if from, to, ok := a.clip(i.From, i.To); ok {
				x := a.at(from)
				rects = append(rects, rect{X: x, W: a.at(to) - x, Y: top + y, H: h})
			}
		}
		return rects
	}
	const head = chartBase - chartSize
	drawn := laneLife{
		Class: class, Process: l.Process, Top: top,
		Alive:  rects(head-1, chartSize+6, worklog.Interval{From: l.Begin, To: l.End})[0],
		Joined: rects(chartBase+1, 4, l.Joined...),
		Kept:   rects(head-1, chartSize+2, l.Fenced...),
		Paused: rects(head-1, chartSize+6, l.Paused...),
	}
	steps := ownedSteps(l, a)
	if len(steps) == 0 {
		return drawn
	}
	var path, text strings.Builder
	base := top + chartBase
	fmt.Fprintf(&path, "M%v %d", a.at(steps[0].at), base)
	for _, s := range steps {
		fmt.Fprintf(&path, "H%vV%v", a.at(s.at), number(base)-number(s.owned*chartSize)/number(most))
		fmt.Fprintf(&text, "%v %d ", a.at(s.at), s.owned)
	}
	if to := a.at(min(l.End, a.end)); steps[len(steps)-1].owned > 0 {
		fmt.Fprintf(&path, "H%v", to)
	}
	fmt.Fprintf(&path, "V%dZ", base)
	drawn.Path, drawn.Steps = path.String(), strings.TrimSpace(text.String())
	return drawn
}

// step is the number of partitions on which a process is active, starting at a time.
type step struct {
	at    int64
	owned int
}

// ownedSteps counts the partitions that a process owned. Ownership that is open at the
// end of the drawn time stays open.
func ownedSteps(l worklog.Life, a axis) []step {
	changes := map[int64]int{}
	for _, s := range l.Owned {
		from, to, ok := a.clip(s.From, s.To)
		if !ok {
			continue
		}
		changes[from]++
		if s.Cause != "" {
			changes[to]--
		}
	}
	steps := make([]step, 0, len(changes))
	for at, n := range changes {
		steps = append(steps, step{at, n})
	}
	slices.SortFunc(steps, func(x, y step) int { return cmp.Compare(x.at, y.at) })
	for i := 1; i < len(steps); i++ {
		steps[i].owned += steps[i-1].owned
	}
	return steps
}

func endMark(l worklog.Life, top int, a axis) []mark {
	at, _, ok := a.clip(l.End, l.End)
	if !ok {
		return nil
	}
	m := mark{At: a.at(at), Top: top}
	switch l.Ended {
	case worklog.Died:
		m.Sign, m.Title = "✕", l.Process+" died before "+a.since(l.End)
	case worklog.Left:
		m.Sign, m.Title = "▾", l.Process+" left at "+a.since(l.End)
	default:
		return nil
	}
	return []mark{m}
}
