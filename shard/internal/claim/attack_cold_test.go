// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// R49: "its own dead predecessor, if that claimed everything". To claim is not to work. a evicts m
// and claims everything; before that write, m's process, which inherits that it is settled (R64),
// has joined again, has claimed 0 and 1, has read no other claim of them, and works. a crashes
// before its watch shows that; m's new Lease is deleted while m is cut off; a starts again in the
// same Pod.
func TestAttackR49_APredecessorThatClaimedEverythingDidNotWorkOnEverything(t *testing.T) {
	p := newDriver(t, func(c *Config) { c.TakeOver, c.PodUID = true, "pod-uid" })
	theirs := p.owned("m", "a", "m")
	m := p.peer("m", PhaseActive, theirs...)
	p.join()
	void := p.put(m.Name, Record{Member: "m", Phase: PhaseDraining, EvictedBy: p.cfg.Holder})
	p.step(LeaseObserved{Lease: void})
	p.remove(m.Name)
	again := p.peerRecord("m", PhaseActive, theirs...)
	again.Holder = "m_2"
	p.put(m.Name, again)
	p.did = nil
	p.wait(minRebuild + p.cfg.Coalesce)
	if r := p.commit(take[WriteLease](p)).Record; r.Claims.Set.Len() != testPartitions {
		t.Fatalf("a claims %d partitions", r.Claims.Set.Len())
	}
	p.remove(m.Name)

	p.cfg.Holder = "a_2"
	p.m, p.did = New(p.cfg), nil
	p.step(LeaseObserved{Lease: p.lease(p.cfg.Lease), Listed: true})
	p.step(WatchProgress{Version: p.server.Version(), Listed: true})
	p.step(Synced{})
	p.quiet(8*time.Second, theirs...)
}

// R49: the first list shows a void Lease that another member evicted. That member was at work,
// and nothing shows that it has ended: its Pod was force-deleted on a partitioned node, and its
// Lease was collected. This is as strong a sign as a predecessor that claimed a part.
func TestAttackR49_AnEvictedLeaseShowsThatAnotherMemberWasAtWork(t *testing.T) {
	for name, own := range map[string]bool{"of the member's own name": true, "of another name": false} {
		t.Run(name, func(t *testing.T) {
			p := newDriver(t)
			p.m, p.did = New(p.cfg), nil
			lease, member := "lease-c", "c"
			if own {
				lease, member = p.cfg.Lease, p.cfg.Member
			}
			l := p.put(lease, Record{Member: member, Phase: PhaseDraining, EvictedBy: "m_1"})
			p.step(LeaseObserved{Lease: l, Listed: true})
			p.step(WatchProgress{Version: p.server.Version(), Listed: true})
			p.step(Synced{})
			p.quiet(8*time.Second, p.all()...)
		})
	}
}

// R49: `watched` of a record that was restored from another cluster (a backup), whose versions
// were higher: no member has written it since the newcomer's first list. x's Lease was deleted
// just before that list, and x works.
func TestAttackR49_AWatchedVersionAboveThatOfItsLeaseSaysNothing(t *testing.T) {
	p := newDriver(t)
	b := p.peerRecord("b", PhaseActive, 0)
	b.Watched = "9000000" // the Lease itself is at about 101
	p = newNewcomer(t, map[string]Record{"b": b})
	p.quiet(8*time.Second, without(p.all(), []int{0})...)
}

// L1, R49: "A Lease that is gone meanwhile is not waited for". A joining member of the first list
// stops: it leaves a void Lease, which only a member that serves deletes (R80), and there is none.
// At most 5*StartupSettle is promised when no member is at work.
func TestAttackL1_AColdStartWaitsForAMemberThatHasLeft(t *testing.T) {
	p := newDriver(t, func(c *Config) { c.StartupSettle = time.Second })
	r := p.peerRecord("j", PhaseJoining)
	r.Newcomer = ""
	p = newNewcomer(t, map[string]Record{"j": r})
	p.run(time.Second)
	r.Holder, r.Phase, r.Claims, r.Seq = "", PhaseDraining, Claims{}, 1
	p.put("lease-j", r)
	p.show("lease-j")
	p.run(6 * time.Second)
	if len(p.in(ring.Active)) == 0 {
		t.Error("nothing is owned 6 s after the only other member has left")
	}
}

// R52, V2: a has claimed everything, and its list is not answered. It is cut off; b evicts it,
// works with a token of its own, and leaves. Someone applies a's old record again. a must not work
// with the token of its first claim, which is lower than b's.
func TestAttackR52_AClaimFromBeforeTheFenceKeepsItsOldToken(t *testing.T) {
	p := newDriver(t)
	var unanswered []ListLeases
	p.lists = func(l ListLeases) {
		if l.Op < 4 { // the first one
			p.step(ListResult{Op: l.Op, Outcome: OK, Leases: p.list()})
			return
		}
		unanswered = append(unanswered, l)
	}
	p.step(Tick{})
	p.step(Synced{})
	p.run(time.Second)
	p.wantStates(nil, p.all())
	old := p.lease(p.cfg.Lease).Record
	u := p.due()
	p.wait(p.cfg.RenewDeadline)
	take[Fenced](p)
	p.step(WriteResult{Op: u.Op}) // no response
	b := p.put("lease-b", p.peerRecord("b", PhaseActive, p.all()...))
	worked := b.Version // b works with this token
	p.show("lease-b")
	b.Record.Holder = ""
	p.put("lease-b", b.Record)
	p.show("lease-b")
	p.put(p.cfg.Lease, old)
	p.lists = nil
	for _, l := range unanswered {
		p.step(ListResult{Op: l.Op})
	}
	p.run(10 * time.Second)
	for _, partition := range p.in(ring.Active) {
		if token := p.m.Token(partition); CompareVersions(token, worked) <= 0 {
			t.Fatalf("works on partition %d with token %s; b has worked on it with %s", partition, token, worked)
		}
	}
	if len(p.in(ring.Active)) == 0 {
		t.Error("nothing is active")
	}
}

// C8, R77: the annotation with the watermarks is not covered by the checksum, because it "only
// delays". Somebody raises it on a live Lease. From then on nothing waits for the caches.
func TestAttackR77_ARaisedWatermarkTurnsFreshCachesOff(t *testing.T) {
	p := newDriver(t, func(c *Config) { c.CacheSyncTimeout = time.Second })
	lost := p.owned("b", "a", "b")
	b := p.peer("b", PhaseActive, lost...)
	p.join()
	r := b.Record
	r.Seq, r.Watermarks = 1, Watermarks{"Foo": "99999999999"}
	p.put("lease-b", r)
	p.show("lease-b")
	p.run(3 * time.Second)
	r.Seq, r.Watermarks = 2, nil // b writes its record again, and works for a while
	p.put("lease-b", r)
	p.show("lease-b")
	p.run(3 * time.Second)
	r.Holder, r.Phase, r.Watermarks = "", PhaseDraining, Watermarks{"Foo": "1000"} // b leaves
	p.put("lease-b", r)
	p.show("lease-b")
	p.run(300 * time.Millisecond)
	p.wantStates(p.owned("a", "a", "b"), lost) // the caches have not reached 1000
}

// R6, R43: an update that removes the last finalizer of a Lease that is being deleted deletes the
// Lease, and the API server answers 200 with the object of the request, at the version of the
// request. A member's writes remove all finalizers (R60). So after "kubectl delete lease
// --cascade=foreground" the next renewal is confirmed although nobody will ever see it: the
// peers count from the renewal before it.
func TestAttackR6_ARenewalThatDeletesTheLeaseIsNoRenewal(t *testing.T) {
	b := newDriver(t, func(c *Config) { c.Member, c.Lease, c.Holder = "b", "lease-b", "b_1" }).join()
	b.wantStates(b.all(), nil)
	a := newDriver(t)
	a.now = b.now
	a.put("lease-b", b.lease("lease-b").Record)
	a.show("lease-b")
	a.join()
	both := func(d time.Duration) {
		a.run(d)
		b.now = a.now
	}
	// b renews at T. Both see it.
	u := b.due()
	b.step(WriteResult{Op: u.Op, Outcome: OK, Lease: b.commit(u)})
	b.show("lease-b")
	both(b.now.Mono - a.now.Mono)
	last := a.put("lease-b", u.Record)
	a.show("lease-b")
	t0 := a.now.Mono
	// Someone deletes b's Lease in the foreground. b cannot reach the server until T + 8.8 s.
	u = b.due()
	b.wait(5500 * time.Millisecond)
	b.did = nil
	b.step(WriteResult{Op: u.Op})
	b.wait(300 * time.Millisecond)
	get := take[GetLease](b)
	l := b.lease("lease-b")
	b.step(GetResult{Op: get.Op, Outcome: OK, Lease: l})
	u = take[WriteLease](b)
	b.step(WriteResult{Op: u.Op, Outcome: OK, Lease: Lease{Name: l.Name, UID: l.UID, Version: u.Version, Created: l.Created, Record: u.Record}})
	both(b.now.Mono - a.now.Mono)
	a.remove("lease-b")
	a.gone(last)
	// b is cut off again. Its watch is, too.
	for a.now.Mono-t0 < 25*time.Second {
		a.run(100 * time.Millisecond)
		fence, working := b.m.Fence()
		if working && !a.now.Reached(fence) && len(a.in(ring.Active)) > 0 {
			t.Fatalf("%v after the last renewal that anyone has seen: a works on %v, and b until %v", a.now.Mono-t0, a.in(ring.Active), fence.Mono-t0)
		}
	}
}
