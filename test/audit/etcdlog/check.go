// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package etcdlog

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/tom-ludwig/operator-scaling/test/audit"
	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// Kinds of findings.
const (
	StrayWrite        = "H1 stray write"
	InterleavedWrites = "H2 interleaved writes"
	Unclaimed         = "H3 work without a claim"
	Early             = "H4 early work"
	EarlyAfterDelete  = "H5 early work after a Lease was deleted"
)

// Result has the numbers of what was checked, and the findings, ordered by kind.
type Result struct {
	Writes   int // to Foos, by members
	Starts   int // of work, under a token
	Moves    int // of keys that were written to, from member to member
	Contests int // tenures of written keys that started during another tenure
	Findings []audit.Finding
}

// Err returns an error that lists the findings. It is nil if there are none.
func (r Result) Err() error { return audit.Err(r.Findings) }

// Check checks everything that one ring did in the namespace. processes has the records of
// its replicas.
func (l *Log) Check(ringName string, processes []worklog.Process) Result {
	return check(l.Leases(), l.Foos(), l.namespace, ringName, processes, clockOffset())
}

// clockOffset returns the offset that converts a time of package worklog to wall-clock time.
func clockOffset() time.Duration { return time.Duration(time.Now().UnixNano() - worklog.Now()) }

func check(leases []LeaseVersion, foos []FooVersion, namespace, ringName string, processes []worklog.Process, offset time.Duration) Result {
	var result Result
	log := versions(leases, ringName)
	writes := writesOf(foos, namespace)
	starts := startsOf(processes)
	keys := slices.AppendSeq(slices.Collect(maps.Keys(writes)), maps.Keys(starts))
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		c := &keyCheck{key: key, tenures: tenures(log, pointOf(key)), offset: offset, result: &result}
		c.writes(writes[key])
		for _, s := range starts[key] {
			c.start(s, s.at(offset))
		}
	}
	slices.SortStableFunc(result.Findings, func(a, b audit.Finding) int { return cmp.Compare(a.Kind, b.Kind) })
	return result
}

// write is a change of a Foo's status by a member.
type write struct {
	revision int64
	seen     time.Time
	member   string
}

// writesOf finds the members' writes: a status that differs from the one before was written
// by the member that it names.
func writesOf(foos []FooVersion, namespace string) map[string][]write {
	all := map[string][]write{}
	last := map[string]FooVersion{}
	for _, v := range foos {
		before := last[v.Name]
		last[v.Name] = v
		if v.Object == nil || v.Object.Status.Member == "" {
			continue
		}
		if before.Object != nil && before.Object.UID == v.Object.UID && equality.Semantic.DeepEqual(before.Object.Status, v.Object.Status) {
			continue
		}
		key := namespace + "/" + v.Name
		all[key] = append(all[key], write{v.Revision, v.Seen, v.Object.Status.Member})
	}
	return all
}

// start is the start of a piece of work.
type start struct {
	record  worklog.Record
	process *worklog.Process
}

func (s start) at(offset time.Duration) time.Time { return time.Unix(0, s.record.Time).Add(offset) }

func startsOf(processes []worklog.Process) map[string][]start {
	all := map[string][]start{}
	for i := range processes {
		for _, r := range processes[i].Records {
			if r.Event == worklog.Start {
				all[r.Key] = append(all[r.Key], start{r, &processes[i]})
			}
		}
	}
	return all
}

// keyCheck checks one key.
type keyCheck struct {
	key     string
	tenures []Tenure
	offset  time.Duration // of the clock of records
	result  *Result
}

func (c *keyCheck) found(kind, format string, args ...any) {
	c.result.Findings = append(c.result.Findings, audit.Finding{Kind: kind, Subject: c.key, What: fmt.Sprintf(format, args...)})
}

// writes checks H1 and H2.
func (c *keyCheck) writes(writes []write) {
	type span struct {
		tenure      int
		first, last int64
	}
	var spans []span
	byTenure := map[int]int{} // tenure -> index into spans
	for _, w := range writes {
		c.result.Writes++
		t := slices.IndexFunc(c.tenures, func(t Tenure) bool {
			return t.Member == w.member && t.From < w.revision && w.revision < t.To
		})
		if t < 0 { // otherwise it may be of another process of the Pod's name
			t = slices.IndexFunc(c.tenures, func(t Tenure) bool {
				return t.Member == w.member && t.From < w.revision && t.Grace > 0 && w.seen.Before(t.ToSeen.Add(t.Grace))
			})
		}
		if t < 0 {
			c.found(StrayWrite, "revision %d was written by %s, which did not claim the object; %s", w.revision, w.member, describe(c.tenures, w.revision))
			continue
		}
		if i, known := byTenure[t]; known {
			spans[i].last = w.revision
		} else {
			byTenure[t] = len(spans)
			spans = append(spans, span{t, w.revision, w.revision})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	for i := 1; i < len(spans); i++ {
		before, after := spans[i-1], spans[i]
		if c.tenures[before.tenure].Holder != c.tenures[after.tenure].Holder {
			c.result.Moves++
		}
		if after.first < before.last {
			c.found(InterleavedWrites, "%s wrote from revision %d to %d under one claim, %s from %d to %d",
				c.tenures[before.tenure].Holder, before.first, before.last, c.tenures[after.tenure].Holder, after.first, after.last)
		}
		if c.tenures[after.tenure].From < c.tenures[before.tenure].To {
			c.result.Contests++
		}
	}
}

// start checks H3, H4 and H5 for work that started at a time.
func (c *keyCheck) start(s start, at time.Time) {
	c.result.Starts++
	token, _ := strconv.ParseInt(s.record.Token, 10, 64)
	i := slices.IndexFunc(c.tenures, func(t Tenure) bool { return t.Holder == s.record.Member && t.Under(s.record.Token) })
	if i < 0 {
		c.found(Unclaimed, "%s worked under the token %q, which does not belong to any of its own claims; %s", s.record.Member, s.record.Token, describe(c.tenures, token))
		return
	}
	mine := c.tenures[i]
	if !mine.Open() && at.After(mine.ToSeen.Add(mine.Grace)) && !c.pausedBetween(s.process, mine.ToSeen, at) {
		c.found(Unclaimed, "%s started to work %v after its claim of revision %d had ended with revision %d",
			mine.Holder, at.Sub(mine.ToSeen), mine.From, mine.To)
	}
	for _, t := range c.tenures {
		// Each member learns of a version from its own watch, at about the same time.
		const margin = time.Second
		if t.Grace > 0 && t.Member != mine.Member && t.From < mine.From && at.After(t.ToSeen) && at.Before(t.ToSeen.Add(t.Grace-margin)) {
			c.found(EarlyAfterDelete, "%s started to work %v after the Lease of %s, which claimed the object, was deleted; that Lease counts for %v",
				mine.Holder, at.Sub(t.ToSeen), t.Holder, t.Grace.Round(time.Millisecond))
		}
	}
	// The first revision since the claim was confirmed in which no other Lease claims the object. The tenures are ordered by
	// start: one that starts before another and has ended does not cover a later revision.
	alone, after := token, Tenure{}
	for j, t := range c.tenures {
		if j != i && t.From <= alone && alone < t.To {
			alone, after = t.To, t
		}
	}
	switch {
	case alone == token:
	case alone == forever:
		c.found(Early, "%s worked although %s has not ended its claim of revision %d", mine.Holder, after.Holder, after.From)
	case alone >= mine.To:
		c.found(Early, "%s worked although its claim of revision %d was never the only one before it ended with revision %d", mine.Holder, mine.From, mine.To)
	case at.Before(after.ToSent):
		c.found(Early, "%s started to work %v before %s withdrew its claim with revision %d", mine.Holder, after.ToSent.Sub(at), after.Holder, after.To)
	}
}

// pausedBetween reports whether the process was paused at some time between from and to, or
// has just resumed: what it records then may have been decided before the pause.
func (c *keyCheck) pausedBetween(p *worklog.Process, from, to time.Time) bool {
	const justNow = 3 * time.Second
	for _, pause := range p.Pauses {
		began, ended := time.Unix(0, pause.From).Add(c.offset), time.Unix(0, pause.To).Add(c.offset)
		if began.Before(to) && (pause.To == 0 || ended.Add(justNow).After(from)) {
			return true
		}
	}
	return false
}

// describe names the members that claimed the key in a revision.
func describe(tenures []Tenure, revision int64) string {
	var holders []string
	for _, t := range tenures {
		if t.From <= revision && revision < t.To {
			holders = append(holders, t.Holder)
		}
	}
	if len(holders) == 0 {
		return "no member claimed it"
	}
	return fmt.Sprintf("claimed by %v", holders)
}
