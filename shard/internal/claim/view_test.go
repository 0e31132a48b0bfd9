// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// holdRings makes the machine wait for its rings from now on. The test answers the requests.
func (p *driver) holdRings() *[]BuildRing {
	p.rings = new([]BuildRing)
	return p.rings
}

// To compute a large ring may take long. A renewal that is due does not wait for it (R28).
// Until the ring is there, the member keeps what it has, and gains nothing.
func TestR28_ARenewalDoesNotWaitForTheRing(t *testing.T) {
	p := newDriver(t).join()
	p.run(time.Second)
	requests := p.holdRings()
	before := p.m.Stats().Heartbeats
	p.peer("b", PhaseActive)
	p.run(20 * time.Second)
	if len(*requests) != 1 {
		t.Fatalf("%d rings were requested for one change", len(*requests))
	}
	if n := p.m.Stats().Heartbeats - before; n < 5 {
		t.Errorf("%d renewals in 20 s", n)
	}
	p.wantStates(p.all(), nil)
	b := p.lease("lease-b")
	b.Record.Seq++
	p.put(b.Name, b.Record) // b is alive
	p.show(b.Name)
	p.step((*requests)[0].Build())
	p.run(time.Second)
	p.wantStates(p.owned("a", "a", "b"), nil)
}

// However many Leases change, one ring is requested at a time, and the next one waits at least
// as long as that one took (R73). Only the answer to the request counts, and only once.
func TestR73_RingsAreRequestedOneAfterTheOther(t *testing.T) {
	p := newDriver(t).join()
	p.run(time.Second)
	requests := p.holdRings()
	for i := range 300 {
		p.peer(fmt.Sprintf("b-%03d", i), PhaseActive)
		p.now = p.now.Add(time.Millisecond)
	}
	if len(*requests) != 1 {
		t.Fatalf("%d rings were requested for 300 changes", len(*requests))
	}
	first := (*requests)[0]
	none := first.Build()
	none.Op += 1000
	p.step(none)
	p.step(RingBuilt{Op: first.Op})
	if n := len(p.m.View().Members()); n != 1 {
		t.Fatalf("the view has %d members before the ring is there", n)
	}
	p.now = p.now.Add(time.Second)
	p.step(first.Build())
	took := 1300 * time.Millisecond // since the request
	if n := len(p.m.View().Members()); n != 2 {
		t.Fatalf("the view has %d members, want those of the first change", n)
	}
	p.wait(took - time.Millisecond)
	if len(*requests) != 1 {
		t.Fatal("the next ring was requested sooner than the last one took")
	}
	p.wait(time.Millisecond)
	if len(*requests) != 2 {
		t.Fatal("no ring was requested for the changes since the first one")
	}
	second := (*requests)[1]
	p.step(second.Build())
	p.step(first.Build()) // late
	if n := len(p.m.View().Members()); n != ring.MaxMembers {
		t.Fatalf("the view has %d members", n)
	}
}

// Changes that do not affect the ring request none.
func TestR73_NoRingWithoutAChange(t *testing.T) {
	p := newDriver(t).join()
	p.run(time.Second)
	requests := p.holdRings()
	p.peer("b", PhaseJoining)
	p.remove("lease-b")
	p.step(LeaseDeleted{Last: p.lease("lease-b"), Final: true})
	p.run(10 * time.Second)
	if len(*requests) > 0 {
		t.Fatalf("%d rings were requested", len(*requests))
	}
}

// crowded returns a serving machine that has seen n older members, in random order. They are
// created in the order of their names, which is not that of their Leases' names.
func crowded(t *testing.T, n int, seed uint64) (p *driver, names []string) {
	p = newDriver(t)
	for i := range n {
		names = append(names, fmt.Sprintf("m-%03d", i))
		r := p.peerRecord(names[i], PhaseActive)
		r.Duration = time.Hour // they stay
		p.put("lease-"+names[i], r)
	}
	p.step(Tick{})
	for _, i := range rand.New(rand.NewPCG(seed, 0)).Perm(n) {
		p.show("lease-" + names[i])
	}
	return p.join(), names
}

// With more active members than the ring has room for, the youngest are not on it: the same
// ones for all members, in whatever order they have learned of them (R90).
func TestR90_TheYoungestAreNotOnTheRing(t *testing.T) {
	var before []string
	for seed := range uint64(3) {
		p, names := crowded(t, ring.MaxMembers+10, seed)
		p.wait(time.Second)
		on := p.m.View().Members()
		if !slices.Equal(on, names[:ring.MaxMembers]) {
			t.Fatalf("seed %d: %d members are on the ring, from %s to %s", seed, len(on), on[0], on[len(on)-1])
		}
		if before != nil && !slices.Equal(on, before) {
			t.Fatal("the order of the events decides")
		}
		before = on
		if left, self := p.m.Crowd(); left != 11 || !self {
			t.Errorf("%d members are left out, this one is one of them: %v", left, self)
		}
		p.wantStates(nil, nil)
	}
}

// Members whose Leases have the same creation time are in the order of the Leases' names.
func TestR90_MembersOfTheSameAge(t *testing.T) {
	p := newDriver(t)
	p.step(Tick{})
	for i := range ring.MaxMembers + 1 {
		name := fmt.Sprintf("m-%03d", ring.MaxMembers-i)
		l := p.put("lease-"+name, p.peerRecord(name, PhaseActive))
		l.Created = time.Unix(1, 0)
		p.step(LeaseObserved{Lease: l})
	}
	placed := p.m.placement()
	if last := fmt.Sprintf("m-%03d", ring.MaxMembers); placed.offRing != 1 || slices.Contains(placed.members, last) {
		t.Errorf("%d left out; %s is on the ring: %v", placed.offRing, last, slices.Contains(placed.members, last))
	}
}

// A member that is left out comes onto the ring when an older one has left.
func TestR90_AMemberThatIsLeftOutFollows(t *testing.T) {
	p, names := crowded(t, ring.MaxMembers, 1)
	p.wait(time.Second)
	if left, self := p.m.Crowd(); left != 1 || !self {
		t.Fatalf("%d members are left out, this one is one of them: %v", left, self)
	}
	if p.m.rank == 0 {
		t.Error("it is the first of a ring that it is not on")
	}
	r := p.lease("lease-" + names[0]).Record
	r.Holder, r.Phase = "", PhaseDraining
	p.put("lease-"+names[0], r)
	p.show("lease-" + names[0])
	p.run(time.Second)
	if left, self := p.m.Crowd(); left != 0 || self {
		t.Errorf("%d members are left out, this one is one of them: %v", left, self)
	}
	p.wantStates(p.owned("a", p.m.View().Members()...), nil)
}

// The claims of members that are left out count like those of all others.
func TestR90_ClaimsOfMembersThatAreLeftOutBlock(t *testing.T) {
	p, names := crowded(t, ring.MaxMembers+20, 1)
	last := names[len(names)-1]
	p.peer(last, PhaseActive, 1, 3)
	if slices.Contains(p.m.View().Members(), last) {
		t.Fatal("it is on the ring")
	}
	if !p.m.parts.blocked.Equal(setOf(testPartitions, 1, 3)) {
		t.Errorf("blocked: %v", p.m.parts.blocked)
	}
}

// Older members that are silent are evicted also by members that they have crowded out.
func TestR90_ACrowdOfSilentMembersIsEvicted(t *testing.T) {
	p := newDriver(t)
	const n = ring.MaxMembers + 50
	for i := range n {
		name := fmt.Sprintf("m-%03d", i)
		p.put("lease-"+name, p.peerRecord(name, PhaseActive, p.all()...))
	}
	p.step(Tick{})
	for i := range n {
		p.show(fmt.Sprintf("lease-m-%03d", i))
	}
	p.join()
	p.wantStates(nil, nil)
	p.run(p.cfg.LeaseDuration + 2*time.Second)
	if got := p.m.Stats().Evictions; got != n {
		t.Errorf("%d of %d were evicted", got, n)
	}
	p.wantStates(p.all(), nil)
}

// Claims under another partition count block the partitions that they overlap, whenever the
// claims or this member's own partitions change (R22).
func TestR22_BlockedFollowsEachChangeOfClaims(t *testing.T) {
	p := newDriver(t).join()
	other := p.cfg.Parameters
	other.Partitions = 2 * testPartitions
	random := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		r := p.peerRecord("b", PhaseJoining)
		if random.IntN(2) == 0 {
			r.Claims.Parameters, r.Claims.Set = other, ring.NewSet(other.Partitions)
		}
		for range random.IntN(3) {
			r.Claims.Set.Add(random.IntN(r.Claims.Set.Partitions()))
		}
		switch random.IntN(6) {
		case 0:
			r.Claims = Claims{Everything: true}
		case 1:
			r.Claims.Parameters.Key = "uid"
		}
		r.Seq = p.lease("lease-b").Record.Seq + 1
		p.put("lease-b", r)
		p.show("lease-b")
		for partition := range testPartitions {
			if got, want := p.m.parts.blocked.Has(partition), r.Claims.overlaps(partition, p.m.parts.parameters); got != want {
				t.Fatalf("claims %+v: partition %d blocked: %v, want %v", r.Claims, partition, got, want)
			}
		}
	}
}
