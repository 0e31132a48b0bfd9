// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"strconv"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// restart replaces the machine as package member does: the new machine is shown what the watch
// has shown, as Leases that may be ahead of the events that still wait for it.
func (p *driver) restart(holder string, shown ...string) {
	p.t.Helper()
	p.next(holder)
	for _, name := range shown {
		p.step(LeaseObserved{Lease: p.lease(name), Listed: true, Ahead: true})
	}
}

// A machine ends when it has handled the Leases of the first list of its watch, but not yet the
// end of that list. The next machine must not take the Leases of that list for gone, and so
// must not begin a cold start.
func TestR49_AMachineThatEndsWithinAListOfTheWatch(t *testing.T) {
	for name, first := range map[string]bool{"the first list": true, "a later list": false} {
		t.Run(name, func(t *testing.T) {
			p := newDriver(t)
			if first {
				p.m, p.did = New(p.cfg), nil
			} else {
				p.join()
			}
			b := p.put("lease-b", p.peerRecord("b", PhaseActive, 0, 1, 2, 3))
			x := p.put("lease-x", p.peerRecord("x", PhaseActive, 4, 5, 6, 7))
			p.remove(x.Name) // b has not noticed it yet
			p.step(Tick{})
			p.serve() // GET, CREATE, LIST
			listed := p.server.Version()
			p.step(LeaseObserved{Lease: b, Listed: true})
			// Someone deletes this member's Lease, too. The result of the read is handled before
			// the other events of the watch (R86).
			own := p.lease(p.cfg.Lease)
			p.remove(own.Name)
			p.step(LeaseDeleted{Last: own, Final: true})
			p.serve()
			if !p.m.Ended() {
				t.Fatal("the machine has not ended")
			}
			p.restart("a_2", "lease-b")
			p.step(WatchProgress{Version: listed, Listed: true})
			if n := p.m.TombstoneCount(); first && n > 0 {
				t.Errorf("%d tombstones, although the watch has shown the Lease", n)
			}
			if len(p.m.Peers()) == 0 {
				t.Error("the Lease that the list has shown is gone")
			}
			if !first {
				return
			}
			p.serve()
			// b has noticed that the Lease of x was deleted, and publishes it. The process of x
			// works for another LD.
			r := p.peerRecord("b", PhaseActive, 0, 1, 2, 3)
			r.Seq, r.Watched = 2, p.server.Version()
			r.Tombstones = []Tombstone{{UID: x.UID, Holder: x.Record.Holder, Claims: x.Record.Claims, Duration: p.cfg.LeaseDuration, Remaining: p.cfg.LeaseDuration}}
			p.put("lease-b", r)
			p.show("lease-b")
			p.run(5 * time.Second)
			for _, partition := range p.in(ring.Active) {
				if partition >= 4 {
					t.Errorf("partition %d is active while the process of x works on it", partition)
				}
			}
		})
	}
}

// R49, R64: a Lease of the first list ends together with the machine (kubectl delete leases -l ...).
// The next machine begins when the store of the watch does not have that Lease any more, while the
// event waits for the loop, which handles results first (R86).
func TestR49_ALeaseOfTheFirstListThatEndsBetweenTwoMachines(t *testing.T) {
	end := func(p *driver) {
		last := p.lease("lease-b")
		p.remove(p.cfg.Lease)
		p.remove("lease-b")
		p.m.end(ErrVanished)
		p.restart("a_2")
		p.step(LeaseDeleted{Last: last, Final: true})
	}
	t.Run("edited", func(t *testing.T) { // L1: it may have hidden a longer duration, but its tombstone counts now
		p := newNewcomer(t, map[string]Record{"b": edited("b_1")})
		p.run(5 * time.Second)
		p.wantStates(nil, nil)
		end(p)
		p.run(MaxLeaseDuration + time.Minute)
		p.wantStates(p.all(), nil)
	})
	t.Run("edited, and only a quorum list has shown it", func(t *testing.T) { // L1: the watch never shows its end
		p := newDriver(t)
		p.m, p.did = New(p.cfg), nil
		p.step(Tick{})
		p.step(GetResult{Op: take[GetLease](p).Op, Outcome: NotFound})
		create, version := take[CreateLease](p), p.server.Version()
		p.put("lease-b", edited("b_1"))
		p.step(WriteResult{Op: create.Op, Outcome: OK, Lease: p.commit(create)})
		p.step(ListResult{Op: take[ListLeases](p).Op, Outcome: OK, Leases: p.list()})
		p.step(WatchProgress{Version: version, Listed: true})
		p.remove(p.cfg.Lease)
		p.remove("lease-b") // in a gap of the watch
		p.m.end(ErrVanished)
		p.restart("a_2")
		p.run(MaxLeaseDuration + time.Minute)
		p.wantStates(p.all(), nil)
	})
	t.Run("joining", func(t *testing.T) { // it has not said what it knew: no cold start
		b := newDriver(t).peerRecord("b", PhaseJoining)
		b.Newcomer = ""
		p := newNewcomer(t, map[string]Record{"b": b})
		p.run(time.Second)
		if !p.m.knowledge.cold {
			t.Fatal("not cold")
		}
		end(p)
		if p.m.knowledge.cold {
			t.Error("cold")
		}
		p.run(p.cfg.LeaseDuration + 2*time.Second)
		p.wantStates(p.all(), nil)
	})
}

// R49, R52: b has evicted a and works on everything. Someone applies a's old record again. a reads
// it, and claims everything again, to check it. It must not publish that it is alone: a process
// of the same Pod that starts after it would not wait for b, whose Lease was deleted.
func TestR52_AnUnsureMemberIsNotAlone(t *testing.T) {
	p := newDriver(t, func(c *Config) { c.TakeOver, c.PodUID = true, "pod-uid" }).join()
	p.run(p.cfg.RenewPeriod) // it has published that it is alone
	old := p.lease(p.cfg.Lease).Record
	if old.Newcomer != Alone {
		t.Fatalf("published %q", old.Newcomer)
	}
	u := p.due()
	p.wait(p.cfg.RenewDeadline) // it is cut off
	take[Fenced](p)
	p.step(WriteResult{Op: u.Op})
	p.now = p.now.Add(p.cfg.LeaseDuration - p.cfg.RenewDeadline)
	p.put(p.cfg.Lease, Record{Member: "a", Phase: PhaseDraining, EvictedBy: "b_1"})
	b := p.put("lease-b", p.peerRecord("b", PhaseActive, p.all()...)) // b works
	p.put(p.cfg.Lease, old)
	p.did = nil
	p.step(Tick{})
	p.answer(take[GetLease](p))
	u = take[WriteLease](p)
	p.commit(u)
	if u.Record.Newcomer == Alone {
		t.Error("publishes that it is alone, before it has checked whether another member works")
	}
	// The process crashes, and b's Lease is deleted while b cannot reach the server. The process
	// that starts again in the Pod must wait until b has stopped.
	p.remove(b.Name)
	p.cfg.Holder = "a_2"
	p.m, p.did = New(p.cfg), nil
	p.step(LeaseObserved{Lease: p.lease(p.cfg.Lease), Listed: true})
	p.step(WatchProgress{Version: p.server.Version(), Listed: true})
	p.step(Synced{})
	p.quiet(8*time.Second, p.all()...)
}

// R39, R42: a policy engine puts its label on each version of the void Lease, too. The last member
// still deletes its Lease.
func TestR39_TheLastMemberDeletesItsLeaseAlthoughAnotherClientHasWrittenIt(t *testing.T) {
	p := newDriver(t).join()
	p.peer("b", PhaseActive)
	p.run(time.Second)
	p.put("lease-b", Record{Member: "b", Phase: PhaseDraining})
	p.show("lease-b")
	p.run(time.Second)
	p.hang = true
	p.step(Stop{})
	p.run(100 * time.Millisecond)
	if len(p.hung) != 1 {
		t.Fatalf("%d deletions of b's Lease", len(p.hung))
	}
	p.putExtra(extra("a"))
	p.show(p.cfg.Lease)
	p.did = nil
	p.remove("lease-b")
	p.step(DeleteResult{Op: p.hung[0].(DeleteLease).Op, Outcome: OK})
	if d := take[DeleteLease](p); d.Version != p.lease(p.cfg.Lease).Version {
		t.Errorf("deletes it at version %q instead of %q", d.Version, p.lease(p.cfg.Lease).Version)
	}
}

// R84: the server cannot be reached any more when the last member has voided its Lease. It must not
// wait for a request for each void Lease that is left.
func TestR84_TheLastMemberStopsSoonAlthoughTheServerIsGone(t *testing.T) {
	p := newDriver(t).join()
	for i := range 40 {
		name := "lease-" + strconv.Itoa(i)
		p.put(name, Record{Member: "m", Phase: PhaseDraining})
		p.show(name)
	}
	p.run(time.Second)
	p.hang = true
	p.step(Stop{})
	p.run(100 * time.Millisecond)
	start := p.now
	for !p.m.Ended() && p.now.since(start) < time.Hour {
		p.now = p.now.Add(p.m.timeout())
		hung := append([]Action{}, p.hung...)
		p.hung = nil
		for _, a := range hung {
			p.step(DeleteResult{Op: a.(DeleteLease).Op})
		}
		for _, a := range p.did {
			if d, ok := a.(DeleteLease); ok {
				p.hung = append(p.hung, d)
			}
		}
		p.did = nil
	}
	if d := p.now.since(start); d > 3*p.m.timeout() {
		t.Errorf("stops after %v", d)
	}
}

// L1: as above, and b is dead. Its Lease is evicted as usual.
func TestL1_ADeadPeerIsNotForgottenWithinAListOfTheWatch(t *testing.T) {
	p := newDriver(t).join()
	b := p.put("lease-b", p.peerRecord("b", PhaseActive, 0, 1, 2, 3)) // b has evicted a, works, and dies
	p.put(p.cfg.Lease, Record{Member: "a", Phase: PhaseDraining, EvictedBy: "b_1"})
	// The network heals: the watch lists again. The machine learns that it was evicted before it
	// comes to the end of that list.
	listed := p.server.Version()
	p.step(LeaseObserved{Lease: b, Listed: true})
	p.step(LeaseObserved{Lease: p.lease(p.cfg.Lease), Listed: true})
	p.serve()
	if !p.m.Ended() {
		t.Fatal("the machine has not ended")
	}
	p.restart("a_2", "lease-b", p.cfg.Lease)
	p.step(WatchProgress{Version: listed, Listed: true})
	p.run(10 * time.Minute)
	p.wantStates(p.all(), nil)
}

// R42: another client removes the ring's label while the response to a renewal is on its way. The
// member answers that before its next renewal, as if the response had come first.
func TestR42_ALabelThatIsRemovedDuringAWriteIsRestored(t *testing.T) {
	p := newDriver(t).join()
	u := p.due()
	written := p.commit(u)
	p.step(LeaseObserved{Lease: written})
	p.put(written.Name, written.Record) // without the label; the watch shows that as a deletion
	p.step(LeaseDeleted{Last: written, Final: true})
	p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: written})
	p.wait(p.cfg.RenewPeriod / 2)
	if len(p.did) == 0 {
		t.Error("sends nothing")
	}
}
