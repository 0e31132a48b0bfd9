// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/claim"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// reportIdle tells the machine which of the partitions that are being drained
// have no work in flight any more.
func (l *loop) reportIdle() {
	if l.ended != nil {
		return
	}
	draining := l.machine.Draining()
	if draining.Empty() {
		return
	}
	idle := draining.Clone()
	_, queues := l.s.components()
	for _, q := range queues {
		for _, work := range q.InFlight() {
			idle.Remove(ring.PartitionOf(work.Point, idle.Partitions()))
		}
	}
	if !idle.Empty() {
		l.step(claim.Idle{Partitions: idle})
	}
}

// tellBlocked says, every few seconds, what a drain is waiting for.
func (l *loop) logBlockedDrain() {
	const every = 5 * time.Second
	if time.Since(l.drainLoggedAt) < every {
		return
	}
	l.drainLoggedAt = time.Now()
	if draining := l.machine.Draining(); !draining.Empty() {
		items := l.s.items(func(w workqueue.Work) bool { return draining.HasPoint(w.Point) })
		l.logger.Info("A drain is waiting for work to end", "member", l.holder, "partitions", draining.Len(), "items", items)
	}
	if d := l.changes.stuck(); d >= every {
		l.logger.Error(nil, "OnChange has not returned; later changes wait for it", "member", l.holder, "running", d)
	}
	if blockers := l.machine.Blockers(); len(blockers) > 0 && l.machine.Serving() {
		l.logger.V(2).Info("Partitions of this member are still claimed by others", "member", l.holder, "blockers", blockers)
	}
}

func everything(workqueue.Work) bool { return true }

// items lists work in flight for people: item and how long it has been running.
func (s *Sharder) items(which func(workqueue.Work) bool) []string {
	var items []string
	_, queues := s.components()
	for _, q := range queues {
		for _, work := range q.InFlight() {
			if which(work) {
				items = append(items, fmt.Sprintf("%v (%v)", work.Item, time.Since(work.Since).Round(time.Millisecond)))
			}
		}
	}
	slices.Sort(items)
	return items
}

func (s *Sharder) workInFlight() int {
	n := 0
	_, queues := s.components()
	for _, q := range queues {
		n += len(q.InFlight())
	}
	return n
}

func (l *loop) stuckWork() string {
	items := l.s.items(everything)
	if len(items) == 0 {
		return ""
	}
	return "; still at work on " + strings.Join(items, ", ")
}
