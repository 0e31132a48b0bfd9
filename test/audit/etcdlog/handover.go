// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package etcdlog

import (
	"maps"
	"slices"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/audit/worklog"
)

// Handover is the move of a key from one member that worked on it to the next.
type Handover struct {
	Key      string
	From, To Tenure
	// Worked is when the next member first started to work on the key.
	Worked time.Time
}

// Unowned is an upper bound of the time in which no member could work on the key: from
// before the previous member sent its release until the next one started to work. It is
// valid only for a release; an evicted member stopped at another time.
func (h Handover) Unowned() time.Duration { return h.Worked.Sub(h.From.ToSent) }

// Handovers returns all handovers of a ring's keys, sorted by key and time.
func (l *Log) Handovers(ringName string, processes []worklog.Process) []Handover {
	return handovers(l.Leases(), ringName, processes, clockOffset())
}

func handovers(leases []LeaseVersion, ringName string, processes []worklog.Process, offset time.Duration) []Handover {
	log := versions(leases, ringName)
	starts := startsOf(processes)
	var all []Handover
	for _, key := range slices.Sorted(maps.Keys(starts)) {
		var last *Tenure
		for _, t := range tenures(log, pointOf(key)) {
			var worked time.Time // the first time
			for _, s := range starts[key] {
				at := s.at(offset)
				if t.under(s.record.Token) && (worked.IsZero() || at.Before(worked)) {
					worked = at
				}
			}
			if worked.IsZero() {
				continue
			}
			if last != nil && last.Holder != t.Holder && !last.Open() {
				all = append(all, Handover{Key: key, From: *last, To: t, Worked: worked})
			}
			last = &t
		}
	}
	return all
}
