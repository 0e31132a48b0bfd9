// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"slices"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

func TestAMemberIsOnTheRingOnlyWhenItsInformersHaveSynced(t *testing.T) {
	p := newDriver(t)
	p.step(Tick{})
	create := take[CreateLease](p.answerGet())
	if create.Record.Phase != PhaseJoining || !create.Record.Claims.Empty() {
		t.Errorf("the machine creates %+v", create.Record)
	}
	p.step(WriteResult{Op: create.Op, Outcome: OK, Lease: p.commit(create)})
	p.show(p.cfg.Lease)
	p.run(5 * time.Second)
	if l := p.lease(p.cfg.Lease); l.Record.Phase != PhaseJoining || p.m.Serving() || len(p.in(ring.Active)) > 0 {
		t.Errorf("before the informers have synced, the record is %+v", l.Record)
	}
	p.step(Synced{})
	if u, ok := p.did[0].(WriteLease); !ok || u.Record.Phase != PhaseActive { // at once
		t.Errorf("does %#v", p.did)
	}
	p.run(time.Second)
	if l := p.lease(p.cfg.Lease); l.Record.Phase != PhaseActive || !p.m.Serving() {
		t.Errorf("after the informers have synced, the record is %+v", l.Record)
	}
}

// answerGet answers the Get that every machine begins with.
func (p *driver) answerGet() *driver {
	p.t.Helper()
	get := take[GetLease](p)
	if l := p.lease(p.cfg.Lease); l.Name != "" {
		p.step(GetResult{Op: get.Op, Outcome: OK, Lease: l})
	} else {
		p.step(GetResult{Op: get.Op, Outcome: NotFound})
	}
	return p
}

// What a new machine does with an existing Lease of its name.
func TestALeaseOfTheNameExists(t *testing.T) {
	other := func(p *driver) Record {
		r := p.peerRecord("a", PhaseActive, 0)
		r.Holder, r.PodUID = "a_0", "uid-before"
		return r
	}
	for _, c := range []struct {
		name   string
		config func(*Config)
		record func(*driver) Record
		at     time.Duration // the earliest time at which it serves
	}{
		{"void", nil, func(p *driver) Record { r := other(p); r.Holder = ""; return r }, 0},
		{"its own, from a create whose response was lost", nil, func(p *driver) Record {
			r := other(p)
			r.Holder, r.Claims = "a_1", Claims{}
			return r
		}, 0},
		{"this process's earlier one", func(c *Config) { c.Predecessor = "a_0" }, other, 0},
		{"the same Pod's, whose process is dead", func(c *Config) { c.TakeOver = true }, func(p *driver) Record {
			r := other(p)
			r.PodUID = "uid-a"
			return r
		}, 0},
		{"the same Pod's, whose process may be alive", nil, func(p *driver) Record { r := other(p); r.PodUID = "uid-a"; return r }, 15 * time.Second},
		{"another Pod's", func(c *Config) { c.TakeOver = true }, other, 15 * time.Second},
		{"an unknown Pod's", func(c *Config) { c.TakeOver, c.PodUID = true, "" }, func(p *driver) Record { r := other(p); r.PodUID = ""; return r }, 15 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			change := c.config
			if change == nil {
				change = func(*Config) {}
			}
			p := newDriver(t, change)
			p.put(p.cfg.Lease, c.record(p))
			start := p.now.Mono
			p.step(Tick{})
			p.step(Synced{})
			for !p.m.Serving() && p.now.Mono-start < time.Minute {
				p.run(20 * time.Millisecond)
			}
			if got := p.now.Mono - start; got < c.at || got > c.at+4*time.Second {
				t.Errorf("serves after %v, want %v", got, c.at)
			}
			if l := p.lease(p.cfg.Lease); l.Record.Holder != "a_1" {
				t.Errorf("the holder is %s", l.Record.Holder)
			}
			p.run(time.Second)
			p.wantStates(p.all(), nil)
		})
	}
}

func TestASecondLiveProcessOfTheNameNeverJoins(t *testing.T) {
	p := newDriver(t, func(c *Config) { c.TakeOver = true })
	r := p.peerRecord("a", PhaseActive, 0)
	r.Holder, r.PodUID = "a_0", "uid-other"
	p.put(p.cfg.Lease, r)
	p.step(Tick{})
	p.step(Synced{})
	for range 60 {
		r.Seq++
		p.put(p.cfg.Lease, r) // the other process renews
		p.run(time.Second)
		if p.lease(p.cfg.Lease).Record.Holder != "a_0" {
			t.Fatal("the Lease was taken from a live member")
		}
	}
	if got := p.m.Duplicate(); got != "a_0" {
		t.Errorf("Duplicate returns %q", got)
	}
	// When the first process has left, the second takes its place as soon as the watch shows it.
	r.Holder = ""
	void := p.put(p.cfg.Lease, r)
	p.show(p.cfg.Lease)
	get := take[GetLease](p)
	p.remove(p.cfg.Lease)
	p.step(GetResult{Op: get.Op, Outcome: OK, Lease: void})
	p.step(DeleteResult{Op: take[DeleteLease](p).Op, Outcome: NotFound})
	p.step(LeaseDeleted{Last: void})
	p.run(200 * time.Millisecond)
	p.wantStates(p.all(), nil)
	if got := p.m.Duplicate(); got != "" {
		t.Errorf("Duplicate returns %q", got)
	}
}

func TestTheDeletionOfAVoidLeaseIsRetriedWithABackoff(t *testing.T) {
	p := newDriver(t)
	r := p.peerRecord("a", PhaseActive)
	r.Holder = ""
	void := p.put(p.cfg.Lease, r)
	p.step(Tick{})
	deletes := 0
	for start := p.now.Mono; p.now.Mono-start < 30*time.Second; p.wait(10 * time.Millisecond) {
		for i := 0; i < len(p.did); i++ {
			switch a := p.did[i].(type) {
			case GetLease:
				p.step(GetResult{Op: a.Op, Outcome: OK, Lease: void})
			case DeleteLease: // another client has added a finalizer
				deletes++
				p.step(DeleteResult{Op: a.Op, Outcome: OK})
			}
		}
		p.did = p.did[:0]
	}
	if deletes < 2 || deletes > 12 {
		t.Errorf("%d deletions in 30 s", deletes)
	}
}

func TestStopCostsTwoWrites(t *testing.T) {
	for _, inFlight := range []bool{false, true} {
		p := newDriver(t).join()
		p.peer("b", PhaseActive, p.owned("b", "a", "b")...)
		p.run(time.Second)
		mine := p.owned("a", "a", "b")
		p.did = p.did[:0]
		p.step(Stop{})
		drain := take[Drain](p)
		if got := slices.Collect(drain.Partitions.All()); !slices.Equal(got, mine) {
			t.Fatalf("the machine drains %v instead of %v", got, mine)
		}
		if inFlight {
			// The other work has ended; its partitions are released at once, while one piece
			// of work continues.
			rest := drain.Partitions.Clone()
			rest.Remove(mine[0])
			p.step(Idle{Partitions: rest})
			p.wait(p.cfg.Coalesce)
			u := take[WriteLease](p)
			if u.Record.Phase != PhaseDraining || u.Record.Claims.Set.Len() != 1 {
				t.Errorf("writes %+v", u.Record)
			}
			p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
			p.step(Idle{Partitions: setOf(testPartitions, mine[0])})
		} else {
			p.step(Idle(drain))
		}
		u := take[WriteLease](p) // the first write since then
		if !u.Record.Void() || !u.Record.Claims.Empty() {
			t.Errorf("writes %+v", u.Record)
		}
		p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
		none[Ended](p) // another member may be about to leave too (R39)
		p.show(p.cfg.Lease)
		none[DeleteLease](p) // others delete it
		if got := take[Ended](p).Reason; got != ErrStopped {
			t.Errorf("ends: %v", got)
		}
	}
}

func TestStopAtAnyTimeEnds(t *testing.T) {
	for at := time.Duration(0); at < 2*time.Second; at += 7 * time.Millisecond {
		for _, reachable := range []bool{true, false} {
			p := newDriver(t, func(c *Config) { c.StartupSettle = 300 * time.Millisecond })
			p.step(Tick{})
			p.step(Synced{})
			p.run(at)
			p.step(Stop{})
			start := p.now.Mono
			for p.m.stage != ended && p.now.Mono-start < time.Minute {
				if reachable {
					p.run(100 * time.Millisecond)
					continue
				}
				for i := 0; i < len(p.did); i++ {
					switch a := p.did[i].(type) {
					case GetLease:
						p.step(GetResult{Op: a.Op})
					case CreateLease:
						p.step(WriteResult{Op: a.Op})
					case WriteLease:
						p.step(WriteResult{Op: a.Op})
					case DeleteLease:
						p.step(DeleteResult{Op: a.Op})
					case Drain:
						p.step(Idle(a))
					}
				}
				p.did = p.did[:0]
				if p.m.stage != ended {
					p.wait(100 * time.Millisecond)
				}
			}
			took := p.now.Mono - start
			if limit := p.cfg.RenewDeadline + 3*time.Second; p.m.stage != ended || took > limit {
				t.Fatalf("stop after %v (server reachable: %v): ended %v, after %v", at, reachable, p.m.stage == ended, took)
			}
			if exists := p.exists(p.cfg.Lease); exists && reachable {
				t.Fatalf("stop after %v: the Lease is still there", at)
			}
		}
	}
}

func TestAPartitionThatDoesNotDrainIsNotReleased(t *testing.T) {
	p := newDriver(t).join()
	p.peer("b", PhaseActive)
	start := p.now.Mono
	for p.m.stage != ended {
		p.serveWithoutDrain()
		p.wait(100 * time.Millisecond)
		if l := p.lease(p.cfg.Lease); l.Record.Claims.Set.Len() != testPartitions {
			t.Fatal("released")
		}
	}
	if got := take[Ended](p).Reason; got != ErrDrainTimeout {
		t.Errorf("ends: %v", got)
	}
	if got := p.now.Mono - start; got < p.cfg.DrainTimeout || got > p.cfg.DrainTimeout+200*time.Millisecond {
		t.Errorf("ends after %v", got)
	}
	if p.lease(p.cfg.Lease).Record.Void() {
		t.Error("the Lease was given up: its next holder would work at the same time as the stuck work")
	}
}

func TestTheParametersInForceAreThoseOfTheOldestLease(t *testing.T) {
	p := newDriver(t)
	old := p.peerRecord("old", PhaseActive, 0)
	old.Parameters.Partitions = 5
	old.Fingerprint = old.Parameters.Fingerprint()
	old.Claims = Claims{Parameters: old.Parameters, Set: setOf(5)}
	o := p.put("lease-old", old)
	p.step(Tick{})
	p.show(o.Name)
	p.step(Synced{})
	p.run(time.Second)
	if got := len(p.m.States()); got != 5 {
		t.Fatalf("%d partitions instead of the 5 of the oldest", got)
	}
	r, _ := ring.New(old.Parameters, []string{"a", "old"})
	if got, want := p.in(ring.Active), slices.Collect(r.Owned("a").All()); !slices.Equal(got, want) {
		t.Errorf("active are %v instead of %v", got, want)
	}

	// Another client removes them: an incarnation does not change its parameters.
	edited := Record{Edited: true, Holder: old.Holder, Member: old.Member, Phase: PhaseDraining, Claims: Claims{Everything: true}}
	p.put(o.Name, edited)
	p.show(o.Name)
	none[Drain](p)
	if p.m.Incompatible() {
		t.Error("incompatible")
	}

	// The oldest member leaves: the fleet switches.
	old.Holder = ""
	p.put(o.Name, old)
	p.show(o.Name)
	p.run(time.Second)
	p.wantStates(p.all(), nil)
	if got := p.lease(p.cfg.Lease).Record.Claims; got.Set.Partitions() != testPartitions {
		t.Errorf("claims %+v", got)
	}
}

func TestAMemberWithAnotherKeyWaitsUntilTheOldMembersHaveLeft(t *testing.T) {
	p := newDriver(t)
	old := p.peerRecord("old", PhaseActive, 0)
	old.Parameters.Key = "namespace"
	old.Fingerprint = old.Parameters.Fingerprint()
	old.Claims.Parameters = old.Parameters
	o := p.put("lease-old", old)
	p.step(Tick{})
	p.show(o.Name)
	p.step(Synced{})
	for range 10 {
		old.Seq++
		p.put(o.Name, old)
		p.show(o.Name)
		p.run(3 * time.Second)
	}
	if !p.m.Incompatible() || len(p.in(ring.Active)) > 0 || p.lease(p.cfg.Lease).Record.Claims.Set.Len() > 0 {
		t.Errorf("incompatible %v, states %v", p.m.Incompatible(), p.m.States())
	}
	old.Holder = ""
	p.put(o.Name, old)
	p.show(o.Name)
	p.run(time.Second)
	p.wantStates(p.all(), nil)
}

func TestQuarantineCountsFromTheFirstList(t *testing.T) {
	p := newDriver(t, func(c *Config) { c.Quarantine = true })
	p.step(Tick{})
	p.step(Synced{})
	p.run(14 * time.Second)
	p.wantStates(nil, nil)
	p.run(2 * time.Second)
	p.wantStates(p.all(), nil)
}

func TestMembersThatStartTogetherWaitForEachOther(t *testing.T) {
	p := newDriver(t, func(c *Config) { c.StartupSettle = 400 * time.Millisecond })
	p.step(Tick{})
	p.step(Synced{})
	p.run(300 * time.Millisecond)
	p.wantStates(nil, nil)
	p.peer("b", PhaseJoining)
	p.run(time.Second)
	p.wantStates(nil, nil)
	p.peer("b", PhaseActive)
	p.run(150 * time.Millisecond) // others may still compute the ring
	p.wantStates(nil, nil)
	p.run(150 * time.Millisecond)
	p.wantStates(p.owned("a", "a", "b"), nil)
	none[Drain](p)
}

// The time in which others may start passes while the informers sync.
func TestTheWaitForOthersThatStartBeginsWithTheirLeases(t *testing.T) {
	p := newDriver(t, func(c *Config) { c.StartupSettle = time.Second })
	p.step(Tick{})
	p.run(500 * time.Millisecond)
	p.peer("b", PhaseJoining)
	p.run(2 * time.Second)
	p.peer("b", PhaseActive)
	p.step(Synced{})
	p.run(300 * time.Millisecond)
	p.wantStates(p.owned("a", "a", "b"), nil)

	p = newDriver(t, func(c *Config) { c.StartupSettle = time.Second })
	p.step(Tick{})
	p.step(Synced{})
	p.run(500 * time.Millisecond)
	p.peer("b", PhaseActive) // others may follow it
	p.run(900 * time.Millisecond)
	p.wantStates(nil, nil)
	p.run(200 * time.Millisecond)
	p.wantStates(p.owned("a", "a", "b"), nil)
}

// A member that claimed by a ring without those that became active last would hand most of it
// over at once.
func TestTheFirstClaimWaitsForTheRingOfAllActiveMembers(t *testing.T) {
	p := newDriver(t, func(c *Config) { c.StartupSettle = time.Second })
	p.step(Tick{})
	p.step(Synced{})
	p.run(500 * time.Millisecond)
	p.peer("b", PhaseJoining)
	p.run(1500 * time.Millisecond)
	rings := p.holdRings()
	p.peer("b", PhaseActive)
	p.run(2 * time.Second)
	p.wantStates(nil, nil)
	p.step((*rings)[0].Build())
	p.run(300 * time.Millisecond)
	p.wantStates(p.owned("a", "a", "b"), nil)
	none[Drain](p)
}

func TestTheNextMachineInheritsTombstones(t *testing.T) {
	p := newDriver(t).join()
	b := p.peer("b", PhaseActive, 0, 1)
	p.step(LeaseDeleted{Last: b, Final: true})
	p.now = p.now.Add(10 * time.Second)
	tombstones := p.m.Tombstones()
	if len(tombstones) != 1 {
		t.Fatalf("%d tombstones", len(tombstones))
	}
	next := newDriver(t, func(c *Config) { c.Holder, c.Predecessor, c.Tombstones = "a_2", "a_1", tombstones })
	next.step(Tick{})
	next.step(Synced{})
	next.run(time.Second)
	next.wantStates(without(next.all(), []int{0, 1}), nil)
	if got := next.lease(next.cfg.Lease).Record.Tombstones; len(got) != 1 {
		t.Errorf("the Lease has %d tombstones", len(got))
	}
	// A tombstone of its own predecessor does not count: the predecessor's work has ended.
	own := Tombstone{UID: "lease-uid-a", Holder: "a_1", Claims: tombstones[0].Claims, Remaining: time.Hour}
	last := newDriver(t, func(c *Config) { c.Holder, c.Predecessor, c.Tombstones = "a_2", "a_1", []Tombstone{own} }).join()
	last.wantStates(last.all(), nil)
}

func TestBlockersReturnsTheHoldersOfBlockingClaims(t *testing.T) {
	p, l := claiming(t)
	p.peer("b", PhaseJoining, 2, 3)
	p.step(LeaseDeleted{Last: Lease{Name: "lease-c", Record: p.peerRecord("c", PhaseActive, 4)}, Final: true})
	p.step(ListResult{Op: l.Op, Outcome: OK, Leases: p.list()})
	got := p.m.Blockers()
	if len(got) != 2 || got["b_1"] != 2 || got["c_1"] != 1 {
		t.Errorf("blockers %v", got)
	}
	if peers := p.m.Peers(); len(peers) != 1 || peers[0].Lease.Record.Holder != "b_1" {
		t.Errorf("peers %v", peers)
	}
}
