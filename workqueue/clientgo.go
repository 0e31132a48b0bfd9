// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"k8s.io/client-go/util/workqueue"
)

// base is the Queue as client-go's delaying layer above it sees it: a plain queue. Its
// ShutDown is the lowest layer's, whereas the Queue's ShutDown starts at the top.
type base[T comparable] struct{ *Queue[T] }

func (b base[T]) Add(item T)         { b.add(item, queued) }
func (b base[T]) ShutDown()          { b.shutDown(false) }
func (b base[T]) ShutDownWithDrain() { b.shutDown(true) }

// timersOf returns the layer that serves AddAfter: client-go's, or the user's own. The latter
// stores the items whose time has come, so a goroutine moves them to the queue.
func timersOf[T comparable](q *Queue[T], config workqueue.TypedRateLimitingQueueConfig[T]) workqueue.TypedDelayingInterface[T] {
	own := config.DelayingQueue
	if own == nil {
		return workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[T]{
			Name: config.Name, MetricsProvider: config.MetricsProvider, Clock: config.Clock, Queue: base[T]{q},
		})
	}
	go func() {
		for {
			item, shutdown := own.Get()
			if shutdown {
				return
			}
			q.add(item, queued)
			own.Done(item)
		}
	}()
	return own
}

type noRecorder struct{}

func (noRecorder) Passed()              {}
func (noRecorder) Parked()              {}
func (noRecorder) Readmitted()          {}
func (noRecorder) Dropped()             {}
func (noRecorder) Refused()             {}
func (noRecorder) Malformed(any, error) {}
