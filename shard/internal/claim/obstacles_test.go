// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"testing"
	"time"
)

// A Lease that no live member has written, or the tombstone of one, keeps all partitions from a
// member. A live member that still has them does not count (R89).
func TestR89_WhatKeepsPartitionsFromAMember(t *testing.T) {
	for name, test := range map[string]struct {
		put   func(*driver, Record)
		lease string
		is    bool
	}{
		"a live member":     {func(p *driver, r Record) { p.put("lease-b", r) }, "", false},
		"an edited record":  {func(p *driver, _ Record) { p.put("lease-b", edited("b_1")) }, "lease-b", true},
		"a removed holder":  {func(p *driver, _ Record) { p.put("lease-b", edited("")) }, "lease-b", true},
		"unreadable claims": {func(p *driver, r Record) { r.Claims = Claims{Everything: true}; p.put("lease-b", r) }, "lease-b", true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newDriver(t)
			r := p.peerRecord("b", PhaseActive, p.all()...)
			r.Duration = time.Hour
			test.put(p, r)
			p.show("lease-b")
			p.join()
			obstacles := p.m.Obstacles()
			if p.m.OwnsNothing() != test.is || (len(obstacles) == 1) != test.is {
				t.Fatalf("owns nothing: %v, obstacles: %+v", p.m.OwnsNothing(), obstacles)
			}
			if test.is && (obstacles[0].Lease != test.lease || obstacles[0].Remaining < 59*time.Minute || obstacles[0].Remaining > time.Hour) {
				t.Errorf("%+v", obstacles)
			}
			p.step(LeaseDeleted{Last: p.lease("lease-b"), Final: true})
			if got := p.m.Obstacles(); !p.m.OwnsNothing() || len(got) != 1 || got[0].Lease != "" {
				t.Errorf("after its deletion: owns nothing: %v, obstacles: %+v", p.m.OwnsNothing(), got)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		p := newDriver(t).join()
		if p.m.OwnsNothing() || len(p.m.Obstacles()) > 0 {
			t.Errorf("%+v", p.m.Obstacles())
		}
	})
	t.Run("a silent member", func(t *testing.T) {
		p := newDriver(t)
		r := p.peerRecord("b", PhaseActive, p.all()...)
		r.Duration = time.Hour
		p.put("lease-b", r)
		p.show("lease-b")
		p.join()
		p.run(2 * p.cfg.LeaseDuration)
		if got := p.m.Obstacles(); !p.m.OwnsNothing() || len(got) != 1 || got[0].Lease != "lease-b" || got[0].Edited {
			t.Errorf("%+v", got)
		}
	})
}
