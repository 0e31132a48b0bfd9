// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"time"
)

const (
	// attempts is how often a test is tried on a machine that stalls repeatedly.
	attempts = 10
	// longestGap is how long a server or a replica may fail to respond in a test that
	// counts: the heartbeat of Leases that last 5 s. A member can miss one renewal.
	longestGap = leaseDuration / 5
)

// attempt is one attempt of a test. Most tests need a machine on which servers respond and
// processes run, because a member that stalls for long loses what it owns. If an attempt
// fails, and the heartbeats show that something stalled in the meantime, it proves nothing,
// and the test starts over. A violated guarantee is never excused.
type attempt struct {
	testing.TB
	ctx   context.Context
	began time.Time

	mu       sync.Mutex
	failed   bool
	broken   bool   // a guarantee was violated
	excuse   string // why the attempt does not count, if the test itself has noticed
	cleanups []func()
	monitors []*monitor
}

// repeat runs a test until an attempt counts.
func repeat(t *testing.T, test func(*attempt)) {
	t.Helper()
	for n := 1; ; n++ {
		a := &attempt{TB: t, began: time.Now()}
		a.run(test)
		if !a.failed {
			return
		}
		excuse := a.excused()
		if excuse == "" || n == attempts || t.Context().Err() != nil {
			t.FailNow()
		}
		t.Logf("attempt %d of %d does not count: %s; the test starts over", n, attempts, excuse)
		shared.waitSteady(t)
	}
}

// run returns when the test and its cleanups have ended.
func (a *attempt) run(test func(*attempt)) {
	var cancel context.CancelFunc
	a.ctx, cancel = context.WithCancel(a.TB.Context())
	protect := func(f func()) {
		done := make(chan struct{})
		go func() { // so that FailNow ends the goroutine and not the test
			defer close(done)
			defer func() {
				if r := recover(); r != nil {
					a.Brokenf("panic: %v\n%s", r, debug.Stack())
				}
			}()
			f()
		}()
		<-done
	}
	protect(func() { test(a) })
	cancel()
	for {
		a.mu.Lock()
		n := len(a.cleanups)
		if n == 0 {
			a.mu.Unlock()
			return
		}
		last := a.cleanups[n-1]
		a.cleanups = a.cleanups[:n-1]
		a.mu.Unlock()
		protect(last)
	}
}

// excused returns why a failure does not count; empty if it counts.
func (a *attempt) excused() string {
	if a.broken {
		return ""
	}
	var gaps []gap
	for _, m := range a.monitors {
		gaps = append(gaps, m.gapsSince(a.began, longestGap)...)
	}
	if excuse := describeGaps(gaps); excuse != "" {
		return excuse
	}
	return a.excuse
}

// monitor adds a monitor whose gaps excuse a failure.
func (a *attempt) monitor(m *monitor) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.Contains(a.monitors, m) {
		a.monitors = append(a.monitors, m)
	}
}

// Brokenf fails the test for good: guarantees hold on any machine.
func (a *attempt) Brokenf(format string, args ...any) {
	a.TB.Helper()
	a.mu.Lock()
	a.broken = true
	a.mu.Unlock()
	a.Errorf(format, args...)
}

// Againf ends an attempt in which something took so long that nothing was tested. The
// machine may have been too slow; if it happens in every attempt, the test fails.
func (a *attempt) Againf(format string, args ...any) {
	a.TB.Helper()
	a.mu.Lock()
	if a.excuse == "" {
		a.excuse = "the machine was too slow"
	}
	a.mu.Unlock()
	a.Fatalf(format, args...)
}

// The following methods are those of [testing.TB], for one attempt.

func (a *attempt) Context() context.Context { return a.ctx }

func (a *attempt) Cleanup(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cleanups = append(a.cleanups, f)
}

func (a *attempt) Failed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failed
}

func (a *attempt) Fail() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed = true
}

func (a *attempt) FailNow() {
	a.Fail()
	runtime.Goexit()
}

func (a *attempt) Error(args ...any) {
	a.TB.Helper()
	a.TB.Log(args...)
	a.Fail()
}

func (a *attempt) Errorf(format string, args ...any) {
	a.TB.Helper()
	a.TB.Logf(format, args...)
	a.Fail()
}

func (a *attempt) Fatal(args ...any) {
	a.TB.Helper()
	a.TB.Log(args...)
	a.FailNow()
}

func (a *attempt) Fatalf(format string, args ...any) {
	a.TB.Helper()
	a.TB.Logf(format, args...)
	a.FailNow()
}

func TestAttemptCounts(t *testing.T) {
	var still monitor // its target responds once, and never again
	asked := false
	go still.watch(t.Context(), "something", func(ctx context.Context) (bool, error) {
		if asked {
			<-ctx.Done()
		}
		asked = true
		return true, ctx.Err()
	})
	for len(still.gapsSince(time.Time{}, longestGap)) == 0 {
		time.Sleep(poll)
	}
	var steps []string
	step := func(what string) func() { return func() { steps = append(steps, what) } }
	for name, c := range map[string]struct {
		test            func(*attempt)
		failed, excused bool
	}{
		"passes":                              {func(*attempt) {}, false, false},
		"fails":                               {func(a *attempt) { a.Fatalf("wrong") }, true, false},
		"fails during a stall":                {func(a *attempt) { a.monitor(&still); a.Fatalf("late") }, true, true},
		"violates a guarantee during a stall": {func(a *attempt) { a.monitor(&still); a.Brokenf("two owners"); a.Fatalf("late") }, true, false},
		"panics during a stall":               {func(a *attempt) { a.monitor(&still); panic("mistake") }, true, false},
		"was too slow":                        {func(a *attempt) { a.Againf("nothing was tested") }, true, true},
		"fails in a cleanup":                  {func(a *attempt) { a.Cleanup(func() { a.Fatal("left") }) }, true, false},
	} {
		steps = nil
		a := &attempt{TB: t, began: time.Now()}
		a.run(func(a *attempt) {
			a.Cleanup(step("first"))
			a.Cleanup(func() {
				if a.Context().Err() == nil {
					t.Errorf("%s: the context has not ended when the cleanups run", name)
				}
			})
			a.Cleanup(step("last"))
			c.test(a)
		})
		if a.Failed() != c.failed || (a.excused() != "") != c.excused {
			t.Errorf("%s: failed %v, want %v; excuse %q", name, a.Failed(), c.failed, a.excused())
		}
		if !slices.Equal(steps, []string{"last", "first"}) {
			t.Errorf("%s: the cleanups ran in the order %v", name, steps)
		}
	}
}
