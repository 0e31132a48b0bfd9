// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"slices"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// claiming returns a machine whose first claims are confirmed and which has requested the
// list that it needs before it works.
func claiming(t *testing.T, change ...func(*Config)) (*driver, ListLeases) {
	t.Helper()
	p := newDriver(t, change...)
	p.step(Tick{})
	p.step(Synced{})
	p.serve()
	p.wait(p.cfg.Coalesce)
	u := take[WriteLease](p)
	p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
	p.show(p.cfg.Lease)
	if got := take[Claimed](p).Partitions.Len(); got != testPartitions {
		t.Fatalf("claimed %d partitions instead of all", got)
	}
	return p, take[ListLeases](p)
}

func TestC1_ActiveOnlyAfterAListThatShowsNoOtherClaim(t *testing.T) {
	p, l := claiming(t)
	p.wantStates(nil, p.all())
	b := p.put("lease-b", p.peerRecord("b", PhaseDraining, 2, 3)) // not on the ring
	p.step(ListResult{Op: l.Op, Outcome: OK, Leases: p.list()})
	p.wantStates(nil, p.all()) // not before the watch has come to the list
	p.catchUp()
	p.wantStates(without(p.all(), []int{2, 3}), []int{2, 3})

	// However often it lists, this does not change until the other member has withdrawn its claim.
	p.run(time.Second)
	p.wantStates(without(p.all(), []int{2, 3}), []int{2, 3})
	b.Record.Holder = ""
	p.put("lease-b", b.Record)
	p.show("lease-b")
	p.run(time.Second)
	p.wantStates(p.all(), nil)
	if got := p.m.Stats().Contested; got < 2 {
		t.Errorf("%d contested claims were counted, want at least 2", got)
	}
}

func TestC1_AListWithoutTheMembersClaimDoesNotCount(t *testing.T) {
	p, l := claiming(t)
	p.step(ListResult{Op: l.Op + 1, Outcome: OK, Leases: p.list()}) // the machine did not request it
	p.wantStates(nil, p.all())
	stale := p.lease(p.cfg.Lease)
	stale.Record.Seq--
	p.step(ListResult{Op: l.Op, Outcome: OK, Leases: []Lease{stale}})
	p.wantStates(nil, p.all())
	p.wait(20 * time.Millisecond)
	l = take[ListLeases](p) // it lists again
	p.step(ListResult{Op: l.Op, Outcome: OK})
	p.wantStates(nil, p.all())
	p.wait(20 * time.Millisecond)
	l = take[ListLeases](p)
	p.step(ListResult{Op: l.Op}) // no response
	p.wantStates(nil, p.all())
	p.run(time.Second)
	p.wantStates(p.all(), nil)
}

// A watch that does not come to what a list has shown is restarted a renew period later, and
// then the same list counts. Otherwise a member whose watch lags would wait until its own
// heartbeat has not come back for WatchLagLimit.
func TestL1_AListThatTheWatchDoesNotReachRestartsTheWatch(t *testing.T) {
	p, l := claiming(t)
	p.put("lease-b", p.peerRecord("b", PhaseJoining))
	p.step(ListResult{Op: l.Op, Outcome: OK, Leases: p.list()})
	p.wait(p.cfg.RenewPeriod - time.Millisecond)
	none[Relist](p)
	p.wait(time.Millisecond)
	take[Relist](p)
	p.wantStates(nil, p.all())
	p.show("lease-b")
	p.wantStates(p.all(), nil)
}

func TestC1_AListFromBeforeAFenceDoesNotCount(t *testing.T) {
	p, l := claiming(t)
	leases := p.list()
	p.wait(p.cfg.RenewDeadline)
	take[Fenced](p)
	p.step(ListResult{Op: l.Op, Outcome: OK, Leases: leases})
	p.wantStates(nil, p.all())
}

// What blocks an activation although the list does not show it.
func TestC1_WhatTheListDoesNotShow(t *testing.T) {
	for _, c := range []struct {
		name    string
		happens func(*driver) // between the claim and the response to the list
		blocked []int
	}{
		{"a Lease that the watch shows and the list does not", func(p *driver) {
			p.peer("b", PhaseActive, 1)
			p.remove("lease-b")
		}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"one that was created again under its name", func(p *driver) {
			p.peer("b", PhaseActive, 1)
			p.remove("lease-b")
			p.put("lease-b", p.peerRecord("b", PhaseJoining))
		}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"one that was created again in a gap of the watch", func(p *driver) {
			p.peer("b", PhaseActive, 1)
			p.remove("lease-b")
			p.peer("b", PhaseJoining)
		}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"one that was deleted", func(p *driver) {
			last := p.peer("b", PhaseActive, 1)
			p.remove("lease-b")
			p.step(LeaseDeleted{Last: last, Final: true})
		}, []int{1}},
		{"one that a list of the watch lacks", func(p *driver) {
			last := p.peer("b", PhaseActive, 1)
			p.remove("lease-b")
			p.step(LeaseDeleted{Last: last})
		}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"one that has claimed more before its end", func(p *driver) {
			last := p.peer("b", PhaseActive, 1)
			last.Record.Seq, last.Record.Claims.Set = 1, setOf(testPartitions, 1, 2)
			p.remove("lease-b")
			p.step(LeaseDeleted{Last: last, Final: true})
		}, []int{1, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, l := claiming(t)
			c.happens(p)
			p.step(ListResult{Op: l.Op, Outcome: OK, Leases: p.list()})
			p.catchUp()
			for _, partition := range c.blocked {
				if p.m.States()[partition] == ring.Active {
					t.Errorf("partition %d is active", partition)
				}
			}
			if len(p.in(ring.Active)) != testPartitions-len(c.blocked) {
				t.Errorf("%v are active: all but %v should be", p.in(ring.Active), c.blocked)
			}
		})
	}
}

func TestC1_ClaimsWithOtherParametersAreCompared(t *testing.T) {
	parameters := func(key string, partitions int) ring.Parameters {
		return ring.Parameters{Key: key, Partitions: partitions, VirtualNodes: 20, Load: 1.25}
	}
	claims := func(p ring.Parameters, partitions ...int) Claims {
		return Claims{Parameters: p, Set: setOf(p.Partitions, partitions...)}
	}
	all := []int{0, 1, 2, 3, 4, 5, 6, 7}
	for _, c := range []struct {
		name    string
		claims  Claims
		blocked []int
	}{
		{"none", claims(parameters("name", 8)), nil},
		{"the same partitions", claims(parameters("name", 8), 0, 5), []int{0, 5}},
		{"twice as many", claims(parameters("name", 16), 4, 5, 7), []int{2, 3}},
		{"three, which divide other partitions in two", claims(parameters("name", 3), 1), []int{2, 3, 4, 5}},
		{"one", claims(parameters("name", 1), 0), all},
		{"another key", claims(parameters("namespace", 8), 3), all},
		{"another key, but no claim", claims(parameters("namespace", 8)), nil},
		{"unreadable claims", Claims{Everything: true}, all},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, l := claiming(t)
			r := p.peerRecord("b", PhaseJoining)
			r.Claims = c.claims
			p.put("lease-b", r)
			p.step(ListResult{Op: l.Op, Outcome: OK, Leases: p.list()})
			p.catchUp()
			p.wantStates(without(p.all(), c.blocked), c.blocked)
		})
	}
}

func TestC2_NothingIsReleasedWhileWorkIsInFlight(t *testing.T) {
	p := newDriver(t).join()
	p.peer("b", PhaseActive)
	lost := p.owned("b", "a", "b")
	if got := slices.Collect(take[Drain](p).Partitions.All()); !slices.Equal(got, lost) {
		t.Fatalf("drains %v instead of %v", got, lost)
	}
	p.wantStates(p.owned("a", "a", "b"), lost)

	// However long it takes, no claim is withdrawn, and the Lease is renewed.
	for range 5 {
		p.wait(2 * time.Second)
		for _, a := range p.did {
			if u, ok := a.(WriteLease); ok {
				if u.Record.Claims.Set.Len() != testPartitions {
					t.Fatalf("claims were withdrawn before the work has ended: %v", u.Record.Claims)
				}
			}
		}
		p.serveWithoutDrain()
	}
	// One piece of work ends: only its partition is given up.
	p.step(Idle{Partitions: setOf(testPartitions, lost[0])})
	p.wait(p.cfg.Coalesce)
	released := take[Released](p).Partitions
	u := take[WriteLease](p)
	if got := slices.Collect(released.All()); !slices.Equal(got, lost[:1]) {
		t.Errorf("released %v instead of %v", got, lost[:1])
	}
	if u.Record.Claims.Set.Has(lost[0]) || u.Record.Claims.Set.Len() != testPartitions-1 {
		t.Errorf("the Lease claims %v", u.Record.Claims)
	}
}

// serveWithoutDrain answers requests, but no work ends.
func (p *driver) serveWithoutDrain() {
	p.t.Helper()
	p.did = slices.DeleteFunc(p.did, func(a Action) bool { _, ok := a.(Drain); return ok })
	p.serve()
}

// A release whose response is lost may be committed at any later time. The member must not
// activate the partition again on the claim that it has withdrawn (R20): in models that did
// so, the shortest traces to two workers are of this kind.
func TestC2_APartitionIsGivenUpBeforeTheReleaseIsSent(t *testing.T) {
	p := newDriver(t).join()
	b := p.peer("b", PhaseActive)
	lost := p.owned("b", "a", "b")
	p.step(Idle{Partitions: take[Drain](p).Partitions})
	p.wait(p.cfg.Coalesce)
	take[Released](p)
	u := take[WriteLease](p)
	p.wantStates(p.owned("a", "a", "b"), nil)
	p.step(WriteResult{Op: u.Op}) // no response

	// b has left, so the partitions are wanted again, and the Lease still claims them.
	b.Record.Holder = ""
	p.put("lease-b", b.Record)
	p.show("lease-b")
	p.wantStates(p.owned("a", "a", "b"), nil)
	p.wait(200 * time.Millisecond)
	get := take[GetLease](p)
	p.step(GetResult{Op: get.Op, Outcome: OK, Lease: p.lease(p.cfg.Lease)})
	none[Activated](p)
	p.wantStates(p.owned("a", "a", "b"), nil)

	// The next write is conditional on the version that was read: either it or the lost write is
	// committed, never both.
	again := take[WriteLease](p)
	if again.Version != u.Version {
		t.Errorf("writes at %s, want %s", again.Version, u.Version)
	}
	p.step(WriteResult{Op: again.Op, Outcome: OK, Lease: p.commit(again)})
	p.show(p.cfg.Lease)
	none[Activated](p)
	p.run(time.Second)
	p.wantStates(p.all(), nil)
	for _, partition := range lost {
		if CompareVersions(p.m.Token(partition), u.Version) <= 0 {
			t.Errorf("partition %d has token %s, not above %s", partition, p.m.Token(partition), u.Version)
		}
	}
}

func TestC2_APartitionIsWantedAgainBeforeTheReleaseIsSent(t *testing.T) {
	p := newDriver(t).join()
	token := p.m.Token(0)
	b := p.peer("b", PhaseActive)
	lost := slices.Collect(take[Drain](p).Partitions.All())
	last := setOf(testPartitions, lost[0])
	rest := setOf(testPartitions, lost[1:]...)
	p.wait(minRebuild)
	p.step(Idle{Partitions: rest}) // their release waits for the last partition
	none[WriteLease](p)
	b.Record.Holder = ""
	p.put("lease-b", b.Record)
	p.show("lease-b")
	if got := take[Activated](p).Partitions; !got.Equal(rest) {
		t.Errorf("activated %v instead of %v", got, rest)
	}
	p.step(Idle{Partitions: last})
	if got := take[Activated](p).Partitions; !got.Equal(last) {
		t.Errorf("activated %v instead of %v", got, last)
	}
	none[WriteLease](p)
	if p.m.Token(0) != token {
		t.Errorf("the token has changed")
	}
}

func TestC2_ADrainedPartitionIsNotActivatedWhileFenced(t *testing.T) {
	p := newDriver(t).join()
	b := p.peer("b", PhaseActive)
	drain := take[Drain](p)
	p.wait(p.cfg.RenewDeadline)
	take[Fenced](p)
	p.step(Idle(drain))
	b.Record.Holder = ""
	p.put("lease-b", b.Record)
	p.show("lease-b") // this member may have been evicted meanwhile, and another may have worked
	none[Activated](p)
}

func TestC5_AnUnknownOutcomeNeverCountsAsAClaim(t *testing.T) {
	for _, outcome := range []Outcome{Unknown, Conflict, NotFound} {
		for _, committed := range []bool{false, true} {
			p := newDriver(t)
			p.step(Tick{})
			p.step(Synced{})
			p.serve()
			p.wait(p.cfg.Coalesce)
			u := take[WriteLease](p)
			if committed {
				p.commit(u)
			}
			p.step(WriteResult{Op: u.Op, Outcome: outcome})
			p.wantStates(nil, nil)
			p.wait(200 * time.Millisecond)
			p.step(GetResult{Op: take[GetLease](p).Op, Outcome: OK, Lease: p.lease(p.cfg.Lease)})
			if committed { // R40
				take[Claimed](p)
				p.wantStates(nil, p.all())
				continue
			}
			none[Claimed](p)
			p.wantStates(nil, nil)
			again := take[WriteLease](p)
			if again.Record.Seq <= u.Record.Seq {
				t.Errorf("seq %d follows %d", again.Record.Seq, u.Record.Seq)
			}
			p.step(WriteResult{Op: again.Op, Outcome: OK, Lease: p.commit(again)})
			p.wantStates(nil, p.all())
		}
	}
}

func TestC6_OnlyPartitionsThatMoveAreAffected(t *testing.T) {
	p := newDriver(t, func(c *Config) { c.Parameters.Partitions = 64 }).join()
	members := []string{"a"}
	for _, name := range []string{"b", "c", "d"} {
		before := p.owned("a", members...)
		members = append(members, name)
		after := p.owned("a", members...)
		p.peer(name, PhaseActive)
		drained := slices.Collect(take[Drain](p).Partitions.All())
		if want := without(before, after); !slices.Equal(drained, want) {
			t.Errorf("when %s joins, %v are drained instead of %v", name, drained, want)
		}
		stay := without(before, drained)
		p.wantStates(stay, drained)
		p.step(Idle{Partitions: setOf(64, drained...)})
		p.serve()
		for range 40 {
			p.wait(50 * time.Millisecond)
			for _, partition := range stay {
				if p.m.States()[partition] != ring.Active {
					t.Fatalf("partition %d, which stays, is %v", partition, p.m.States()[partition])
				}
			}
			p.serve()
		}
	}
}

func TestWithdrawalIsMandatory(t *testing.T) {
	p, l := claiming(t)
	// Another member has claimed the same partitions, and owns some of them on the ring (R19).
	p.put("lease-b", p.peerRecord("b", PhaseActive, p.all()...))
	p.step(ListResult{Op: l.Op, Outcome: OK, Leases: p.list()})
	p.show("lease-b")
	p.wait(p.cfg.Coalesce)
	got := slices.Collect(take[Released](p).Partitions.All())
	if want := p.owned("b", "a", "b"); !slices.Equal(got, want) {
		t.Errorf("withdraws %v instead of %v", got, want)
	}
	p.wantStates(nil, p.owned("a", "a", "b"))
}

func TestTokensIncrease(t *testing.T) {
	p := newDriver(t).join()
	first := p.m.Token(0)
	if first == "" || p.m.Token(-1) != "" || p.m.Token(testPartitions) != "" {
		t.Fatalf("tokens %q, %q, %q", first, p.m.Token(-1), p.m.Token(testPartitions))
	}
	p.run(10 * time.Second)
	if p.m.Token(0) != first {
		t.Error("a renewal has changed the token")
	}
	b := p.peer("b", PhaseActive)
	p.run(time.Second)
	lost := p.owned("b", "a", "b")[0]
	if got := p.m.Token(lost); got != "" {
		t.Errorf("the token of a lost partition is %q", got)
	}
	b.Record.Holder = ""
	p.put("lease-b", b.Record)
	p.show("lease-b")
	p.run(time.Second)
	if got := p.m.Token(lost); CompareVersions(got, first) <= 0 {
		t.Errorf("the token %q is not above %q", got, first)
	}
}
