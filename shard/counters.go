// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"sync/atomic"

	"github.com/tom-ludwig/operator-scaling/informer"
)

// informerCounters count what becomes of events; shared by all informers of a Sharder.
type informerCounters [informer.Outcomes]atomic.Uint64

// Record implements informer.Recorder.
func (c *informerCounters) Record(o informer.Outcome) { c[o].Add(1) }

// totals returns the counts by label value.
func (c *informerCounters) totals() map[string]uint64 {
	totals := make(map[string]uint64, len(c))
	for o := range c {
		totals[informer.Outcome(o).String()] = c[o].Load()
	}
	return totals
}

// queueCounters count what becomes of items; shared by all queues of a Sharder.
type queueCounters struct {
	passed, parked, readmitted, dropped, refused, malformed atomic.Uint64
}

// The methods of workqueue.Recorder.

func (c *queueCounters) Passed()              { c.passed.Add(1) }
func (c *queueCounters) Parked()              { c.parked.Add(1) }
func (c *queueCounters) Readmitted()          { c.readmitted.Add(1) }
func (c *queueCounters) Dropped()             { c.dropped.Add(1) }
func (c *queueCounters) Refused()             { c.refused.Add(1) }
func (c *queueCounters) Malformed(any, error) { c.malformed.Add(1) }

// totals returns the counts by label value.
func (c *queueCounters) totals() map[string]uint64 {
	return map[string]uint64{
		"passed":     c.passed.Load(),
		"parked":     c.parked.Load(),
		"readmitted": c.readmitted.Load(),
		"dropped":    c.dropped.Load(),
		"refused":    c.refused.Load(),
		"malformed":  c.malformed.Load(),
	}
}
