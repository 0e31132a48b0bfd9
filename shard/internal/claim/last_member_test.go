// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"testing"
	"time"
)

// stopsWith returns a member that stops, 2 s after it has made a tombstone for the
// Lease of x.
func stopsWith(t *testing.T, peers ...string) *driver {
	t.Helper()
	p := newDriver(t)
	for _, name := range append(peers, "x") {
		p.peer(name, PhaseActive)
	}
	p.join()
	x := p.peerRecord("x", PhaseActive, p.owned("x", append(peers, "a", "x")...)...)
	x.Seq = 1
	last := p.put("lease-x", x)
	p.show("lease-x")
	p.remove("lease-x")
	p.gone(last)
	p.run(2 * time.Second)
	if p.m.TombstoneCount() != 1 {
		t.Fatalf("%d tombstones", p.m.TombstoneCount())
	}
	p.step(Stop{})
	return p
}

// A member without tombstones stops at once. One that has some keeps its Lease, and renews it,
// until they have expired. Then it deletes the Lease.
func TestR39_TheLastMemberStaysUntilItsTombstonesHaveExpired(t *testing.T) {
	p := stopsWith(t)
	p.run(time.Second)
	for p.m.TombstoneCount() > 0 {
		if l := p.lease(p.cfg.Lease); l.Record.Holder != p.cfg.Holder || l.Record.Phase != PhaseDraining || len(l.Record.Tombstones) != 1 || !l.Record.Claims.Empty() {
			t.Fatalf("%v before the tombstone expires, the Lease is %+v", p.m.StaysFor(), l)
		}
		if stays := p.m.StaysFor(); stays <= 0 || stays > 12*time.Second {
			t.Fatalf("stays for %v", stays)
		}
		p.run(100 * time.Millisecond)
	}
	p.run(time.Second)
	if !p.m.Ended() || p.exists(p.cfg.Lease) {
		t.Errorf("ended: %v, the Lease exists: %v", p.m.Ended(), p.exists(p.cfg.Lease))
	}
}

// A tombstone may block for an hour. The member stays for its lease duration only, and then leaves
// its void Lease with the tombstone.
func TestR39_TheLastMemberLeavesALongTombstoneOnItsLease(t *testing.T) {
	p := newDriver(t).join()
	last := p.put("lease-x", edited("x_1"))
	p.show("lease-x")
	p.remove("lease-x")
	p.gone(last)
	p.run(time.Second)
	start := p.now
	p.step(Stop{})
	for !p.m.Ended() && p.now.since(start) < time.Hour {
		p.run(100 * time.Millisecond)
	}
	if took := p.now.since(start); took < p.cfg.LeaseDuration || took > p.cfg.LeaseDuration+time.Second {
		t.Errorf("stops after %v", took)
	}
	if l := p.lease(p.cfg.Lease); !l.Record.Void() || len(l.Record.Tombstones) != 1 {
		t.Errorf("the Lease is %+v", l)
	}
}

// The member leaves as soon as another one has shown that it knows the tombstones and stays.
func TestR39_AMemberLeavesItsTombstonesToOneThatStays(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Record)
		heir   bool
	}{
		{"settled", func(*Record) {}, true},
		{"it has not seen that this member stops", func(r *Record) { r.Watched = "99" }, false},
		{"a version above its own write", func(r *Record) { r.Watched = "9000" }, false},
		{"it stops, too", func(r *Record) { r.Phase = PhaseDraining }, false},
		{"released", func(r *Record) { r.Phase, r.Holder = PhaseDraining, "" }, false},
		{"not settled", func(r *Record) { r.Newcomer = "" }, false},
		{"edited", func(r *Record) { *r = edited("b_1") }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := stopsWith(t, "b")
			p.run(time.Second)
			if p.m.Ended() {
				t.Fatal("leaves although b may be dead")
			}
			b := p.peerRecord("b", PhaseActive)
			b.Seq, b.Watched = 1, p.server.Version()
			c.change(&b)
			p.put("lease-b", b)
			p.show("lease-b")
			p.run(time.Second)
			if p.m.Ended() != c.heir {
				t.Errorf("ended: %v", p.m.Ended())
			}
			if l := p.lease(p.cfg.Lease); c.heir && !l.Record.Void() {
				t.Errorf("the Lease is %+v", l)
			}
		})
	}
}

// The clock of b is 1 % faster, and so each of its records shortens the time of the tombstone. That
// makes no other tombstone of it.
func TestR39_AnHeirWhoseClockIsFaster(t *testing.T) {
	p := stopsWith(t, "b")
	p.run(time.Second)
	b := p.peerRecord("b", PhaseActive)
	b.Seq, b.Watched, b.Tombstones = 1, p.server.Version(), p.lease(p.cfg.Lease).Record.Tombstones
	was := p.m.tombstonesNow()[0].Remaining
	b.Tombstones[0].Remaining = was - 30*time.Millisecond
	p.put("lease-b", b)
	p.show("lease-b")
	if is := p.m.tombstonesNow()[0].Remaining; is >= was {
		t.Fatalf("the tombstone still has %v", is)
	}
	p.run(time.Second)
	if !p.m.Ended() {
		t.Errorf("stays for %v, although b knows the tombstone", p.m.StaysFor())
	}
}

// The last member, which has no tombstone itself, leaves the void Lease of another member that has
// one, until that has expired.
func TestR39_TheLastMemberDeletesNoTombstoneOfAnother(t *testing.T) {
	for name, after := range map[string]time.Duration{"it blocks": time.Second, "it has expired": 6 * time.Second} {
		t.Run(name, func(t *testing.T) {
			p := newDriver(t).join()
			b := p.peerRecord("b", PhaseDraining)
			p.put("lease-b", b)
			p.show("lease-b")
			b.Holder, b.Seq = "", 1
			b.Tombstones = []Tombstone{{UID: "gone", Holder: "x_1", Claims: p.peerRecord("x", PhaseActive, 1).Claims, Duration: 15 * time.Second, Remaining: 5 * time.Second}}
			p.put("lease-b", b)
			p.show("lease-b")
			p.run(after)
			p.step(Stop{})
			p.run(time.Second)
			if !p.m.Ended() || p.exists(p.cfg.Lease) {
				t.Errorf("ended: %v, its Lease exists: %v", p.m.Ended(), p.exists(p.cfg.Lease))
			}
			if blocks := after < 5*time.Second; p.exists("lease-b") != blocks {
				t.Errorf("the Lease of b exists: %v", !blocks)
			}
		})
	}
}

// A newcomer that must wait, because its first list shows that members were at work, deletes nothing
// when it stops: the next newcomer must wait, too. One that is settled deletes every void Lease.
func TestR39_ANewcomerLeavesWhatHasMadeItWait(t *testing.T) {
	for name, c := range map[string]struct {
		void  bool // the first list shows a void Lease
		after time.Duration
		left  bool
	}{
		"it waits":           {true, 3 * time.Second, true},
		"it has waited":      {true, 16 * time.Second, false},
		"after a cold start": {false, 3 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			peers := map[string]Record{}
			if c.void {
				peers["b"] = Record{Member: "b", Phase: PhaseDraining, Newcomer: Settled, Watched: "99"}
			}
			p := newNewcomer(t, peers)
			p.run(c.after)
			p.step(Stop{})
			p.run(time.Second)
			if !p.m.Ended() || p.exists(p.cfg.Lease) != c.left || p.exists("lease-b") != c.left {
				t.Errorf("ended: %v, its Lease exists: %v, that of b: %v", p.m.Ended(), p.exists(p.cfg.Lease), p.exists("lease-b"))
			}
		})
	}
}

// R39: this member makes a tombstone while it drains. b is no heir to it before it has shown that its watch has come to a
// write that was sent after that.
func TestR39_AnHeirThatIsOlderThanTheTombstone(t *testing.T) {
	for name, inFlight := range map[string]bool{
		"b has seen that this member drains":                                false,
		"b has seen a write that was in flight when the tombstone was made": true,
	} {
		t.Run(name, func(t *testing.T) {
			p := newDriver(t)
			for _, name := range []string{"b", "x"} {
				p.peer(name, PhaseActive)
			}
			p.join()
			x := p.peerRecord("x", PhaseActive, p.owned("x", "a", "b", "x")...)
			x.Seq = 1
			last := p.put("lease-x", x)
			p.show("lease-x")
			p.serve()
			p.step(Stop{})
			drain := take[Drain](p) // work is in flight
			b := p.peerRecord("b", PhaseActive)
			shows := func(seq uint64, watched string) {
				b.Seq, b.Watched = seq, watched
				p.put("lease-b", b)
				p.show("lease-b")
			}
			if inFlight {
				p.wait(p.cfg.Coalesce)
				write := take[WriteLease](p)
				lease := p.commit(write)
				p.remove("lease-x")
				p.gone(last)
				p.step(WriteResult{Op: write.Op, Outcome: OK, Lease: lease})
				shows(1, lease.Version)
			} else {
				p.run(time.Second)
				shows(1, p.server.Version())
				p.run(time.Second)
				p.remove("lease-x")
				p.gone(last)
			}
			if p.m.Ended() || p.m.TombstoneCount() != 1 {
				t.Fatalf("ended: %v, %d tombstones", p.m.Ended(), p.m.TombstoneCount())
			}
			p.step(Idle(drain))
			p.run(time.Second)
			if p.m.Ended() {
				t.Fatal("leaves at once, although b may not know the tombstone")
			}
			shows(2, p.server.Version())
			p.run(time.Second)
			if !p.m.Ended() {
				t.Error("stays although b knows the tombstone")
			}
		})
	}
}
