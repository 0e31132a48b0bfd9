// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"time"

	"k8s.io/client-go/util/workqueue"
)

// base is the Queue as client-go's layers above it see it: a plain queue. Its ShutDown
// shuts down the layers below, whereas the Queue's ShutDown starts at the top layer.
type base[T comparable] struct{ *Queue[T] }

func (b base[T]) ShutDown() {
	b.stopParking()
	b.inner.ShutDown()
}

func (b base[T]) ShutDownWithDrain() {
	b.stopParking()
	b.inner.ShutDownWithDrain()
}

// injected is a base whose inner queue is a user's delaying queue, so that timers are
// below the filter and not above it.
type injected[T comparable] struct {
	base[T]
	timers workqueue.TypedDelayingInterface[T]
}

func (d injected[T]) AddAfter(item T, duration time.Duration) { d.timers.AddAfter(item, duration) }

type noRecorder struct{}

func (noRecorder) Passed()              {}
func (noRecorder) Parked()              {}
func (noRecorder) Readmitted()          {}
func (noRecorder) Dropped()             {}
func (noRecorder) Refused()             {}
func (noRecorder) Malformed(any, error) {}
