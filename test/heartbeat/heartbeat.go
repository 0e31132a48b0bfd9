// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package heartbeat records whether servers responded and processes ran, so that a test
// that depends on real time can distinguish a fault from a stalled machine.
//
// A [Monitor] probes everything that a test needs several times per second, and records
// the gaps between two responses. If there was a long gap, a failed test proves nothing and
// starts over.
package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

const (
	// Period is the time between two probes.
	Period = 100 * time.Millisecond
	// patience is the timeout of one probe.
	patience = 2 * time.Second
	// short is the length up to which gaps are not recorded.
	short = 3 * Period
)

// ErrExpected is what a probe returns if no response is expected at the moment, because
// the test itself has stopped or paused the server. That time is not a gap.
var ErrExpected = errors.New("no response is expected")

// Gap is a time without a response.
type Gap struct {
	What     string
	From, To time.Time
}

// Monitor records gaps. The zero value is ready for use. All methods may be called
// concurrently.
type Monitor struct {
	mu    sync.Mutex
	gaps  []Gap
	last  map[string]time.Time // the last response to each running Watch
	beats map[string]int       // responses, and probes for which none was expected
}

// Watch probes with ask until the context ends or ask returns false. Recording starts with
// the first response, so that the time until something has started is not a gap. what must
// be unique.
func (m *Monitor) Watch(ctx context.Context, what string, ask func(context.Context) (more bool, err error)) {
	defer m.end(what)
	for ctx.Err() == nil {
		one, cancel := context.WithTimeout(ctx, patience)
		more, err := ask(one)
		cancel()
		if !more {
			return
		}
		if err == nil || errors.Is(err, ErrExpected) {
			m.beat(what, time.Now(), err != nil)
		}
		select {
		case <-time.After(Period):
		case <-ctx.Done():
		}
	}
}

func (m *Monitor) beat(what string, now time.Time, expected bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil {
		m.last, m.beats = map[string]time.Time{}, map[string]int{}
	}
	if last, known := m.last[what]; known && !expected && now.Sub(last) > short {
		m.gaps = append(m.gaps, Gap{what, last, now})
	}
	m.last[what] = now
	m.beats[what]++
}

// end ends the recording when Watch returns.
func (m *Monitor) end(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if last, known := m.last[what]; known && time.Since(last) > short {
		m.gaps = append(m.gaps, Gap{what, last, time.Now()})
	}
	delete(m.last, what)
}

// Beats returns the number of responses. It is a clock that stops while the machine is
// stalled, so a limit in Beats does not fail a test because the machine is slow.
func (m *Monitor) Beats(what string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.beats[what]
}

// Gaps returns the times without a response that are longer than the limit and end after
// since, including those that have not ended yet.
func (m *Monitor) Gaps(since time.Time, limit time.Duration) []Gap {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []Gap
	add := func(g Gap) {
		if g.To.After(since) && g.To.Sub(g.From) > limit {
			found = append(found, g)
		}
	}
	for _, g := range m.gaps {
		add(g)
	}
	for what, last := range m.last {
		add(Gap{what, last, time.Now()})
	}
	return found
}

// Describe describes the first few gaps; empty if there are none.
func Describe(gaps []Gap) string {
	var text []string
	for i, g := range gaps {
		if i == 5 {
			text = append(text, fmt.Sprintf("and %d more", len(gaps)-i))
			break
		}
		text = append(text, fmt.Sprintf("%s did not respond for %v until %s", g.What, g.To.Sub(g.From).Round(time.Millisecond), g.To.Format("15:04:05.000")))
	}
	return strings.Join(text, ", ")
}
