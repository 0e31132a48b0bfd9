// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"testing"
	"time"
)

// askFirstList makes a pilot whose machine is about to take the answer to its first list.
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

// A new member asks for its first list. While the answer is on its way, the watch shows
// how a peer leaves: the list is of an earlier moment and still has it.
func TestL1_TheFirstListBringsNoPeerBackThatTheWatchHasSeenLeave(t *testing.T) {
	p, list := askFirstList(t)
	b := p.put("lease-b", p.peerRecord("b", PhaseActive, p.all()...))
	answer := p.list()
	p.show(b.Name)
	released := b.Record
	released.Holder, released.Phase = "", PhaseDraining
	last := p.put(b.Name, released)
	p.show(b.Name)
	delete(p.leases, b.Name)
	p.step(LeaseDeleted{Last: last, Final: true})

	p.step(ListResult{Op: list.Op, Outcome: OK, Leases: answer})
	p.run(5 * time.Second)
	p.wantStates(p.all(), nil)
}

// A new member's first list has a peer that its watch never shows: a new list of the watch
// came after the peer's Lease was created and deleted again. An update of a Lease that
// does not exist is a conflict.
func TestL1_APeerThatTheWatchNeverShowsBlocksNothingForEver(t *testing.T) {
	p, list := askFirstList(t)
	b := p.put("lease-b", p.peerRecord("b", PhaseActive, p.all()...))
	p.step(ListResult{Op: list.Op, Outcome: OK, Leases: p.list()})
	delete(p.leases, b.Name)
	p.run(2*p.cfg.LeaseDuration + 5*time.Second)
	p.wantStates(p.all(), nil)
}

// A list lacks a Lease that the watch still shows as held: it was deleted, and its member
// may be at work. What it has claimed since the watch showed it last is not known until
// the watch has come as far as the list (R31). An answer may be taken before events of
// the watch that came earlier.
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
	// Before that, b had taken a part of it back: its ring was another one for a moment.
	// Its Lease was deleted then. The watch has yet to show both.
	last := b
	last.Record.Seq++
	last.Record.Claims.Set = setOf(testPartitions, p.all()...)
	delete(p.leases, b.Name)
	p.step(ListResult{Op: list.Op, Outcome: OK, Leases: p.list()})
	none[Activated](p)
	p.step(LeaseObserved{Lease: last})
	p.step(LeaseDeleted{Last: last, Final: true})
	p.run(p.cfg.LeaseDuration - 2*p.cfg.RenewPeriod)
	p.wantStates(nil, mine)
	p.run(2*p.cfg.RenewPeriod + 2*time.Second)
	p.wantStates(p.all(), nil)
}
