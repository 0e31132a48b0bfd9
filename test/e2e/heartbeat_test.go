// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

// The heartbeats record whether servers responded and processes ran, so that a test which
// depends on real time can distinguish a fault from a stalled machine. If there was a long
// gap between two responses, a failed test proves nothing and starts over.

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const (
	// beatPeriod is the time between two probes.
	beatPeriod = 100 * time.Millisecond
	// beatTimeout is the timeout of one probe.
	beatTimeout = 2 * time.Second
	// shortGap is the length up to which gaps are not recorded.
	shortGap = 3 * beatPeriod
)

// errNoneExpected is what a probe returns if no response is expected at the moment, because
// the test itself has stopped or paused the server. That time is not a gap.
var errNoneExpected = errors.New("no response is expected")

// gap is a time without a response.
type gap struct {
	what     string
	from, to time.Time
}

// monitor records gaps. The zero value is ready for use. All methods may be called
// concurrently.
type monitor struct {
	mu    sync.Mutex
	gaps  []gap
	last  map[string]time.Time // the last response to each running watch
	beats map[string]int       // responses, and probes for which none was expected
}

// watch probes with ask until the context ends or ask returns false. Recording starts with
// the first response, so that the time until something has started is not a gap. what must
// be unique.
func (m *monitor) watch(ctx context.Context, what string, ask func(context.Context) (more bool, err error)) {
	defer m.end(what)
	for ctx.Err() == nil {
		one, cancel := context.WithTimeout(ctx, beatTimeout)
		more, err := ask(one)
		cancel()
		if !more {
			return
		}
		if err == nil || errors.Is(err, errNoneExpected) {
			m.beat(what, time.Now(), err != nil)
		}
		select {
		case <-time.After(beatPeriod):
		case <-ctx.Done():
		}
	}
}

func (m *monitor) beat(what string, now time.Time, expected bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil {
		m.last, m.beats = map[string]time.Time{}, map[string]int{}
	}
	if last, known := m.last[what]; known && !expected && now.Sub(last) > shortGap {
		m.gaps = append(m.gaps, gap{what, last, now})
	}
	m.last[what] = now
	m.beats[what]++
}

// end ends the recording when watch returns.
func (m *monitor) end(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if last, known := m.last[what]; known && time.Since(last) > shortGap {
		m.gaps = append(m.gaps, gap{what, last, time.Now()})
	}
	delete(m.last, what)
}

// beatsOf returns the number of responses. It is a clock that stops while the machine is
// stalled, so a limit in beats does not fail a test because the machine is slow.
func (m *monitor) beatsOf(what string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.beats[what]
}

// gapsSince returns the times without a response that are longer than the limit and end after
// since, including those that have not ended yet.
func (m *monitor) gapsSince(since time.Time, limit time.Duration) []gap {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []gap
	add := func(g gap) {
		if g.to.After(since) && g.to.Sub(g.from) > limit {
			found = append(found, g)
		}
	}
	for _, g := range m.gaps {
		add(g)
	}
	for what, last := range m.last {
		add(gap{what, last, time.Now()})
	}
	return found
}

// describeGaps describes the first few gaps; empty if there are none.
func describeGaps(gaps []gap) string {
	var text []string
	for i, g := range gaps {
		if i == 5 {
			text = append(text, fmt.Sprintf("and %d more", len(gaps)-i))
			break
		}
		text = append(text, fmt.Sprintf("%s did not respond for %v until %s", g.what, g.to.Sub(g.from).Round(time.Millisecond), g.to.Format("15:04:05.000")))
	}
	return strings.Join(text, ", ")
}

// A server responds for a while, stops responding, is paused by the test, and responds again.
func TestGaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ask := func(ctx context.Context) (bool, error) {
			switch at := time.Since(began); {
			case at < time.Second: // it has not started yet
				return true, errors.New("refused")
			case at >= 10*time.Second && at < 15*time.Second:
				<-ctx.Done()
				return true, ctx.Err()
			case at >= 20*time.Second && at < 30*time.Second:
				return true, errNoneExpected
			case at >= 40*time.Second:
				return false, nil
			}
			return true, nil
		}
		var m monitor
		done := make(chan struct{})
		go func() {
			defer close(done)
			m.watch(t.Context(), "server", ask)
		}()
		time.Sleep(12 * time.Second)
		if open := m.gapsSince(began, time.Second); len(open) != 1 || open[0].to.Sub(open[0].from) < 2*time.Second {
			t.Errorf("a gap that has not ended: %v", open)
		}
		during := m.beatsOf("server")
		time.Sleep(2 * time.Second)
		if n := m.beatsOf("server"); n != during {
			t.Errorf("%d beats without a response", n-during)
		}
		<-done
		gaps := m.gapsSince(began, time.Second)
		if len(gaps) != 1 {
			t.Fatalf("the gaps are %v, want one", gaps)
		}
		if took := gaps[0].to.Sub(gaps[0].from); took < 5*time.Second || took > 8*time.Second {
			t.Errorf("the gap took %v", took)
		}
		if text := describeGaps(gaps); !strings.Contains(text, "server did not respond for") {
			t.Error(text)
		}
		if n := m.beatsOf("server"); n < 300 || n > 400 {
			t.Errorf("%d beats in 39 s, of which it did not respond for about 6", n)
		}
		for what, later := range map[string][]gap{
			"after it":    m.gapsSince(began.Add(25*time.Second), time.Second),
			"longer ones": m.gapsSince(began, 10*time.Second),
		} {
			if len(later) != 0 {
				t.Errorf("%s: %v", what, later)
			}
		}
	})
}
