// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"slices"
	"strings"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// times has the times without an owner that one kind of fault caused, sorted.
type times struct {
	all []time.Duration
	// alone has those during which no other fault was active on either of the two
	// replicas, or on the servers.
	alone []time.Duration
}

// unowned groups the times in which a partition had no owner by the fault that was active
// on the previous owner, or otherwise on all; "" for none.
func (r *Result) unowned() map[string]times {
	byKind := map[string]times{}
	for _, g := range r.Records.Gaps {
		causes := r.faultsOn(g)
		kind := ""
		if len(causes) > 0 {
			kind = causes[0].Kind
		}
		t := byKind[kind]
		t.all = append(t.all, g.Duration())
		if len(causes) <= 1 {
			t.alone = append(t.alone, g.Duration())
		}
		byKind[kind] = t
	}
	for _, t := range byKind {
		slices.Sort(t.all)
		slices.Sort(t.alone)
	}
	return byKind
}

// faultsOn returns the faults that may have caused a gap, the most likely one first: on
// the previous owner, then on the servers or the fleet, then on the next owner or begun
// later. A fault has effects until another member has taken over the partitions of the
// member that it stopped.
func (r *Result) faultsOn(g worklog.Gap) []Injection {
	after := int64(r.Options.LeaseDuration + 2*time.Second)
	var causes [3][]Injection
	for _, i := range slices.Backward(r.Injections) {
		before, next := podOf(g.Before) == i.Target, podOf(g.After) == i.Target
		all := i.Target == wholeFleet || i.Target == servers
		rank := 2
		switch {
		case i.From > g.To || g.From > i.To+after || !before && !next && !all:
			continue
		case i.From > g.From:
		case before:
			rank = 0
		case all:
			rank = 1
		}
		causes[rank] = append(causes[rank], i)
	}
	return slices.Concat(causes[:]...)
}

// podOf returns the Pod of a process, which is named <pod>.<number>.
func podOf(process string) string {
	pod, _, _ := strings.Cut(process, ".")
	return pod
}

// quantile returns the smallest of the sorted times that at least the given percentage of
// them do not exceed.
func quantile(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*percent+99)/100-1]
}
