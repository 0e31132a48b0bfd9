// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"strings"
	"testing"
	"time"
)

// A member that has started and does not work yet says why.
func TestAStartingMemberSaysWhatItWaitsFor(t *testing.T) {
	wants := func(t *testing.T, p *driver, text string) {
		t.Helper()
		if got := p.m.WaitsFor(); !strings.Contains(got, text) || text == "" && got != "" {
			t.Errorf("it waits for %q, want %q", got, text)
		}
	}
	t.Run("others that start", func(t *testing.T) {
		p := newDriver(t, func(c *Config) { c.StartupSettle = time.Second })
		p.step(Tick{})
		wants(t, p, "does not hold its Lease")
		p.run(100 * time.Millisecond)
		wants(t, p, "informers")
		p.step(Synced{})
		p.run(100 * time.Millisecond)
		wants(t, p, "a moment for other members")
		p.peer("b", PhaseJoining)
		wants(t, p, "lease-b, which starts at the same time")
		p.peer("c", PhaseJoining)
		wants(t, p, "lease-b (and 1 more)")
		p.peer("b", PhaseActive)
		p.peer("c", PhaseActive)
		p.run(2 * time.Second)
		wants(t, p, "")
		p.peer("d", PhaseJoining)
		wants(t, p, "")
	})
	t.Run("a cold start", func(t *testing.T) {
		p := newNewcomer(t, map[string]Record{"b": newDriver(t).peerRecord("b", PhaseJoining)})
		p.run(2 * time.Second)
		wants(t, p, "until lease-b has seen its Lease, at most 1")
	})
	t.Run("a settled member", func(t *testing.T) {
		p := newNewcomer(t, map[string]Record{"b": newDriver(t).peerRecord("b", PhaseActive)})
		p.run(2 * time.Second)
		wants(t, p, "a member that is at work")
	})
	t.Run("Quarantine", func(t *testing.T) {
		p := newDriver(t, func(c *Config) { c.Quarantine = true })
		p.step(Tick{})
		p.step(Synced{})
		p.run(time.Second)
		p.m.settle()
		wants(t, p, "Quarantine")
	})
}
