// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import "sync/atomic"

// QueueCounters count what becomes of items; all queues of a member share them.
type QueueCounters struct {
	passed, parked, readmitted, dropped, refused, malformed, misrouted atomic.Uint64
}

// The methods of workqueue.Recorder.

func (c *QueueCounters) Passed()              { c.passed.Add(1) }
func (c *QueueCounters) Parked()              { c.parked.Add(1) }
func (c *QueueCounters) Readmitted()          { c.readmitted.Add(1) }
func (c *QueueCounters) Dropped()             { c.dropped.Add(1) }
func (c *QueueCounters) Refused()             { c.refused.Add(1) }
func (c *QueueCounters) Malformed(any, error) { c.malformed.Add(1) }

// Misrouted counts an item that was added to the queue of a member that does not own it,
// although the ring is stable. It is counted as dropped too.
func (c *QueueCounters) Misrouted() { c.misrouted.Add(1) }

// totals returns the counts by label value.
func (c *QueueCounters) totals() map[string]uint64 {
	return map[string]uint64{
		"passed":     c.passed.Load(),
		"parked":     c.parked.Load(),
		"readmitted": c.readmitted.Load(),
		"dropped":    c.dropped.Load(),
		"refused":    c.refused.Load(),
		"malformed":  c.malformed.Load(),
		"misrouted":  c.misrouted.Load(),
	}
}
