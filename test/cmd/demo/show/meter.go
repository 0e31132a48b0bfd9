// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import "time"

// window is the period over which a meter counts.
const window = 2 * time.Second

// meter measures a rate of events. Its zero value is ready.
type meter struct{ times []time.Time }

// add counts an event. Events arrive roughly in the order of their times.
func (m *meter) add(at time.Time) { m.times = append(m.times, at) }

// perSecond returns the rate over the last window.
func (m *meter) perSecond(now time.Time) float64 {
	for len(m.times) > 0 && now.Sub(m.times[0]) > window {
		m.times = m.times[1:]
	}
	return float64(len(m.times)) / window.Seconds()
}
