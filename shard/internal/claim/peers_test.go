// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"slices"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// until runs until the machine returns an action of the type. It returns the action and the
// time that this took, and fails after a minute.
func until[T Action](p *driver) (T, time.Duration) {
	p.t.Helper()
	start := p.now.Mono
	var none T
	for p.now.Mono-start < time.Minute {
		for i, a := range p.did {
			if found, ok := a.(T); ok {
				p.did = slices.Delete(p.did, i, i+1)
				return found, p.now.Mono - start
			}
		}
		p.serve()
		p.wait(10 * time.Millisecond)
	}
	p.t.Fatalf("no %T in a minute", none)
	return none, 0
}

func TestC4_ASilentPeerIsEvictedAtTheVersionThatWasSeen(t *testing.T) {
	p := newDriver(t).join()
	b := p.peer("b", PhaseActive)
	p.run(10 * time.Second)
	b.Record.Seq++
	b = p.put(b.Name, b.Record)
	p.show(b.Name) // a renewal
	p.run(10 * time.Second)
	p.show(b.Name) // the same version again is not a renewal
	evict, after := until[EvictLease](p)
	after += 10 * time.Second
	if after < p.cfg.LeaseDuration || after > p.cfg.LeaseDuration+time.Second {
		t.Errorf("the peer is evicted after %v", after)
	}
	if evict.Name != b.Name || evict.UID != b.UID || evict.Version != b.Version {
		t.Errorf("evicts %+v, want %s %s at %s", evict, b.Name, b.UID, b.Version)
	}
	if p.m.Stats().Evictions != 0 {
		t.Error("the eviction was counted before it was done")
	}
	b.Record.Holder = ""
	p.step(EvictResult{Op: evict.Op, Outcome: OK, Lease: p.put(b.Name, b.Record)})
	p.run(time.Second)
	p.wantStates(p.all(), nil)
	if p.m.Stats().Evictions != 1 {
		t.Error("the eviction was not counted")
	}
}

func TestC4_AConflictShowsThatThePeerIsAlive(t *testing.T) {
	p := newDriver(t).join()
	p.peer("b", PhaseActive)
	evict, _ := until[EvictLease](p)
	p.step(EvictResult{Op: evict.Op, Outcome: Conflict})
	if !slices.Contains(p.m.View().Members(), "b") {
		t.Fatal("b is no longer in the view")
	}
	// The watch has not shown the write that caused the conflict: it is restarted (R24).
	if _, after := until[Relist](p); after > 2*time.Second {
		t.Errorf("the relist follows after %v", after)
	}
	if _, after := until[EvictLease](p); after < p.cfg.LeaseDuration-2*time.Second {
		t.Errorf("the eviction is retried after %v", after)
	}
	if got := p.m.Stats().EvictionsRefused; got != 1 {
		t.Errorf("%d refused evictions are counted", got)
	}
}

func TestC4_NoPeerIsEvictedAfterAGapInTheMembersRenewals(t *testing.T) {
	p := newDriver(t).join()
	p.peer("b", PhaseActive)
	p.run(5 * time.Second)
	// For a minute no request succeeds.
	for range 600 {
		p.wait(100 * time.Millisecond)
		for _, a := range slices.Clone(p.did) {
			switch a := a.(type) {
			case WriteLease:
				p.step(WriteResult{Op: a.Op})
			case GetLease:
				p.step(GetResult{Op: a.Op})
			case EvictLease:
				t.Fatalf("evicts %v without a renewal of its own", a.Name)
			case Ended:
				t.Fatalf("ends: %v", a.Reason)
			}
		}
		p.did = p.did[:0]
	}
	_, after := until[EvictLease](p)
	if after < p.cfg.LeaseDuration {
		t.Errorf("evicts %v after the server is back", after)
	}
}

func TestC4_AMemberWithAStaleWatchGainsNothingAndEvictsNoPeer(t *testing.T) {
	p := newDriver(t).join()
	p.peer("b", PhaseActive)
	p.run(time.Second)
	kept := p.owned("a", "a", "b")
	p.wantStates(kept, nil)

	// From now on writes succeed, and the watch shows nothing.
	relists := 0
	start := p.now.Mono
	for {
		p.wait(50 * time.Millisecond)
		done := false
		for _, a := range slices.Clone(p.did) {
			switch a := a.(type) {
			case WriteLease:
				if got := a.Record.Claims.Set.Len(); got != len(kept) {
					t.Fatalf("claims %d partitions instead of %d", got, len(kept))
				}
				p.step(WriteResult{Op: a.Op, Outcome: OK, Lease: p.commit(a)})
			case EvictLease:
				t.Fatal("evicts")
			case Relist:
				relists++
			case Ended:
				if a.Reason != ErrStaleWatch {
					t.Fatalf("ends: %v", a.Reason)
				}
				done = true
			}
		}
		p.did = p.did[:0]
		if done {
			break
		}
		p.wantStates(kept, nil)
		if p.now.Mono-start > 8*time.Second && p.m.WatchFresh() {
			t.Fatal("the watch counts as fresh")
		}
		if p.now.Mono-start > time.Minute {
			t.Fatal("the machine does not give up")
		}
	}
	if relists < 2 {
		t.Errorf("the watch was restarted only %d times", relists)
	}
}

func TestTheWatchMayBeFasterThanTheResponse(t *testing.T) {
	p := newDriver(t)
	for range 200 {
		p.step(Tick{})
		p.step(Synced{})
		for i := 0; i < len(p.did); i++ {
			switch a := p.did[i].(type) {
			case GetLease:
				p.step(GetResult{Op: a.Op, Outcome: NotFound})
			case CreateLease:
				l := p.commit(a)
				p.step(LeaseObserved{Lease: l})
				p.step(WriteResult{Op: a.Op, Outcome: OK, Lease: l})
			case WriteLease:
				l := p.commit(a)
				p.step(LeaseObserved{Lease: l})
				p.step(WriteResult{Op: a.Op, Outcome: OK, Lease: l})
			case ListLeases:
				p.step(ListResult{Op: a.Op, Outcome: OK, Leases: p.list()})
			}
		}
		p.did = p.did[:0]
		p.now = p.now.Add(5 * time.Millisecond)
		if len(p.in(ring.Active)) == testPartitions {
			return
		}
	}
	t.Error("nothing is active after a second")
}

func TestAnOutageOfTheServerIsNotTreatedAsAStaleWatch(t *testing.T) {
	p := newDriver(t).join()
	u := p.due()
	p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)}) // its watch event is lost with the connection
	for range 1200 {
		p.wait(100 * time.Millisecond)
		for _, a := range slices.Clone(p.did) {
			switch a := a.(type) {
			case WriteLease:
				p.step(WriteResult{Op: a.Op})
			case GetLease:
				p.step(GetResult{Op: a.Op})
			case Ended:
				t.Fatalf("ends: %v", a.Reason)
			}
		}
		p.did = p.did[:0]
	}
	p.run(10 * time.Second)
	p.wantStates(p.all(), nil)
}

func TestAPeerThatOnlyAListHasShown(t *testing.T) {
	p := newDriver(t)
	p.lists = func(l ListLeases) {
		p.lists = nil
		p.put("lease-b", p.peerRecord("b", PhaseActive, 0))
		p.step(ListResult{Op: l.Op, Outcome: OK, Leases: p.list()})
	}
	p.step(Tick{})
	p.step(Synced{})
	p.run(100 * time.Millisecond)
	if p.m.peers["lease-b"] == nil {
		t.Fatal("b is no peer")
	}
	if got := p.m.Tombstones(); len(got) != 1 || !got[0].Claims.Everything { // the watch may never show its end
		t.Errorf("the next machine gets %v", got)
	}
	p.remove("lease-b") // the watch has a gap, and never shows it
	p.step(LeaseObserved{Lease: p.lease(p.cfg.Lease), Listed: true})
	p.step(WatchProgress{Version: p.server.Version(), Listed: true})
	if p.m.peers["lease-b"] != nil {
		t.Error("b stays a peer")
	}
	p.quiet(p.cfg.LeaseDuration-p.cfg.RenewPeriod, p.all()...)
	p.run(p.cfg.RenewPeriod + time.Second)
	p.wantStates(p.all(), nil)
}

// The watch has come beyond a Lease that the first list shows, and has not shown it: it started
// after the end of that Lease.
func TestAPeerThatEndedBeforeTheWatchStarted(t *testing.T) {
	p := newDriver(t)
	b := p.put("lease-b", p.peerRecord("b", PhaseActive, 0))
	var list []Lease
	p.lists = func(l ListLeases) {
		if list == nil {
			list = p.list()
			p.remove(b.Name)
		} else {
			list = p.list()
		}
		p.show(p.cfg.Lease)
		p.step(ListResult{Op: l.Op, Outcome: OK, Leases: list})
	}
	p.step(Tick{})
	p.step(Synced{})
	p.quiet(p.cfg.LeaseDuration-time.Second, p.all()...)
	p.run(2 * time.Second)
	p.wantStates(p.all(), nil)
}

func TestALateResponseToAnEvictionDoesNotHideNewerVersions(t *testing.T) {
	p := newDriver(t).join()
	b := p.peer("b", PhaseActive)
	evict, _ := until[EvictLease](p)
	void := b
	void.Record.Holder = ""
	void = p.put(b.Name, void.Record)
	p.show(b.Name)
	p.peer("b", PhaseActive, 0) // the peer is back
	p.step(EvictResult{Op: evict.Op, Outcome: OK, Lease: void})
	p.wait(minRebuild)
	if !slices.Contains(p.m.View().Members(), "b") {
		t.Error("b is not in the view")
	}
}

func TestADeletedLeaseBlocksForOneDuration(t *testing.T) {
	p := newDriver(t).join()
	b := p.peer("b", PhaseActive, 0, 1)
	start := p.now.Mono // the time counts from the last version, not from the deletion (R43)
	p.run(5 * time.Second)
	p.remove(b.Name)
	p.step(LeaseDeleted{Last: b, Final: true})
	u := take[WriteLease](p)
	if len(u.Record.Tombstones) != 1 || u.Record.Tombstones[0].Holder != "b_1" || !u.Record.Tombstones[0].Claims.equal(b.Record.Claims) {
		t.Errorf("the tombstones on the Lease are %+v", u.Record.Tombstones)
	}
	if got, want := u.Record.Tombstones[0].Remaining, 10*time.Second; got != want {
		t.Errorf("%v of the tombstone remain, want %v", got, want)
	}
	p.did = append(p.did, u)
	mine := without(p.all(), []int{0, 1})
	for {
		p.run(50 * time.Millisecond)
		active := p.in(ring.Active)
		if len(active) == testPartitions {
			break
		}
		for _, partition := range []int{0, 1} {
			if slices.Contains(active, partition) && !slices.Contains(p.owned("a", "a", "b"), partition) && p.now.Mono-start < p.cfg.LeaseDuration {
				t.Fatalf("partition %d is active %v after b's Lease was deleted", partition, p.now.Mono-start)
			}
		}
		if p.now.Mono-start > p.cfg.LeaseDuration+2*time.Second {
			t.Fatalf("active are %v, of %v", active, mine)
		}
	}
	if got := p.lease(p.cfg.Lease).Record.Tombstones; len(got) != 0 {
		p.run(p.cfg.RenewPeriod)
		if got := p.lease(p.cfg.Lease).Record.Tombstones; len(got) != 0 {
			t.Errorf("tombstones stay on the Lease: %v", got)
		}
	}
	// A peer that still publishes the tombstone does not revive it (R29).
	r := p.peerRecord("c", PhaseDraining)
	r.Tombstones = u.Record.Tombstones
	p.put("lease-c", r)
	p.show("lease-c")
	if len(p.m.Tombstones()) != 0 {
		t.Error("the tombstone was adopted again")
	}
}

func TestAVoidLeaseLeavesNoTombstone(t *testing.T) {
	p := newDriver(t).join()
	b := p.peer("b", PhaseActive, 0)
	b.Record.Holder = ""
	b = p.put(b.Name, b.Record)
	p.show(b.Name)
	p.step(LeaseDeleted{Last: b})
	if len(p.m.Tombstones()) != 0 {
		t.Error("there is a tombstone")
	}
}

func TestVoidLeasesAreDeletedByOneMember(t *testing.T) {
	for _, first := range []bool{true, false} {
		p := newDriver(t).join()
		if !first {
			p.cfg.LeaseDuration = 10 * time.Minute
			p.peer("A", PhaseActive) // sorts before a
			p.run(time.Second)
		}
		b := p.peer("b", PhaseActive)
		b.Record.Holder = ""
		p.put(b.Name, b.Record)
		p.show(b.Name)
		p.run(20 * time.Second)
		if exists := p.exists(b.Name); exists == first {
			t.Errorf("first in the view %v: the void Lease exists: %v", first, exists)
		}
	}
}

func TestAFailedDeletionOfAVoidLeaseIsRetried(t *testing.T) {
	p := newDriver(t).join()
	b := p.peer("b", PhaseActive)
	b.Record.Holder = ""
	p.put(b.Name, b.Record)
	p.show(b.Name)
	for range 3 {
		d, after := until[DeleteLease](p)
		if after < p.cfg.LeaseDuration*9/10 || after > p.cfg.LeaseDuration+time.Second {
			t.Errorf("deletes after %v", after)
		}
		p.step(DeleteResult{Op: d.Op})
	}
	d, _ := until[DeleteLease](p)
	p.step(DeleteResult{Op: d.Op, Outcome: NotFound})
	if len(p.m.Peers()) > 0 {
		t.Error("the deleted Lease is still known")
	}
}

// Nothing but a newer version with another holder or seq restarts a peer's timer, also when
// the watch recovers (R44): a watch that lags is relisted again and again.
func TestR44_AWatchThatRecoversRestartsNoTimer(t *testing.T) {
	p := newDriver(t).join()
	b := p.peer("b", PhaseActive)
	seen := p.now.Mono
	// Writes succeed, and the watch shows them 12 seconds late.
	for start := p.now.Mono; p.now.Mono-start < 12*time.Second; p.wait(50 * time.Millisecond) {
		for _, a := range slices.Clone(p.did) {
			if u, ok := a.(WriteLease); ok {
				p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
			}
		}
		p.did = p.did[:0]
	}
	if p.m.WatchFresh() {
		t.Fatal("the watch is fresh")
	}
	b.Version = "100" // a list from a server that is behind
	b.Record.Seq = 0
	p.step(LeaseObserved{Lease: b, Listed: true})
	p.show("lease-b") // a third party has written to it
	p.show(p.cfg.Lease)
	evict, _ := until[EvictLease](p)
	if after := p.now.Mono - seen; after < p.cfg.LeaseDuration || after > p.cfg.LeaseDuration+time.Second || evict.Version != p.lease("lease-b").Version {
		t.Errorf("evicts version %s after %v", evict.Version, after)
	}
}

func TestAMemberThatWasSeenToEndNeedsNoTombstone(t *testing.T) {
	p := newDriver(t).join()
	b := p.peer("b", PhaseActive, 0, 1)
	tomb := []Tombstone{{UID: b.UID, Holder: "b_1", Claims: b.Record.Claims}}
	b.Record.Holder = ""
	p.put(b.Name, b.Record)
	p.show(b.Name)
	// c has missed that, and publishes a tombstone for the Lease.
	r := p.peerRecord("c", PhaseDraining)
	r.Tombstones = tomb
	p.put("lease-c", r)
	p.show("lease-c")
	p.run(time.Second)
	p.wantStates(p.all(), nil)

	// A holder that is shown again after its tombstone has expired can get another tombstone.
	d := p.peer("d", PhaseDraining, 2)
	p.remove(d.Name)
	p.step(LeaseDeleted{Last: d})
	p.run(p.cfg.LeaseDuration + time.Second)
	if len(p.m.Tombstones()) != 0 {
		t.Fatal("the tombstone is still there")
	}
	p.step(LeaseObserved{Lease: d})
	p.step(LeaseDeleted{Last: d})
	if len(p.m.Tombstones()) != 1 {
		t.Error("there is no tombstone")
	}
}

// A list shows a later version than the watch has come to. What was on its way is no edit.
func TestR32_AnOlderVersionThatWasOnItsWayIsNoEdit(t *testing.T) {
	p := newDriver(t).join()
	r := p.peerRecord("b", PhaseActive, 0)
	r.Seq = 4
	older := p.put("lease-b", r)
	r.Seq = 5
	newer := p.put("lease-b", r)
	p.step(LeaseObserved{Lease: newer, Listed: true, Ahead: true})
	p.step(LeaseObserved{Lease: older})
	if b := p.m.peers["lease-b"].lease; b.Record.Edited || b.Record.Seq != 5 {
		t.Errorf("b is %+v", b.Record)
	}
	p.step(LeaseObserved{Lease: newer})
	r.Seq = 4
	p.step(LeaseObserved{Lease: p.put("lease-b", r)}) // someone applies the old record again
	if !p.m.peers["lease-b"].lease.Record.Edited {
		t.Error("an old record counts")
	}
}

// A list, or the machine before, has shown a later version than a list of the watch that was sent
// before. A later list may be that of a restored database.
func TestR32_AnOlderVersionInAListThatWasOnItsWayIsNoEdit(t *testing.T) {
	for name, inherited := range map[string]bool{"after a list": false, "after the machine before": true} {
		t.Run(name, func(t *testing.T) {
			p, list := askFirstList(t)
			r := p.peerRecord("b", PhaseActive, 0)
			r.Seq = 4
			older := p.put("lease-b", r)
			r.Seq = 5
			newer := p.put("lease-b", r)
			if inherited {
				p.step(LeaseObserved{Lease: newer, Listed: true, Ahead: true})
			} else {
				p.step(ListResult{Op: list.Op, Outcome: OK, Leases: p.list()})
			}
			edited := func() bool {
				p.step(LeaseObserved{Lease: older, Listed: true})
				defer p.step(WatchProgress{Version: older.Version, Listed: true})
				return p.m.peers["lease-b"].lease.Record.Edited
			}
			if edited() {
				t.Error("what was on its way counts as an edit")
			}
			if !edited() {
				t.Error("an old record in a later list counts")
			}
		})
	}
}

// A quorum list shows a later version of a new Lease than the watch has shown. This member's own
// Lease is lost, and the next machine of the process starts: it inherits the later record, and is
// shown the Lease as the watch shows it. That is no edit (R32).
func TestR32_TheNextMachineTakesNoVersionThatIsOnItsWayForAnEdit(t *testing.T) {
	p, list := askFirstList(t)
	r := p.peerRecord("b", PhaseActive, 0)
	r.Seq = 4
	older := p.put("lease-b", r)
	r.Seq = 5
	p.put("lease-b", r)
	p.step(ListResult{Op: list.Op, Outcome: OK, Leases: p.list()})
	p.step(LeaseObserved{Lease: older}) // the watch has come this far
	if p.m.peers["lease-b"].lease.Record.Edited {
		t.Fatal("the machine before takes it for an edit")
	}
	before := p.m
	p.cfg.Predecessor, p.cfg.Holder = p.cfg.Holder, "a_2"
	p.cfg.Tombstones, p.cfg.Knowledge = before.Tombstones(), before.Knowledge()
	p.m, p.did = New(p.cfg), nil
	p.step(Tick{})
	p.step(LeaseObserved{Lease: older, Listed: true, Ahead: true})
	if p.m.peers["lease-b"].lease.Record.Edited {
		t.Error("what was on its way counts as an edit: the peer claims everything")
	}
}

// R32, R64, L1: the database is restored to a state in which b, which has stopped since, holds its
// Lease. A member reads its own Lease before its watch has listed again: the next machine begins with
// what the watch had shown before, a void Lease of a higher version. The next list of the watch shows the
// restored Lease, as a list that was on its way would. It never changes again, so the watch does not
// show it again. The quorum list tells the two apart.
func TestR64_ALeaseOfARestoredDatabaseIsNotIgnored(t *testing.T) {
	for name, c := range map[string]struct {
		reason      error
		watchFirst  bool
		another     bool // the Lease of that name was deleted and created after the backup
		stillActive bool // the database was restored to a state of another write of b
	}{
		"its Lease went back":                   {reason: ErrWentBack, watchFirst: true},
		"its Lease was not there":               {reason: ErrVanished, watchFirst: true},
		"the quorum list is first":              {reason: ErrWentBack},
		"b was active":                          {reason: ErrWentBack, watchFirst: true, stillActive: true},
		"another Lease":                         {reason: ErrVanished, watchFirst: true, another: true},
		"another Lease, quorum list is first":   {reason: ErrVanished, another: true},
		"another Lease, of b at work, is first": {reason: ErrVanished, watchFirst: true, another: true, stillActive: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newDriver(t)
			p.server.Revision = 1000
			r := p.peerRecord("b", PhaseActive, p.all()...)
			r.Seq = 5
			p.put("lease-b", r)
			p.show("lease-b")
			p.join()
			backup, mine := p.lease("lease-b").Record, p.lease(p.cfg.Lease).Record
			if c.another {
				last := p.lease("lease-b")
				p.remove("lease-b")
				p.step(LeaseDeleted{Last: last, Final: true})
			}
			if r.Seq = 6; !c.stillActive {
				r = Record{Member: "b", Phase: PhaseDraining, Seq: 6}
			}
			p.put("lease-b", r)
			p.show("lease-b")
			p.m.wentBack = c.reason == ErrWentBack
			p.m.end(c.reason)
			p.restart("a_2", p.cfg.Lease, "lease-b")

			p.server.Revision = 500
			if c.another {
				p.remove("lease-b")
			}
			p.put("lease-b", backup)
			if c.reason == ErrWentBack {
				p.put(p.cfg.Lease, mine)
			} else {
				p.remove(p.cfg.Lease)
			}
			listed := func() {
				if c.reason == ErrWentBack {
					p.step(LeaseObserved{Lease: p.lease(p.cfg.Lease), Listed: true})
				}
				p.step(LeaseObserved{Lease: p.lease("lease-b"), Listed: true})
				p.step(WatchProgress{Version: p.server.Version(), Listed: true})
			}
			if !c.watchFirst {
				p.lists = func(a ListLeases) {
					p.lists = nil
					p.step(ListResult{Op: a.Op, Outcome: OK, Leases: p.list()})
					listed()
				}
				p.run(time.Second)
			} else {
				listed()
			}
			p.run(time.Minute)
			p.wantStates(p.all(), nil)
		})
	}
}

// This member evicts b, which died before the machine started, while the response to a quorum list is on
// its way. The list is older than the void Lease, and not that of a restored database.
func TestR32_AListThatWasSentBeforeAnEvictionIsNoEdit(t *testing.T) {
	p := newDriver(t)
	b := p.put("lease-b", p.peerRecord("b", PhaseActive, 0))
	p.step(LeaseObserved{Lease: b, Listed: true, Ahead: true})
	var list ListResult
	p.lists = func(a ListLeases) {
		if list = (ListResult{Op: a.Op, Outcome: OK, Leases: p.list()}); !p.m.known {
			p.step(list)
		}
	}
	p.join()
	p.hang = true
	p.run(p.cfg.LeaseDuration)
	evict := p.hung[0].(EvictLease)
	void := p.put(b.Name, Record{Member: "b", Phase: PhaseDraining, EvictedBy: p.cfg.Holder})
	p.step(EvictResult{Op: evict.Op, Outcome: OK, Lease: void})
	p.step(list)
	if r := p.m.peers["lease-b"].lease.Record; !r.Void() {
		t.Errorf("the Lease that was evicted is %+v", r)
	}
}
