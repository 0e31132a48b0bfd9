// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// askFirstList returns the driver of a machine that waits for the response to its first list.
func askFirstList(t *testing.T) (*driver, ListLeases) {
	t.Helper()
	p := newDriver(t)
	p.step(Tick{})
	p.step(Synced{})
	p.step(GetResult{Op: take[GetLease](p).Op, Outcome: NotFound})
	create := take[CreateLease](p)
	p.step(WriteResult{Op: create.Op, Outcome: OK, Lease: p.commit(create)})
	p.show(p.cfg.Lease)
	return p, take[ListLeases](p)
}

// A new member requests its first list. While the response is in flight, the watch shows that
// a peer leaves: the list is older and still contains the peer.
func TestL1_TheFirstListDoesNotBringBackAPeerThatHasLeft(t *testing.T) {
	p, list := askFirstList(t)
	b := p.put("lease-b", p.peerRecord("b", PhaseActive, p.all()...))
	answer := p.list()
	p.show(b.Name)
	released := b.Record
	released.Holder, released.Phase = "", PhaseDraining
	last := p.put(b.Name, released)
	p.show(b.Name)
	p.remove(b.Name)
	p.step(LeaseDeleted{Last: last, Final: true})

	p.step(ListResult{Op: list.Op, Outcome: OK, Leases: answer})
	p.run(5 * time.Second)
	p.wantStates(p.all(), nil)
}

// A new member's first list contains a peer that its watch never shows: the watch listed
// again after the peer's Lease had been created and deleted. An update of a Lease that does
// not exist is a conflict.
func TestL1_APeerThatTheWatchNeverShowsBlocksNothingForEver(t *testing.T) {
	p, list := askFirstList(t)
	b := p.put("lease-b", p.peerRecord("b", PhaseActive, p.all()...))
	p.step(ListResult{Op: list.Op, Outcome: OK, Leases: p.list()})
	p.remove(b.Name)
	p.run(2*p.cfg.LeaseDuration + 5*time.Second)
	p.wantStates(p.all(), nil)
}

// A list lacks a Lease that the watch still shows as held: it was deleted, and its member
// may be at work. What it has claimed since the watch last showed it is unknown until the
// watch has reached the list (R31). The machine may handle a response before watch events
// that are older.
func TestR31_APeerThatIsMissingFromTheListMayHaveClaimedMore(t *testing.T) {
	p := newDriver(t)
	mine := p.owned("a", "a", "b")
	b := p.peer("b", PhaseActive, p.all()...)
	p.join()
	p.wantStates(nil, nil)

	// b releases this member's part; this member claims it.
	b = p.put(b.Name, p.peerRecord("b", PhaseActive, without(p.all(), mine)...))
	p.show(b.Name)
	p.wait(p.cfg.Coalesce)
	update := take[WriteLease](p)
	p.step(WriteResult{Op: update.Op, Outcome: OK, Lease: p.commit(update)})
	p.show(p.cfg.Lease)
	list := take[ListLeases](p)
	// Before that, b had claimed a part of it again, because its ring differed for a moment.
	// Then its Lease was deleted. The watch has yet to show both.
	last := b
	last.Record.Seq++
	last.Record.Claims.Set = setOf(testPartitions, p.all()...)
	p.remove(b.Name)
	p.step(ListResult{Op: list.Op, Outcome: OK, Leases: p.list()})
	none[Activated](p)
	p.step(LeaseObserved{Lease: last})
	p.step(LeaseDeleted{Last: last, Final: true})
	p.run(p.cfg.LeaseDuration - 2*p.cfg.RenewPeriod)
	p.wantStates(nil, mine)
	p.run(2*p.cfg.RenewPeriod + 2*time.Second)
	p.wantStates(p.all(), nil)
}

// A new member's first list shows the held Lease of a restarted Pod of a StatefulSet. The watch is
// behind and shows the void Lease that had this name before, and its end. It then has a gap in
// which the held Lease is deleted. The watch never shows that Lease nor its end: what R64 says of
// a Lease that only a list has shown applies to it, and so does R29.
func TestR29_AnEventOfAnEarlierLeaseOfThatNameDoesNotShowTheListedOne(t *testing.T) {
	for name, c := range map[string]struct{ gap bool }{"the machine ends": {false}, "the watch lists": {true}} {
		t.Run(name, func(t *testing.T) {
			p, list := askFirstList(t)
			void := p.put("lease-b", Record{Member: "b", Phase: PhaseDraining})
			p.remove("lease-b")
			p.put("lease-b", p.peerRecord("b", PhaseActive, p.all()...))
			p.step(ListResult{Op: list.Op, Outcome: OK, Leases: p.list()})
			// The events that waited while the response was handled first (R86).
			p.step(LeaseObserved{Lease: void})
			p.step(LeaseDeleted{Last: void, Final: true})
			p.remove("lease-b") // in a gap of the watch
			if c.gap {
				p.step(LeaseObserved{Lease: p.lease(p.cfg.Lease), Listed: true})
				p.step(WatchProgress{Version: p.server.Version(), Listed: true})
				if n := p.m.TombstoneCount(); n == 0 || len(p.m.Peers()) > 0 {
					t.Errorf("the list of the watch does not have the Lease: %d tombstones, peers %+v", n, p.m.Peers())
				}
				return
			}
			if len(p.m.Tombstones()) == 0 {
				t.Errorf("the next machine gets no tombstone for the Lease that the watch may never show: peers %+v", p.m.Peers())
			}
		})
	}
}

// The same, and this member's Lease is deleted in the same gap. The next machine of the process must
// wait, because the process of the deleted Lease may still work.
func TestR64_TheNextMachineWaitsForALeaseThatOnlyAListHasShown(t *testing.T) {
	p, list := askFirstList(t)
	void := p.put("lease-b", Record{Member: "b", Phase: PhaseDraining})
	p.remove("lease-b")
	p.put("lease-b", p.peerRecord("b", PhaseActive, p.all()...))
	p.step(ListResult{Op: list.Op, Outcome: OK, Leases: p.list()})
	p.step(LeaseObserved{Lease: void})
	p.step(LeaseDeleted{Last: void, Final: true})
	own := p.lease(p.cfg.Lease)
	p.remove("lease-b") // in a gap of the watch, as this member's own
	p.remove(p.cfg.Lease)
	p.step(LeaseDeleted{Last: own})
	p.step(WatchProgress{Version: p.server.Version(), Listed: true}) // the gap has ended
	p.step(WriteResult{Op: take[WriteLease](p).Op, Outcome: Conflict})
	p.serve()
	if p.m.stage != ended {
		t.Fatal("the machine has not ended")
	}
	before := p.m
	p.cfg.Predecessor, p.cfg.Holder = p.cfg.Holder, "a_2"
	p.cfg.Tombstones, p.cfg.Knowledge = before.Tombstones(), before.Knowledge()
	p.m, p.did = New(p.cfg), nil
	p.step(Tick{})
	p.step(Synced{})
	for start := p.now.Mono; p.now.Mono-start < 14*time.Second; {
		p.run(500 * time.Millisecond)
		p.wantStates(nil, nil)
	}
}

// claimNext returns the driver of a member that waits for the response to its first claim.
func claimNext(t *testing.T) (*driver, WriteLease) {
	t.Helper()
	p := newDriver(t)
	p.step(Tick{})
	p.step(Synced{})
	p.serve()
	p.wait(p.cfg.Coalesce)
	claim := take[WriteLease](p)
	if claim.Record.Claims.Empty() {
		t.Fatal("the write claims nothing")
	}
	return p, claim
}

// R29: a Lease has vanished if only a list has shown it and the watch has come further without
// showing it. Here it is a list before an activation, and not the first one, that shows it. b claims
// everything before this member does, and works: its list does not show the claim of this member.
// The stream of this member's watch has just ended, and shows neither claim.
func TestR29_ALeaseThatOnlyTheListBeforeAnActivationHasShown(t *testing.T) {
	for name, c := range map[string]struct{ void, rejected, fenced bool }{
		"a new name":                          {},
		"the name of a void Lease":            {void: true},
		"in a list that R17 rejects":          {rejected: true},
		"fenced before the list was compared": {fenced: true},
	} {
		t.Run(name, func(t *testing.T) {
			p, claim := claimNext(t)
			var void Lease
			if c.void {
				void = p.put("lease-b", Record{Member: "b", Phase: PhaseDraining})
				p.show("lease-b")
				p.remove("lease-b")
			}
			p.put("lease-b", p.peerRecord("b", PhaseActive, p.all()...))
			before := p.lease(p.cfg.Lease)
			p.step(WriteResult{Op: claim.Op, Outcome: OK, Lease: p.commit(claim)})
			leases := p.list()
			if c.rejected {
				leases = []Lease{before, p.lease("lease-b")}
			}
			p.step(ListResult{Op: take[ListLeases](p).Op, Outcome: OK, Leases: leases})
			p.wantStates(nil, p.all())
			if c.fenced {
				p.now = p.now.Add(p.cfg.RenewDeadline)
				p.step(Tick{})
				take[Fenced](p)
			}
			// The Lease is deleted, for instance with its Pod on a partitioned node, and then the
			// watch lists again: it has come further without showing the Lease.
			p.remove("lease-b")
			if c.void {
				p.step(LeaseDeleted{Last: void})
			}
			p.step(LeaseObserved{Lease: p.lease(p.cfg.Lease), Listed: true})
			p.step(WatchProgress{Version: p.server.Version(), Listed: true})
			for start := p.now.Mono; p.now.Mono-start < 14*time.Second; {
				p.run(500 * time.Millisecond)
				if active := p.in(ring.Active); len(active) > 0 {
					t.Fatalf("works on %v while b may work", active)
				}
			}
			p.run(3 * time.Second)
			p.wantStates(p.all(), nil)
		})
	}
}

// While a list is in flight, the watch shows a peer that leaves. The list is older and still
// contains it. The watch has shown how it ended, so nothing blocks.
func TestL1_NoListMakesATombstoneOfAPeerThatHasLeft(t *testing.T) {
	p, claim := claimNext(t)
	p.step(WriteResult{Op: claim.Op, Outcome: OK, Lease: p.commit(claim)})
	p.show(p.cfg.Lease)
	list := take[ListLeases](p)
	b := p.peer("b", PhaseDraining, 0)
	leases := p.list()
	b.Record.Holder, b.Record.Claims = "", Claims{}
	last := p.put(b.Name, b.Record)
	p.show(b.Name)
	p.remove(b.Name)
	p.step(LeaseDeleted{Last: last, Final: true})
	p.catchUp()
	p.step(ListResult{Op: list.Op, Outcome: OK, Leases: leases})
	p.run(time.Second)
	p.wantStates(p.all(), nil)
}

// A Pod of a StatefulSet is replaced while the response to a quorum list is on its way: the list
// shows the Lease that the Pod had before, and the list of the watch the one that it has now. The
// response is handled before the end of the list of the watch (R86). Then the Pod's node dies.
// The Lease of that name in the list is older than the one that the watch has shown: it must not
// replace it, or no member evicts the one that exists (G7).
func TestR29_AnOldListDoesNotReplaceTheLeaseThatTheWatchShows(t *testing.T) {
	p, list := askFirstList(t)
	p.put("lease-b", p.peerRecord("b", PhaseActive, p.all()...))
	answer := p.list()
	p.remove("lease-b")
	now := p.put("lease-b", p.peerRecord("b", PhaseActive, p.all()...))

	// The watch lists again.
	p.step(LeaseObserved{Lease: p.lease(p.cfg.Lease), Listed: true})
	p.step(LeaseObserved{Lease: now, Listed: true})
	p.step(ListResult{Op: list.Op, Outcome: OK, Leases: answer})
	p.step(WatchProgress{Version: p.server.Version(), Listed: true})

	if b := p.m.peers["lease-b"]; b == nil || b.lease.UID != now.UID {
		t.Errorf("this member does not see the Lease that exists: %+v", b)
	}
	p.run(10 * p.cfg.LeaseDuration)
	p.wantStates(p.all(), nil)
}
