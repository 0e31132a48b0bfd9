// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
)

// meter counts for client-go's metrics. It is called with the queue's mutex held, except for
// shutDown.
type meter[T comparable] interface {
	add(e *entry[T])  // the item begins to wait: it is queued, parked, or added while in flight
	get(e *entry[T])  // an item that was added is handed out, at e.since
	done(e *entry[T]) // the work on an item has ended
	drop(e *entry[T]) // an item that was added will not be handed out
	shutDown()        // ends its goroutine, and waits for it
}

func newMeter[T comparable](q *Queue[T], config workqueue.TypedRateLimitingQueueConfig[T]) meter[T] {
	switch {
	case config.Name == "":
		return noMeter[T]{}
	case config.MetricsProvider == nil:
		return newShadow(q, config)
	}
	return newMetrics(q, config)
}

// noMeter is for queues without a name, which have no metrics.
type noMeter[T comparable] struct{}

func (noMeter[T]) add(*entry[T])  {}
func (noMeter[T]) get(*entry[T])  {}
func (noMeter[T]) done(*entry[T]) {}
func (noMeter[T]) drop(*entry[T]) {}
func (noMeter[T]) shutDown()      {}

// metrics are client-go's, of the provider in the configuration.
type metrics[T comparable] struct {
	now                func() time.Time
	ownClock           bool      // now is not the real clock
	epoch              time.Time // the zero of entry.since
	depth              workqueue.GaugeMetric
	adds               workqueue.CounterMetric
	latency, duration  workqueue.HistogramMetric
	unfinished, oldest workqueue.SettableGaugeMetric
	stop               chan struct{}
	stopOnce           sync.Once
	running            sync.WaitGroup
}

// unfinishedPeriod is the time between two measurements of the work in flight, as in client-go.
const unfinishedPeriod = 500 * time.Millisecond

func newMetrics[T comparable](q *Queue[T], config workqueue.TypedRateLimitingQueueConfig[T]) *metrics[T] {
	p, name := config.MetricsProvider, config.Name
	m := &metrics[T]{
		now: time.Now, ownClock: config.Clock != nil, epoch: q.epoch,
		depth: p.NewDepthMetric(name), adds: p.NewAddsMetric(name),
		latency: p.NewLatencyMetric(name), duration: p.NewWorkDurationMetric(name),
		unfinished: p.NewUnfinishedWorkSecondsMetric(name), oldest: p.NewLongestRunningProcessorSecondsMetric(name),
		stop: make(chan struct{}),
	}
	var tick <-chan time.Time
	var stopTicker func()
	if config.Clock == nil {
		ticker := time.NewTicker(unfinishedPeriod)
		tick, stopTicker = ticker.C, ticker.Stop
	} else {
		ticker := config.Clock.NewTicker(unfinishedPeriod)
		tick, stopTicker = ticker.C(), ticker.Stop
		m.now = config.Clock.Now
	}
	m.running.Go(func() {
		defer stopTicker()
		for {
			select {
			case <-tick:
				m.measure(q)
			case <-m.stop:
				return
			}
		}
	})
	return m
}

func (m *metrics[T]) add(e *entry[T]) {
	m.adds.Inc()
	m.depth.Inc()
	e.added = m.now()
}

func (m *metrics[T]) get(e *entry[T]) {
	now := m.epoch.Add(e.since)
	if m.ownClock {
		now = m.now()
	}
	m.depth.Dec()
	m.latency.Observe(now.Sub(e.added).Seconds())
	e.started = now
}

func (m *metrics[T]) done(e *entry[T]) { m.duration.Observe(m.now().Sub(e.started).Seconds()) }
func (m *metrics[T]) drop(*entry[T])   { m.depth.Dec() }

func (m *metrics[T]) shutDown() {
	m.stopOnce.Do(func() { close(m.stop) })
	m.running.Wait()
}

// measure sets the metrics of the work in flight.
func (m *metrics[T]) measure(q *Queue[T]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.shuttingDown {
		return
	}
	var total, oldest float64
	now := m.now()
	q.items.each(inFlight, func(e *entry[T]) {
		age := now.Sub(e.started).Seconds()
		total += age
		oldest = max(oldest, age)
	})
	m.unfinished.Set(total)
	m.oldest.Set(oldest)
}
