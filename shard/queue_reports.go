// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard/internal/metrics"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// misroutedAfter is how long the partitions of a member must have stayed as they are, before
// an Add for another member's partition counts as misrouted. After a handover, such Adds are
// normal for a moment.
const misroutedAfter = 30 * time.Second

// queueReports counts what becomes of the items of a queue, and logs the first item of each
// kind of fault: there may be one for every object, so the others are only counted.
type queueReports[T comparable] struct {
	*metrics.QueueCounters
	s           *Sharder
	name        string // of the queue, for the log
	onMisrouted func(item T)
	namespaced  atomic.Bool // an item had a namespace

	noPartitionOnce, limiterOnce, misroutedOnce, noNamespaceOnce sync.Once
}

func (r *queueReports[T]) logger() klog.Logger {
	logger := r.s.logger.Load()
	if logger == nil { // items may be added before Run
		background := klog.LoggerWithValues(klog.Background(), "ring", r.s.cfg.Name, "pod", r.s.cfg.PodName)
		logger = &background
	}
	return klog.LoggerWithValues(*logger, "queue", r.name)
}

// Malformed implements workqueue.Recorder.
func (r *queueReports[T]) Malformed(item any, err error) {
	r.QueueCounters.Malformed(item, err)
	if errors.Is(err, workqueue.ErrLimiterPanic) {
		r.limiterOnce.Do(func() {
			r.logger().Error(err, "The retries of an item cannot be determined; further items are only counted", "item", item)
		})
		return
	}
	r.noPartitionOnce.Do(func() {
		r.logger().Error(err, "An item belongs to no partition: other members may work on its object at the same time, and no handover waits for it. Add items of the type cache.ObjectName, or create the queue with WithItemKey; further items are only counted", "item", item, "type", fmt.Sprintf("%T", item))
	})
}

// foreignAdd is called with an item that Add has dropped. While other members still claim
// partitions of this member, the item may be of one of them, and is not misrouted then.
func (r *queueReports[T]) foreignAdd(item T) {
	view := r.s.member.Published.View()
	if !view.Status.Serving || len(view.Status.Blockers) > 0 || view.Fence == nil || view.Status.At.Sub(view.Moved) < misroutedAfter {
		return
	}
	r.Misrouted()
	if r.onMisrouted != nil {
		r.onMisrouted(item)
		return
	}
	if r.s.unfiltered.Load() {
		return // its handlers add the items of all members, and each member adds its own
	}
	r.misroutedOnce.Do(func() {
		r.logger().Info("Warning: an item was added that belongs to another member, although the ring is stable, and was dropped; if its key is not the key of the object that it was made from, no member works on it; see WithMisroutedHook", "item", item)
	})
}

// noNamespace reports an item without a namespace in a queue that has had items with one.
func (r *queueReports[T]) noNamespace(name string) {
	r.noNamespaceOnce.Do(func() {
		r.logger().Info("Warning: an item without a namespace was added to a queue of namespaced items: the member that works on it may not be the one that owns its object", "item", name)
	})
}
