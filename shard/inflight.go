// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// reportIdle reports to the machine which of the draining partitions no longer have work
// in flight.
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

// logBlockedDrain logs, every few seconds, what a drain is waiting for.
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
		l.logger.V(2).Info("Other members still claim partitions of this member", "member", l.holder, "blockers", blockers)
	}
}

func everything(workqueue.Work) bool { return true }

// items lists work in flight in readable form: each item and how long work on it has been
// running.
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
	return "; work in flight: " + strings.Join(items, ", ")
}
