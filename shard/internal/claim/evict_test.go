// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// silentPeers returns the driver of a serving machine with n peers that it has just seen.
func silentPeers(t *testing.T, n int, change ...func(*Config)) *driver {
	t.Helper()
	p := newDriver(t, change...).join()
	for i := range n {
		p.peer(fmt.Sprintf("b-%02d", i), PhaseActive)
	}
	p.run(time.Second)
	return p
}

func TestC9_FewEvictionsAreInFlightAtOnce(t *testing.T) {
	p := silentPeers(t, 20)
	p.hang = true
	p.run(p.cfg.LeaseDuration + 2*time.Second)
	if len(p.hung) != 4 {
		t.Fatalf("%d evictions are in flight, want 4", len(p.hung))
	}
	// The evictions hang, but renewals do not wait for them.
	renewed := p.m.Stats().Heartbeats
	p.run(2 * p.cfg.RenewPeriod)
	if p.m.Stats().Heartbeats == renewed || p.m.own.fenced {
		t.Error("the member does not renew its Lease while evictions hang")
	}
	if len(p.hung) != 4 {
		t.Fatalf("%d evictions are in flight, want 4", len(p.hung))
	}
	// The end of a Lease does not make room for another request: its eviction is still in flight.
	first := p.hung[0].(EvictLease)
	p.step(LeaseDeleted{Last: p.lease(first.Name)})
	p.serve()
	if len(p.hung) != 4 {
		t.Fatalf("%d evictions are in flight, want 4", len(p.hung))
	}
	p.step(EvictResult{Op: first.Op, Outcome: NotFound})
	p.step(EvictResult{Op: first.Op, Outcome: NotFound}) // a duplicate response makes room for one request only
	p.serve()
	if len(p.hung) != 5 {
		t.Fatalf("%d evictions were sent, want 5", len(p.hung))
	}
	// All others are evicted as soon as there is room for them.
	p.hang = false
	p.did = append(p.did, p.hung[1:]...)
	p.serve()
	for _, l := range p.list() {
		if l.Name != p.cfg.Lease && l.Name != first.Name && !l.Record.Void() {
			t.Errorf("%s is not evicted", l.Name)
		}
	}
}

func TestC9_FewVoidLeasesAreDeletedAtOnce(t *testing.T) {
	p := silentPeers(t, 20)
	for _, l := range p.list() {
		if l.Name != p.cfg.Lease {
			p.put(l.Name, Record{Member: l.Record.Member, Phase: PhaseDraining, EvictedBy: "x"})
			p.show(l.Name)
		}
	}
	p.hang = true
	p.run(p.cfg.LeaseDuration + time.Second)
	if len(p.hung) != 4 {
		t.Fatalf("%d deletions are in flight, want 4", len(p.hung))
	}
	p.hang = false
	p.did = append(p.did, p.hung...)
	p.serve()
	if p.server.Len() != 1 {
		t.Errorf("%d Leases are left", p.server.Len())
	}
}

func TestEvictionsThatFailAreRetriedWithABackoff(t *testing.T) {
	p := silentPeers(t, 6)
	p.hang = true
	tries := map[string][]time.Duration{}
	for start := p.now.Mono; p.now.Mono-start < 2*time.Minute; p.run(10 * time.Millisecond) {
		for _, a := range p.hung {
			e := a.(EvictLease)
			tries[e.Name] = append(tries[e.Name], p.now.Mono)
			p.step(EvictResult{Op: e.Op})
		}
		p.hung = nil
	}
	if len(tries) != 6 {
		t.Errorf("evictions of %d of 6 peers were sent: the first ones delay the others", len(tries))
	}
	gaps := map[time.Duration]bool{}
	for name, at := range tries {
		for i := 1; i < len(at); i++ {
			gap := at[i] - at[i-1]
			gaps[gap.Truncate(20*time.Millisecond)] = true
			if i > 6 && (gap < p.cfg.RenewPeriod || gap > 2*p.cfg.RenewPeriod+time.Second) {
				t.Errorf("%s: attempt %d follows %v after the one before", name, i, gap)
			}
		}
		if at[1]-at[0] > p.cfg.RenewPeriod/2 {
			t.Errorf("%s: the second attempt follows after %v", name, at[1]-at[0])
		}
	}
	if len(gaps) < 20 {
		t.Errorf("the attempts have %d different delays: no jitter", len(gaps))
	}
}

func TestC4_WritesOfOtherClientsDoNotDelayAnEviction(t *testing.T) {
	p := newDriver(t).join()
	b := p.peer("b", PhaseActive)
	start := p.now.Mono
	for p.now.Mono-start < p.cfg.LeaseDuration-time.Second {
		p.run(time.Second)
		b = p.put(b.Name, b.Record) // a label
		p.show(b.Name)
	}
	evict, _ := until[EvictLease](p)
	if after := p.now.Mono - start; after > p.cfg.LeaseDuration+time.Second || evict.Version != b.Version {
		t.Fatalf("evicts after %v at %s, want after %v at %s", after, evict.Version, p.cfg.LeaseDuration, b.Version)
	}
	// A conflict because of another such write: the eviction is repeated at the next version, at once.
	b = p.put(b.Name, b.Record)
	p.step(EvictResult{Op: evict.Op, Outcome: Conflict})
	p.serve()
	p.show(b.Name)
	evict = take[EvictLease](p)
	if evict.Version != b.Version {
		t.Fatalf("evicts at %s, want at %s", evict.Version, b.Version)
	}
	// A conflict because the peer is alive after all.
	b.Record.Seq++
	b = p.put(b.Name, b.Record)
	p.step(EvictResult{Op: evict.Op, Outcome: Conflict})
	p.show(b.Name)
	p.did = nil
	if _, after := until[EvictLease](p); after < p.cfg.LeaseDuration {
		t.Errorf("evicts %v after a renewal", after)
	}
	if n := p.m.Stats().Relists; n > 0 {
		t.Errorf("%d relists, although the watch showed each version at once", n)
	}
}

func TestAConflictWithAVersionThatTheWatchHasPassedCausesNoRelist(t *testing.T) {
	p := newDriver(t).join()
	b := p.peer("b", PhaseActive)
	evict, _ := until[EvictLease](p)
	p.put(b.Name, Record{Member: "b", Phase: PhaseDraining, EvictedBy: "c_1"}) // another member was faster
	p.show(b.Name)
	p.step(EvictResult{Op: evict.Op, Outcome: Conflict})
	p.run(5 * time.Second)
	if n := p.m.Stats().Relists; n > 0 {
		t.Errorf("%d relists", n)
	}
}

// When many members have died, their evictions are spread over the live members, and for
// each of them one member goes first.
func TestMembersTakeTurnsToEvict(t *testing.T) {
	const living, dead = 40, 60
	first, turns := map[string]int{}, 0
	for me := range living {
		name := fmt.Sprintf("a-%02d", me)
		p := newDriver(t, func(c *Config) { c.Member, c.Lease, c.Holder = name, "lease-"+name, name+"_1" }).join()
		for i := range dead {
			p.peer(fmt.Sprintf("dead-%02d", i), PhaseActive)
		}
		for i := range living {
			if i != me {
				p.peer(fmt.Sprintf("a-%02d", i), PhaseActive)
			}
		}
		p.now = p.now.Add(p.cfg.LeaseDuration - time.Second)
		for i := range living {
			if l := p.lease(fmt.Sprintf("lease-a-%02d", i)); i != me {
				l.Record.Seq++
				p.put(l.Name, l.Record)
				p.show(l.Name)
			}
		}
		for i := range dead {
			turn := turn(p.m.cfg.Lease, p.m.peers[fmt.Sprintf("lease-dead-%02d", i)].lease.Name, p.m.alive()())
			if turn > time.Second {
				t.Fatalf("%s waits %v", name, turn)
			}
			if turn == 0 {
				first[name]++
				turns++
			}
		}
	}
	if turns != dead {
		t.Errorf("%d members go first for %d dead ones", turns, dead)
	}
	for name, n := range first {
		if n > 6 {
			t.Errorf("%s goes first for %d of %d", name, n, dead)
		}
	}
}

func TestTheRingIsRebuiltAtOnceAndThenAtIntervals(t *testing.T) {
	p := newDriver(t).join()
	p.run(time.Second)
	before := p.m.View()
	p.peer("b-first", PhaseActive)
	if p.m.View() == before {
		t.Fatal("the first change is not seen at once")
	}
	// Many members join within a tenth of a second.
	rings := map[*ring.Ring]bool{p.m.View(): true}
	for i := range 50 {
		p.peer(fmt.Sprintf("b-%02d", i), PhaseActive)
		p.wait(2 * time.Millisecond)
		rings[p.m.View()] = true
	}
	p.wait(minRebuild)
	rings[p.m.View()] = true
	if n := len(p.m.View().Members()); n != 52 {
		t.Errorf("%d members are in the view", n)
	}
	if len(rings) > 3 {
		t.Errorf("%d rings were computed in a fifth of a second", len(rings))
	}
	// A change that does not affect the ring causes no rebuild: here a member that has left
	// the ring becomes void.
	p.wait(time.Second)
	p.peer("b-00", PhaseDraining)
	left := p.m.View()
	if slices.Contains(left.Members(), "b-00") {
		t.Error("a member that drains is on the ring")
	}
	p.wait(time.Second)
	p.put("lease-b-00", Record{Member: "b-00", Phase: PhaseDraining})
	p.show("lease-b-00")
	p.wait(time.Second)
	if p.m.View() != left {
		t.Error("the same ring was computed again")
	}
}

// A claim of another member counts from the moment at which it is seen, even if the ring is
// yet to be computed.
func TestClaimsOfOthersAreCurrentWhileTheRingIsNot(t *testing.T) {
	p := newDriver(t).join()
	b := p.peer("b", PhaseActive, 0, 1)
	p.run(time.Second)
	b.Record.Phase, b.Record.Claims = PhaseDraining, p.peerRecord("b", PhaseActive, 0).Claims
	p.put(b.Name, b.Record)
	p.show(b.Name) // a rebuild
	c := p.peer("c", PhaseActive, 1)
	if slices.Contains(p.m.View().Members(), "c") {
		t.Fatal("c is already in the view: this test proves nothing")
	}
	if !p.m.parts.want.Has(1) || !p.m.parts.blocked.Has(1) || p.m.parts.claimable.Has(1) {
		t.Errorf("wanted %v, blocked %v, claimable %v", p.m.parts.want.Has(1), p.m.parts.blocked.Has(1), p.m.parts.claimable.Has(1))
	}
	p.put(c.Name, Record{Member: "c", Phase: PhaseDraining})
	p.show(c.Name)
	p.run(time.Second)
	if want := without(p.all(), []int{0}); !slices.Equal(p.in(ring.Active), want) {
		t.Errorf("active: %v, want %v", p.in(ring.Active), want)
	}
}

// Lists that fail, or that a write has overtaken, are retried with a backoff, too.
func TestListsThatDecideNothingAreRetriedWithABackoff(t *testing.T) {
	for what, outcome := range map[string]Outcome{"no response": Unknown, "without this member's Lease": OK} {
		p := newDriver(t)
		lists := 0
		p.lists = func(l ListLeases) {
			lists++
			p.step(ListResult{Op: l.Op, Outcome: outcome})
		}
		p.step(Tick{})
		p.step(Synced{})
		p.run(time.Minute)
		if lists < 10 || lists > 90 {
			t.Errorf("%s: %d lists in a minute", what, lists)
		}
	}
}

// A claim that is written while a list is in flight makes the list useless: if other members
// release one partition after the other, nothing would become active.
func TestAClaimWaitsForAListThatIsInFlight(t *testing.T) {
	p := newDriver(t).join()
	b := p.peer("b", PhaseActive)
	p.run(time.Second)
	share := p.owned("b", "a", "b")
	b.Record = p.peerRecord("b", PhaseDraining, share[1:]...) // it has released one, and will release the others
	p.put(b.Name, b.Record)
	p.show(b.Name)
	u, _ := until[WriteLease](p)
	if !u.Record.Claims.Set.Has(share[0]) || u.Record.Claims.Set.Has(share[1]) {
		t.Fatalf("the machine claims %v of %v: this test proves nothing", u.Record.Claims.Set, share)
	}
	p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
	p.show(p.cfg.Lease)
	list := take[ListLeases](p)
	answer := p.list()
	p.put(b.Name, Record{Member: "b", Phase: PhaseDraining})
	p.show(b.Name)
	p.wait(3 * p.cfg.Coalesce)
	none[WriteLease](p)
	p.step(ListResult{Op: list.Op, Outcome: OK, Leases: answer})
	if got := take[Activated](p).Partitions; !got.Has(share[0]) {
		t.Errorf("activated %v", got)
	}
	p.run(time.Second)
	p.wantStates(p.all(), nil)
}

// Few members survive, and the server is slow: each has to evict many peers, a few at a
// time. They must not all do so in the same order, because then all requests but one would
// end in a conflict.
func TestC9_SurvivorsShareTheEvictions(t *testing.T) {
	p := silentPeers(t, 40)
	alive := p.peer("c", PhaseActive)
	p.hang = true
	first := func(e EvictLease) bool { return turn(p.m.cfg.Lease, p.m.peers[e.Name].lease.Name, p.m.alive()()) == 0 }
	total, sent := 0, 0
	for start := p.now.Mono; (total == 0 || sent < total) && p.now.Mono-start < time.Minute; p.run(500 * time.Millisecond) {
		if len(p.hung) > 0 && total == 0 {
			for _, q := range p.m.peers {
				if q.lease.Name != alive.Name && turn(p.m.cfg.Lease, q.lease.Name, p.m.alive()()) == 0 {
					total++
				}
			}
			if total < 10 || total > 30 {
				t.Fatalf("this member is the first for %d of 40", total)
			}
		}
		alive.Record.Seq++
		alive = p.put(alive.Name, alive.Record)
		p.show(alive.Name)
		for _, a := range p.hung {
			e := a.(EvictLease)
			if sent++; sent <= total && !first(e) {
				t.Errorf("eviction %d is one that another member sends first", sent)
			}
			l := p.lease(e.Name)
			l.Record.Holder, l.Record.EvictedBy = "", p.cfg.Holder
			l = p.put(e.Name, l.Record)
			p.step(EvictResult{Op: e.Op, Outcome: OK, Lease: l})
		}
		p.hung = nil
	}
	if sent < total {
		t.Errorf("%d evictions, want at least %d", sent, total)
	}
}

// A list that finds out whether a Lease still exists (R24) is sent for no partition, so no claim of
// another member was found. It must not count for the backoff of contested claims: the next
// handover takes message delays, and not a second (L1).
func TestL1_AListForARefusedEvictionDelaysNoHandover(t *testing.T) {
	p := newDriver(t)
	mine := p.owned("a", "a", "b")
	r := p.peerRecord("b", PhaseActive, p.all()...)
	c := p.peerRecord("c", PhaseJoining)
	p.put("lease-b", r)
	p.show("lease-b")
	p.put("lease-c", c)
	p.show("lease-c")
	p.put("lease-c", c) // its stream shows this version never: an eviction is refused
	p.join()
	lists := p.m.Stats().Lists
	for p.m.Stats().Lists < lists+6 {
		if p.now.Mono > 2*time.Hour {
			t.Fatal("no lists")
		}
		if r.Seq++; r.Seq%40 == 0 {
			p.put("lease-b", r)
			p.show("lease-b")
		}
		p.run(50 * time.Millisecond)
	}
	// A moment after the last of them, b releases this member's partitions.
	r.Seq++
	r.Claims.Set = setOf(testPartitions, without(p.all(), mine)...)
	p.put("lease-b", r)
	p.show("lease-b")
	p.run(p.cfg.Coalesce + 100*time.Millisecond)
	p.wantStates(mine, nil)
}

// Nor must it hold up a claim until the watch has come to the newest version in that list: with a
// watch that lags, each such list would cost another restart of the watch (L1).
func TestL1_AListForARefusedEvictionDoesNotWaitForTheWatch(t *testing.T) {
	p := newDriver(t)
	mine := p.owned("a", "a", "b")
	r, c := p.peerRecord("b", PhaseActive, p.all()...), p.peerRecord("c", PhaseJoining)
	p.put("lease-b", r)
	p.show("lease-b")
	p.put("lease-c", c)
	p.show("lease-c")
	p.put("lease-c", c) // the watch does not show this version: an eviction is refused
	p.join()
	listed := false
	p.lists = func(l ListLeases) {
		listed = true
		r.Seq++
		r.Claims.Set = setOf(testPartitions, without(p.all(), mine)...) // b releases this member's partitions
		p.put("lease-b", r)
		p.put("lease-c", c)
		p.step(ListResult{Op: l.Op, Outcome: OK, Leases: p.list()})
	}
	for n := 0; !listed; n++ {
		if p.now.Mono > 2*time.Hour {
			t.Fatal("no lists")
		}
		if r.Seq++; n%40 == 0 {
			p.put("lease-b", r)
			p.show("lease-b")
		}
		p.run(50 * time.Millisecond)
	}
	p.lists = nil
	p.show("lease-b")
	p.wait(3 * p.cfg.Coalesce)
	if u := take[WriteLease](p); !u.Record.Claims.Set.Has(mine[0]) {
		t.Errorf("the member does not claim partition %d: it claims %v", mine[0], u.Record.Claims.Set)
	}
}
