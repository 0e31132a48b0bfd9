// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

// catchUpPeriod is the time between two looks at the caches while they have not reached
// a watermark.
const catchUpPeriod = 5 * time.Millisecond

// catchUp reports to the machine which of the watermarks that it waits for the caches
// have reached. If there are others, the loop looks again soon.
func (l *loop) catchUp() {
	l.catching = false
	if l.ended != nil {
		return
	}
	pending := l.machine.PendingWatermarks()
	if pending == nil {
		return
	}
	reached := l.s.caches.Reached(pending)
	l.catching = len(reached) < len(pending)
	if len(reached) > 0 {
		l.step(claim.WatermarksReached{Watermarks: reached})
	}
}

// logCacheLag logs with which caches partitions became active that have waited for them
// in vain.
func (l *loop) logCacheLag(partitions uint64) {
	logger := l.logger.V(2)
	if !logger.Enabled() {
		return
	}
	lagging := l.machine.UnreachedWatermarks()
	logger.Info("Activated partitions although the caches have not reached what their former owners wrote", "member", l.holder,
		"partitions", partitions, "watermarks", lagging, "cached", l.s.caches.Cached(lagging))
}
