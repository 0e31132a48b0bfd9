// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package heartbeat_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/heartbeat"
)

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
				return true, heartbeat.ErrExpected
			case at >= 40*time.Second:
				return false, nil
			}
			return true, nil
		}
		var m heartbeat.Monitor
		done := make(chan struct{})
		go func() {
			defer close(done)
			m.Watch(t.Context(), "server", ask)
		}()
		time.Sleep(12 * time.Second)
		if open := m.Gaps(began, time.Second); len(open) != 1 || open[0].To.Sub(open[0].From) < 2*time.Second {
			t.Errorf("a gap that has not ended: %v", open)
		}
		during := m.Beats("server")
		time.Sleep(2 * time.Second)
		if n := m.Beats("server"); n != during {
			t.Errorf("%d beats without a response", n-during)
		}
		<-done
		gaps := m.Gaps(began, time.Second)
		if len(gaps) != 1 {
			t.Fatalf("the gaps are %v, want one", gaps)
		}
		if took := gaps[0].To.Sub(gaps[0].From); took < 5*time.Second || took > 8*time.Second {
			t.Errorf("the gap took %v", took)
		}
		if text := heartbeat.Describe(gaps); !strings.Contains(text, "server did not respond for") {
			t.Error(text)
		}
		if n := m.Beats("server"); n < 300 || n > 400 {
			t.Errorf("%d beats in 39 s, of which it did not respond for about 6", n)
		}
		for what, later := range map[string][]heartbeat.Gap{
			"after it":    m.Gaps(began.Add(25*time.Second), time.Second),
			"longer ones": m.Gaps(began, 10*time.Second),
		} {
			if len(later) != 0 {
				t.Errorf("%s: %v", what, later)
			}
		}
	})
}
