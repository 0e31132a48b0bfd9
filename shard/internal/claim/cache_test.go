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

// gaining returns a member of a ring of two. The other member, b, leaves: it releases
// everything in one write, with the given watermarks.
func gaining(t *testing.T, watermarks Watermarks) *driver {
	t.Helper()
	p := newDriver(t, func(c *Config) { c.CacheSyncTimeout = time.Second })
	lost := p.owned("b", "a", "b")
	p.peer("b", PhaseActive, lost...)
	p.join()
	p.wantStates(p.owned("a", "a", "b"), nil)
	r := p.peerRecord("b", PhaseDraining)
	r.Holder, r.Watermarks = "", watermarks
	p.put("lease-b", r)
	return p
}

func (p *driver) kept() []int { return p.owned("a", "a", "b") }
func (p *driver) lost() []int { return p.owned("b", "a", "b") }

func (p *driver) wantStats(waits, givenUp uint64) {
	p.t.Helper()
	if s := p.m.Stats(); s.CacheWaits != waits || s.CacheWaitsGivenUp != givenUp {
		p.t.Errorf("%d waits, %d given up; want %d and %d", s.CacheWaits, s.CacheWaitsGivenUp, waits, givenUp)
	}
}

func TestC8_WaitsForTheCaches(t *testing.T) {
	p := gaining(t, Watermarks{"Foo": "1000", "Bar": "7"})
	p.show("lease-b")
	p.run(300 * time.Millisecond)
	p.wantStates(p.kept(), p.lost()) // the partitions that it keeps are not affected
	if diff := cmp.Diff(Watermarks{"Foo": "1000", "Bar": "7"}, p.m.PendingWatermarks()); diff != "" {
		t.Errorf("pending (-want +got):\n%s", diff)
	}
	p.step(WatermarksReached{Watermarks{"Foo": "999", "Bar": "10"}}) // 999 < 1000, and 10 > 7 as numbers
	p.run(100 * time.Millisecond)
	p.wantStates(p.kept(), p.lost())
	if diff := cmp.Diff(Watermarks{"Foo": "1000"}, p.m.PendingWatermarks()); diff != "" {
		t.Errorf("pending (-want +got):\n%s", diff)
	}
	p.step(WatermarksReached{Watermarks{"Foo": "1000"}})
	p.serve()
	p.wantStates(p.all(), nil)
	p.wantStats(uint64(len(p.lost())), 0)
	if p.m.PendingWatermarks() != nil {
		t.Errorf("the watermarks %v are still pending", p.m.PendingWatermarks())
	}
}

func TestC8_ReachedWatermarksCostNothing(t *testing.T) {
	p := gaining(t, Watermarks{"Foo": "1000"})
	p.show("lease-b")
	p.step(WatermarksReached{Watermarks{"Foo": "1000"}})
	p.run(p.cfg.Coalesce)
	p.wantStates(p.all(), nil)
	p.wantStats(0, 0)

	// Every heartbeat repeats the same watermarks.
	p.peer("c", PhaseJoining)
	r := p.peerRecord("c", PhaseJoining)
	r.Watermarks = Watermarks{"Foo": "1000"}
	p.put("lease-c", r)
	p.show("lease-c")
	if p.m.PendingWatermarks() != nil {
		t.Errorf("the watermarks %v are pending", p.m.PendingWatermarks())
	}
}

func TestC8_TheBoundEndsTheWait(t *testing.T) {
	p := gaining(t, Watermarks{"Foo": "1000"})
	p.show("lease-b")
	p.run(p.cfg.CacheSyncTimeout - 10*time.Millisecond)
	p.wantStates(p.kept(), p.lost())
	p.run(p.cfg.Coalesce + 20*time.Millisecond) // no events except the ticks for Next
	p.wantStates(p.all(), nil)
	p.wantStats(0, uint64(len(p.lost())))
	if diff := cmp.Diff(Watermarks{"Foo": "1000"}, p.m.UnreachedWatermarks()); diff != "" || p.m.PendingWatermarks() != nil {
		t.Errorf("unreached (-want +got):\n%s\npending %v", diff, p.m.PendingWatermarks())
	}
}

// However many watermarks are published meanwhile, the wait ends: an informer that has
// stopped must not stop the ring.
func TestC8_TheBoundHoldsWhileWatermarksRise(t *testing.T) {
	p := gaining(t, Watermarks{"Foo": "1000"})
	p.show("lease-b")
	p.peer("c", PhaseJoining)
	start := p.now
	for i := 0; len(p.in(ring.Active)) < testPartitions; i++ {
		r := p.peerRecord("c", PhaseJoining)
		r.Seq, r.Watermarks = uint64(i), Watermarks{"Foo": fmt.Sprint(1001 + i)}
		p.put("lease-c", r)
		p.show("lease-c")
		p.run(50 * time.Millisecond)
		if waited := p.now.since(start); waited > p.cfg.CacheSyncTimeout+p.cfg.Coalesce+100*time.Millisecond {
			t.Fatalf("partitions still wait after %v", waited)
		}
	}
	if waited := p.now.since(start); waited < p.cfg.CacheSyncTimeout {
		t.Errorf("waited for %v only", waited)
	}
}

func TestC8_AListWithHigherWatermarksDelays(t *testing.T) {
	p := gaining(t, Watermarks{"Foo": "1000"})
	p.show("lease-b")
	p.step(WatermarksReached{Watermarks{"Foo": "1000"}})
	p.wait(p.cfg.Coalesce)
	u := take[WriteLease](p)
	p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
	p.show(p.cfg.Lease)
	l := take[ListLeases](p)
	r := p.lease("lease-b").Record
	r.Watermarks = Watermarks{"Foo": "1001"}
	p.put("lease-b", r) // the watch does not show it
	p.step(ListResult{Op: l.Op, Outcome: OK, Leases: p.list()})
	p.catchUp()
	p.wantStates(p.kept(), p.lost())
	p.run(200 * time.Millisecond)
	p.wantStates(p.kept(), p.lost())
	p.step(WatermarksReached{Watermarks{"Foo": "1001"}})
	take[ListLeases](p) // it lists again before it activates
	p.wantStates(p.kept(), p.lost())
}

// Watermarks count wherever they come from.
func TestC8_WatermarksOfEveryObservedLeaseCount(t *testing.T) {
	watermarks := Watermarks{"Foo": "1000"}
	for _, c := range []struct {
		name    string
		happens func(*driver, Lease)
	}{
		{"watched", func(p *driver, l Lease) { p.step(LeaseObserved{Lease: l}) }},
		{"the last state of a deleted Lease", func(p *driver, l Lease) { p.step(LeaseDeleted{Last: l}) }},
		{"read before the acquisition", func(p *driver, l Lease) {
			p.begin()
			p.step(Tick{})
			p.step(GetResult{Op: take[GetLease](p).Op, Outcome: OK, Lease: l})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newDriver(t, func(c *Config) { c.CacheSyncTimeout = time.Second }).join()
			p.did = nil
			r := p.peerRecord("b", PhaseDraining)
			r.Holder, r.Watermarks = "", watermarks
			c.happens(p, Lease{Name: "lease-b", UID: "x", Version: "50", Record: r})
			if diff := cmp.Diff(watermarks, p.m.UnreachedWatermarks()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A watermark that no cache ever reaches, on a void Lease that stays, delays for one
// CacheSyncTimeout. It neither hides the watermarks of others nor delays again.
func TestC8_AnAbsurdWatermarkExpires(t *testing.T) {
	p := gaining(t, Watermarks{"Foo": "99999999999999999999"})
	p.show("lease-b")
	p.run(p.cfg.CacheSyncTimeout + p.cfg.Coalesce + 100*time.Millisecond)
	p.wantStates(p.all(), nil)

	p.peer("c", PhaseActive, p.owned("c", "a", "c")...)
	p.show("lease-c")
	p.wait(2 * p.cfg.CacheSyncTimeout)
	if pending := p.m.PendingWatermarks(); pending != nil {
		t.Errorf("pending: %v", pending)
	}
	r := p.peerRecord("c", PhaseDraining)
	r.Holder, r.Watermarks = "", Watermarks{"Foo": "1000"}
	p.put("lease-c", r)
	p.show("lease-c")
	p.show("lease-b") // again
	if diff := cmp.Diff(Watermarks{"Foo": "1000"}, p.m.PendingWatermarks()); diff != "" {
		t.Errorf("pending (-want +got):\n%s", diff)
	}
}

// A watermark that is corrected counts when the one before it has expired.
func TestC8_ACorrectedWatermarkCounts(t *testing.T) {
	p := newDriver(t, func(c *Config) { c.CacheSyncTimeout = time.Second }).join()
	publish := func(seq uint64, version string) {
		r := p.peerRecord("b", PhaseJoining)
		r.Seq, r.Watermarks = seq, Watermarks{"Foo": version}
		p.put("lease-b", r)
		p.show("lease-b")
	}
	publish(1, "99999999999999999999")
	publish(2, "1000")
	if diff := cmp.Diff(Watermarks{"Foo": "99999999999999999999"}, p.m.PendingWatermarks()); diff != "" {
		t.Errorf("a late message lowers a watermark (-want +got):\n%s", diff)
	}
	p.wait(p.cfg.CacheSyncTimeout)
	publish(3, "1000")
	if diff := cmp.Diff(Watermarks{"Foo": "1000"}, p.m.PendingWatermarks()); diff != "" {
		t.Errorf("pending (-want +got):\n%s", diff)
	}
}

func TestC8_RemembersABoundedNumberOfWatermarks(t *testing.T) {
	p := newDriver(t, func(c *Config) { c.CacheSyncTimeout = time.Second }).join()
	watermarks := Watermarks{}
	for i := range 10 * MaxWatermarks {
		watermarks[fmt.Sprint(i)] = "1"
	}
	for i := range 20 {
		r := p.peerRecord("b", PhaseDraining)
		r.Holder, r.Watermarks = "", watermarks
		p.step(LeaseDeleted{Last: Lease{Name: "lease-b", UID: fmt.Sprint(i), Version: "50", Record: r}})
		p.wait(p.cfg.CacheSyncTimeout / 10)
	}
	// Those of Leases that exist no more are forgotten when they have expired.
	if n := len(p.m.caches.published); n < 10 || n > 12 {
		t.Errorf("the watermarks of %d Leases are remembered", n)
	}
	for uid, of := range p.m.caches.published {
		if len(of) > MaxWatermarks {
			t.Errorf("%d watermarks of %s", len(of), uid)
		}
	}
}
