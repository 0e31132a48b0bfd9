// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// gaining makes a member of a ring of two of which the other, b, leaves: it
// releases everything in one write, with the given marks.
func gaining(t *testing.T, marks Marks) *pilot {
	t.Helper()
	p := newPilot(t, func(c *Config) { c.CacheWait = time.Second })
	lost := p.owned("b", "a", "b")
	p.peer("b", Serving, lost...)
	p.join()
	p.wantStates(p.owned("a", "a", "b"), nil)
	r := p.peerRecord("b", Draining)
	r.Holder, r.Marks = "", marks
	p.put("lease-b", r)
	return p
}

func (p *pilot) kept() []int { return p.owned("a", "a", "b") }
func (p *pilot) lost() []int { return p.owned("b", "a", "b") }

func (p *pilot) wantStats(waits, givenUp uint64) {
	p.t.Helper()
	if s := p.m.Stats(); s.CacheWaits != waits || s.CacheWaitsGivenUp != givenUp {
		p.t.Errorf("%d waits, %d given up; want %d and %d", s.CacheWaits, s.CacheWaitsGivenUp, waits, givenUp)
	}
}

func TestC8_WaitsForTheCaches(t *testing.T) {
	p := gaining(t, Marks{"Foo": "1000", "Bar": "7"})
	p.show("lease-b")
	p.run(300 * time.Millisecond)
	p.wantStates(p.kept(), p.lost()) // and what it keeps is not touched
	if diff := cmp.Diff(Marks{"Foo": "1000", "Bar": "7"}, p.m.Awaited()); diff != "" {
		t.Errorf("awaited (-want +got):\n%s", diff)
	}
	p.step(CaughtUp{Marks{"Foo": "999", "Bar": "10"}}) // 999 < 1000, and 10 > 7 as numbers
	p.run(100 * time.Millisecond)
	p.wantStates(p.kept(), p.lost())
	if diff := cmp.Diff(Marks{"Foo": "1000"}, p.m.Awaited()); diff != "" {
		t.Errorf("awaited (-want +got):\n%s", diff)
	}
	p.step(CaughtUp{Marks{"Foo": "1000"}})
	p.serve()
	p.wantStates(p.all(), nil)
	p.wantStats(uint64(len(p.lost())), 0)
	if p.m.Awaited() != nil {
		t.Errorf("still awaits %v", p.m.Awaited())
	}
}

func TestC8_WhatIsReachedCostsNothing(t *testing.T) {
	p := gaining(t, Marks{"Foo": "1000"})
	p.show("lease-b")
	p.step(CaughtUp{Marks{"Foo": "1000"}})
	p.run(p.cfg.Coalesce)
	p.wantStates(p.all(), nil)
	p.wantStats(0, 0)

	// The same marks come again with every heartbeat.
	p.peer("c", Joining)
	r := p.peerRecord("c", Joining)
	r.Marks = Marks{"Foo": "1000"}
	p.put("lease-c", r)
	p.show("lease-c")
	if p.m.Awaited() != nil {
		t.Errorf("awaits %v", p.m.Awaited())
	}
}

func TestC8_TheBoundEndsTheWait(t *testing.T) {
	p := gaining(t, Marks{"Foo": "1000"})
	p.show("lease-b")
	p.run(p.cfg.CacheWait - 10*time.Millisecond)
	p.wantStates(p.kept(), p.lost())
	p.run(p.cfg.Coalesce + 20*time.Millisecond) // no event but Next's ticks
	p.wantStates(p.all(), nil)
	p.wantStats(0, uint64(len(p.lost())))
	if diff := cmp.Diff(Marks{"Foo": "1000"}, p.m.Lagging()); diff != "" || p.m.Awaited() != nil {
		t.Errorf("lagging (-want +got):\n%s\nawaited %v", diff, p.m.Awaited())
	}
}

// However many marks are published meanwhile: an informer that has stopped must not
// stop the ring.
func TestC8_TheBoundHoldsWhileMarksRise(t *testing.T) {
	p := gaining(t, Marks{"Foo": "1000"})
	p.show("lease-b")
	p.peer("c", Joining)
	start := p.now
	for i := 0; len(p.in(ring.Active)) < testPartitions; i++ {
		r := p.peerRecord("c", Joining)
		r.Seq, r.Marks = uint64(i), Marks{"Foo": fmt.Sprint(1001 + i)}
		p.put("lease-c", r)
		p.show("lease-c")
		p.run(50 * time.Millisecond)
		if waited := p.now.since(start); waited > p.cfg.CacheWait+p.cfg.Coalesce+100*time.Millisecond {
			t.Fatalf("still waits after %v", waited)
		}
	}
	if waited := p.now.since(start); waited < p.cfg.CacheWait {
		t.Errorf("waited for %v only", waited)
	}
}

func TestC8_AListWithHigherMarksDelays(t *testing.T) {
	p := gaining(t, Marks{"Foo": "1000"})
	p.show("lease-b")
	p.step(CaughtUp{Marks{"Foo": "1000"}})
	p.wait(p.cfg.Coalesce)
	u := take[Update](p)
	p.step(Wrote{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
	p.show(p.cfg.Lease)
	l := take[List](p)
	r := p.leases["lease-b"].Record
	r.Marks = Marks{"Foo": "1001"}
	p.put("lease-b", r) // the watch doesn't show it
	p.step(Listed{Op: l.Op, Outcome: OK, Leases: p.list()})
	p.wantStates(p.kept(), p.lost())
	p.run(200 * time.Millisecond)
	p.wantStates(p.kept(), p.lost())
	p.step(CaughtUp{Marks{"Foo": "1001"}})
	take[List](p) // looks again before it begins
	p.wantStates(p.kept(), p.lost())
}

// Wherever the marks come from, they count.
func TestC8_MarksAreTakenFromEveryLeaseThatIsSeen(t *testing.T) {
	marks := Marks{"Foo": "1000"}
	for _, c := range []struct {
		name    string
		happens func(*pilot, Lease)
	}{
		{"watched", func(p *pilot, l Lease) { p.step(Observed{l}) }},
		{"the last state of one that is gone", func(p *pilot, l Lease) { p.step(Vanished{Last: l}) }},
		{"read when it stands in the way", func(p *pilot, l Lease) {
			p.m = New(p.cfg)
			p.step(Tick{})
			p.step(Got{Op: take[Get](p).Op, Outcome: OK, Lease: l})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPilot(t, func(c *Config) { c.CacheWait = time.Second }).join()
			p.did = nil
			r := p.peerRecord("b", Draining)
			r.Holder, r.Marks = "", marks
			c.happens(p, Lease{Name: "lease-b", UID: "x", Version: "50", Record: r})
			if diff := cmp.Diff(marks, p.m.Lagging()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestC8_RemembersABoundedNumberOfKinds(t *testing.T) {
	p := newPilot(t, func(c *Config) { c.CacheWait = time.Second }).join()
	marks := Marks{}
	for i := range 10 * maxMarks {
		marks[fmt.Sprint(i)] = "1"
	}
	r := p.peerRecord("b", Joining)
	r.Marks = marks
	p.put("lease-b", r)
	p.show("lease-b")
	p.step(CaughtUp{marks})
	if a, b := len(p.m.caches.published), len(p.m.caches.reached); a != maxMarks || b != maxMarks {
		t.Errorf("remembers %d and %d kinds", a, b)
	}
}
