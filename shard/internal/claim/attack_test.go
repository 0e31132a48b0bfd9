// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Each test in this file shows a fault that is not fixed yet. Without its Skip, it fails.

// nextMachine starts the machine that follows the present one, as the loop of a member does. shown
// is what the store of the watch contains: it may be ahead of the events that wait for the loop.
func (p *driver) nextMachine(reason error, shown ...Lease) {
	p.t.Helper()
	p.m.wentBack = reason == ErrWentBack
	p.m.end(reason)
	before := p.m
	before.Step(p.now, Tick{})
	p.cfg.Predecessor, p.cfg.Holder = p.cfg.Holder, "a_2"
	p.cfg.Tombstones, p.cfg.Knowledge = before.Tombstones(), before.Knowledge()
	p.m, p.did = New(p.cfg), nil
	p.step(Tick{})
	for _, l := range shown {
		p.step(LeaseObserved{Lease: l, Listed: true, Ahead: true})
	}
	p.step(Synced{})
}

// R49, S1: the first list of the watch shows an active member, so this is no cold start. But the
// response to that list is slow: the quorum list that follows the CREATE is answered first, and shows
// that the member has left since. The machine ignores the older version in the list of the watch, as
// one that was on its way, finds only a void Lease, and takes this for a cold start. b has not seen
// that the Lease of x was deleted (its watch lags), and x, which is cut off, still works.
func TestAttackR49_AFirstListOlderThanTheQuorumListIsNoColdStart(t *testing.T) {
	t.Skip("two members work: progress looks at the peers as they are known, and not as the first list shows them")
	for _, quorumListFirst := range []bool{false, true} { // false is the control
		p := newDriver(t)
		p.m, p.did = New(p.cfg), nil
		p.step(Tick{})
		p.step(Synced{})
		p.put("lease-x", p.peerRecord("x", PhaseActive, p.all()...))
		b := p.peerRecord("b", PhaseActive)
		b.Watched, b.Seq = p.server.Version(), 5
		p.put("lease-b", b)
		p.remove("lease-x")
		first, version := p.list(), p.server.Version() // served now, answered later

		p.step(GetResult{Op: take[GetLease](p).Op, Outcome: NotFound})
		create := take[CreateLease](p)
		b.Holder, b.Phase, b.Seq = "", PhaseDraining, 6
		p.put("lease-b", b)
		p.step(WriteResult{Op: create.Op, Outcome: OK, Lease: p.commit(create)})
		list := take[ListLeases](p)
		if quorumListFirst {
			p.step(ListResult{Op: list.Op, Outcome: OK, Leases: p.list()})
		}
		for _, l := range first {
			p.step(LeaseObserved{Lease: l, Listed: true})
		}
		p.step(WatchProgress{Version: version, Listed: true})
		if !quorumListFirst {
			p.step(ListResult{Op: list.Op, Outcome: OK, Leases: p.list()})
		}
		p.show("lease-b")
		p.show(p.cfg.Lease)
		for start := p.now; p.now.Mono < start.Mono+14*time.Second; {
			p.run(500 * time.Millisecond)
			if n := len(p.in(ring.Active)); n > 0 {
				t.Errorf("quorum list first: %v: works on %d partitions after %v, while x may work", quorumListFirst, n, p.now.Mono-start.Mono)
				break
			}
		}
	}
}

// R32, R64, L1: the database is restored to a state in which b, which has stopped since, holds its
// Lease. A member reads its own Lease before its watch has listed again: the next machine begins with
// what the watch had shown before, a void Lease of a higher version. It ignores the restored Lease
// in the next list of the watch, as one that was on its way. The Lease never changes again, so the
// watch does not show it again. Each quorum list shows its claims; no member evicts it.
func TestAttackR64_ARestoredLeaseIsIgnoredByTheNextMachine(t *testing.T) {
	t.Skip("nothing is owned until the watch happens to list once more")
	p := newDriver(t)
	p.server.Revision = 1000
	r := p.peerRecord("b", PhaseActive, p.all()...)
	r.Seq = 5
	p.put("lease-b", r)
	p.show("lease-b")
	p.join()
	backup, mine := p.lease("lease-b").Record, p.lease(p.cfg.Lease).Record
	p.put("lease-b", Record{Member: "b", Phase: PhaseDraining, Seq: 6})
	p.show("lease-b")
	p.run(5 * time.Second)
	p.wantStates(p.all(), nil)
	shown := []Lease{p.lease(p.cfg.Lease), p.lease("lease-b")}

	p.now = p.now.Add(p.cfg.RenewDeadline + 3*time.Second) // the outage
	p.server.Revision = 500
	p.put("lease-b", backup)
	p.put(p.cfg.Lease, mine)
	p.nextMachine(ErrWentBack, shown...)
	p.step(LeaseObserved{Lease: p.lease(p.cfg.Lease), Listed: true})
	p.step(LeaseObserved{Lease: p.lease("lease-b"), Listed: true})
	p.step(WatchProgress{Version: p.server.Version(), Listed: true})
	p.run(time.Hour)
	p.wantStates(p.all(), nil)
}

// R49, R64, L1: the first list of a newcomer shows an edited Lease of a dead member. Then both Leases
// are deleted (kubectl delete leases -l ...). The machine ends, and the next one begins when the store
// of the watch has no such Lease any more, while the event waits for the loop, which handles results
// first (R86). removePeer forgets what the first list may have hidden only if the peer is known.
func TestAttackR49_AnEditedLeaseThatEndsBetweenTwoMachines(t *testing.T) {
	t.Skip("the member never becomes settled, although no other Lease exists")
	p := newNewcomer(t, map[string]Record{"b": edited("b_1")})
	p.run(5 * time.Second)
	p.wantStates(nil, nil)
	last := p.lease("lease-b")
	p.remove(p.cfg.Lease)
	p.remove("lease-b")
	p.nextMachine(ErrVanished)
	p.step(LeaseDeleted{Last: last, Final: true})
	p.run(3 * time.Hour)
	p.wantStates(p.all(), nil)
}

// R49, L1: the quorum list of a newcomer shows a joining member, which dies. Then its record is edited,
// and only then the watch lists. The record that counts is the last one, so the phase is still joining:
// a cold start that waits for a record of this member, and does not end by the passing of time
// because of what the edit may hide. A joining member evicts no other: the wait never ends.
func TestAttackR49_AJoiningLeaseIsEditedBetweenTheTwoFirstLists(t *testing.T) {
	t.Skip("the member joins never, also not after MaxLeaseDuration")
	p := newDriver(t)
	p.m, p.did = New(p.cfg), nil
	p.step(Tick{})
	p.step(Synced{})
	p.step(GetResult{Op: take[GetLease](p).Op, Outcome: NotFound})
	b := p.peerRecord("b", PhaseJoining)
	b.Newcomer = Cold
	p.put("lease-b", b)
	create := take[CreateLease](p)
	p.step(WriteResult{Op: create.Op, Outcome: OK, Lease: p.commit(create)})
	p.step(ListResult{Op: take[ListLeases](p).Op, Outcome: OK, Leases: p.list()})
	p.put("lease-b", edited("b_1"))
	p.step(LeaseObserved{Lease: p.lease(p.cfg.Lease), Listed: true})
	p.step(LeaseObserved{Lease: p.lease("lease-b"), Listed: true})
	p.step(WatchProgress{Version: p.server.Version(), Listed: true})
	p.run(3 * time.Hour)
	p.wantStates(p.all(), nil)
}

// R30, R43: the response to the read of a Lease of this member's name arrives after the watch has shown
// that its holder released it, and that it was deleted. The quorum list has a guard against that
// (listing.gone), the read has none: the Lease counts as held again, and as vanished when
// this member has created its own. It blocks everything for the lease duration, and newcomers adopt that.
func TestAttackR43_ALateReadBringsBackAReleasedLeaseOfThatName(t *testing.T) {
	t.Skip("blocks everything for the lease duration after a graceful stop")
	p := newDriver(t)
	held := p.other("a_0", 0, 1)
	p.step(LeaseObserved{Lease: held})
	p.step(Tick{})
	get := take[GetLease](p)
	void := p.release(held)
	p.step(LeaseObserved{Lease: void})
	p.remove(held.Name)
	p.gone(void)
	p.step(GetResult{Op: get.Op, Outcome: OK, Lease: held})
	p.create()
	p.show(p.cfg.Lease)
	p.run(5 * time.Second)
	p.wantStates(p.all(), nil)
}
