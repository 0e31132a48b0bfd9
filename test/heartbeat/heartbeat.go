// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package heartbeat records whether servers answered and processes ran, so that a
// test that depends on real time can tell a fault from a machine that stood still.
//
// A [Monitor] asks each thing that a test needs for an answer a few times a second,
// and keeps the gaps between two answers. Where a gap is long, a test that has failed
// proves nothing, and starts over.
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
	// Period is the time between two questions.
	Period = 100 * time.Millisecond
	// patience is how long one question waits for its answer.
	patience = 2 * time.Second
	// short gaps are not kept.
	short = 3 * Period
)

// ErrExpected is what a question returns if no answer is expected at this moment,
// because the test itself has stopped or paused what it asks. The time is no gap.
var ErrExpected = errors.New("no answer is expected")

// Gap is a time without an answer.
type Gap struct {
	What     string
	From, To time.Time
}

// Monitor keeps the gaps. The zero value is ready for use. All methods may be called
// concurrently.
type Monitor struct {
	mu    sync.Mutex
	gaps  []Gap
	last  map[string]time.Time // the last answer of each that is asked at present
	beats map[string]int       // answers, and times at which none was expected
}

// Watch asks until the context ends or ask returns false. The first answer begins the
// record: how long something takes to start is no gap. what must be unique.
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

// end ends the record of what is no longer asked.
func (m *Monitor) end(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if last, known := m.last[what]; known && time.Since(last) > short {
		m.gaps = append(m.gaps, Gap{what, last, time.Now()})
	}
	delete(m.last, what)
}

// Beats counts the answers of what is asked. It is a clock that stands still while the
// machine does: a limit of Beats does not fail a test because the machine is slow.
func (m *Monitor) Beats(what string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.beats[what]
}

// Gaps returns the times without an answer that are longer than the limit and end
// after since, those that have not ended yet too.
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

// Describe writes some gaps for people; empty if there are none.
func Describe(gaps []Gap) string {
	var text []string
	for i, g := range gaps {
		if i == 5 {
			text = append(text, fmt.Sprintf("and %d more", len(gaps)-i))
			break
		}
		text = append(text, fmt.Sprintf("%s did not answer for %v until %s", g.What, g.To.Sub(g.From).Round(time.Millisecond), g.To.Format("15:04:05.000")))
	}
	return strings.Join(text, ", ")
}
