// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/test/audit"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// result is how one membership change affected the objects.
type result struct {
	took  time.Duration // until every object was with its owner on the new ring
	moved int           // objects whose owner changed
	ideal int           // objects of the member that joined or left: that many must move
	// Without an owner, over the objects that moved or had no owner for a while.
	longest, median time.Duration
}

// measure reads from the records of the replicas how a membership change that began at the given time affected the objects.
// before is nil for the first ring. ok is false if the records do not show yet that every object is with its owner.
func measure(report *worklog.Report, objects []object, before, after *ring.Ring, began int64) (r result, ok bool) {
	type place struct {
		owner     string
		partition int
	}
	since := map[place]int64{}
	for _, p := range report.Processes {
		for _, o := range p.Owned {
			if o.Open {
				since[place{p.Process, o.Partition}] = o.From
			}
		}
	}
	unowned := map[int]time.Duration{} // by partition
	for _, g := range report.Gaps {
		if g.To > began {
			unowned[g.Partition] += g.Duration()
		}
	}
	var gaps []time.Duration
	for _, o := range objects {
		owner, _ := after.Owner(o.partition)
		from, ok := since[place{owner, o.partition}]
		if !ok {
			return result{}, false
		}
		r.took = max(r.took, time.Duration(from-began))
		if before == nil {
			continue
		}
		last, _ := before.Owner(o.partition)
		if last != owner {
			r.moved++
		}
		if gap := unowned[o.partition]; last != owner || gap > 0 {
			gaps = append(gaps, gap)
		}
		if !slices.Contains(after.Members(), last) || !slices.Contains(before.Members(), owner) {
			r.ideal++
		}
	}
	if len(gaps) > 0 {
		slices.Sort(gaps)
		r.longest, r.median = gaps[len(gaps)-1], gaps[len(gaps)/2]
	}
	return r, true
}

// summary has the figures of the demo.
type summary struct {
	objects int
	steps   []outcome
	members []row // before they were stopped for good
	unowned int   // objects without an owner at that time
	verdict *worklog.Report
}

// outcome is a step and its result.
type outcome struct {
	name string
	result
	moves  bool          // objects change their owner
	atMost time.Duration // the guaranteed maximum time without an owner; zero if there is none
}

// err returns the guarantees that were violated, nil if there are none.
func (s summary) err() error {
	err := s.verdict.Err()
	if s.unowned > 0 {
		err = errors.Join(err, fmt.Errorf("%s without an owner at the end", plural(s.unowned, "object")))
	}
	return err
}

// table returns the summary as lines of at most 80 columns.
func (s summary) table() []string {
	v, rule := s.verdict, paint(faint, strings.Repeat("─", 79))
	lines := []string{
		"",
		paint(strong, plural(s.objects, "object")+", "+plural(len(s.members), "replica")+", "+plural(v.Reconciles, "reconcile")),
		rule,
		paint(faint, "                         settled objects           time without an owner"),
		paint(faint, "what happened              after   moved   ideal      median    longest"),
	}
	for _, o := range s.steps {
		line := fmt.Sprintf("%-22s %9s", o.name, seconds(o.took))
		if o.moves {
			longest := normal
			if o.atMost > 0 && o.longest > o.atMost {
				longest = warn
			}
			line += fmt.Sprintf(" %7d %7d   %9s", o.moved, o.ideal, seconds(o.median)) + paint(longest, fmt.Sprintf("  %9s", seconds(o.longest)))
		}
		if o.atMost > 0 {
			line += paint(faint, fmt.Sprintf("  ≤ %.0f s", o.atMost.Seconds()))
		}
		lines = append(lines, line)
	}
	lines = append(lines, rule, paint(faint, "replica                          objects reconciles"))
	for i, m := range s.members {
		lines = append(lines, paint(memberStyle(i), fmt.Sprintf("%-22s", m.name))+paint(faint, fmt.Sprintf(" %9s", m.phase))+
			fmt.Sprintf(" %7d %10d", m.owned, v.Processes[i].Reconciles))
	}
	count := func(kinds ...string) (n int) {
		for _, kind := range kinds {
			n += audit.Count(v.Findings, kind)
		}
		return n
	}
	lines = append(lines, rule,
		judged(count(worklog.Overlap, worklog.ActiveTwice), "objects that two members worked on at the same time"),
		judged(count(worklog.Loss), "objects not processed at their last version"),
		judged(s.unowned, "objects without an owner at the end"))
	if others := count(worklog.TokenDrop, worklog.Problem); others > 0 {
		lines = append(lines, judged(others, "other violations in the records"))
	}
	return append(lines, rule)
}

// judged is a line with a number that must be 0.
func judged(n int, what string) string {
	if n == 0 {
		return paint(good, "✔") + fmt.Sprintf(" %7d  %s", n, what)
	}
	return paint(bad, fmt.Sprintf("✘ %7d  %s", n, what))
}
