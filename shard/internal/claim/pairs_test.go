// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"slices"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// quiet runs for d and fails if one of the partitions is active meanwhile.
func (p *driver) quiet(d time.Duration, partitions ...int) {
	p.t.Helper()
	for start := p.now.Mono; p.now.Mono-start < d; {
		p.run(min(200*time.Millisecond, d-(p.now.Mono-start)))
		for _, partition := range p.in(ring.Active) {
			if slices.Contains(partitions, partition) {
				p.t.Fatalf("partition %d is active %v after the start, at most %v too early", partition, p.now.Mono-start, d-(p.now.Mono-start))
			}
		}
	}
}

// next replaces the machine as package member does: the new one inherits from the old one, and
// is shown what the watch shows now.
func (p *driver) next(holder string, shown ...string) {
	p.t.Helper()
	old := p.m
	p.cfg.Predecessor, p.cfg.Holder = p.cfg.Holder, holder
	p.cfg.Tombstones, p.cfg.Knowledge = old.Tombstones(), old.Knowledge()
	p.m, p.did = New(p.cfg), nil
	p.step(Tick{})
	for _, name := range shown {
		p.step(LeaseObserved{Lease: p.lease(name), Listed: true})
	}
	p.step(Synced{})
}

// R49: the newcomer waits for the longest duration that its first list shows. x (60 s) worked on
// 4 to 7, and its Lease was deleted while it was cut off. The only Lease in the list is that of
// the newcomer's own name: it knew x and publishes 60 s.
func TestR49_TheLongestDurationOnTheLeaseOfTheMembersNameCounts(t *testing.T) {
	for name, c := range map[string]struct {
		config func(*Config)
		pod    string
	}{
		"the dead process of the same Pod": {func(c *Config) { c.TakeOver, c.PodUID = true, "pod-uid" }, "pod-uid"},
		"another process of the same name": {nil, "uid-before"},
	} {
		t.Run(name, func(t *testing.T) {
			var change []func(*Config)
			if c.config != nil {
				change = append(change, c.config)
			}
			p := newDriver(t, change...)
			p.m, p.did = New(p.cfg), nil
			old := p.peerRecord("a", PhaseActive, 0, 1, 2, 3)
			old.Holder, old.PodUID, old.Longest = "a_before", c.pod, time.Minute
			l := p.put(p.cfg.Lease, old)
			p.step(LeaseObserved{Lease: l, Listed: true})
			p.step(WatchProgress{Version: p.server.Version(), Listed: true})
			p.step(Synced{})
			if c.config == nil { // its Pod is gone: the garbage collector deletes the Lease
				p.run(time.Second)
				p.remove(l.Name)
				p.gone(l)
			}
			p.quiet(50*time.Second, 4, 5, 6, 7)
		})
	}
}

// R49: the same, but the only other Lease in the first list is that of a joining member which
// created it before its own watch had shown x (60 s). Then it publishes what it knows: 60 s, and
// the tombstone of x. It is not settled itself.
func TestR49_WhatAnotherNewcomerPublishesLaterCounts(t *testing.T) {
	for name, tombstone := range map[string]bool{"the duration": false, "and the tombstone": true} {
		t.Run(name, func(t *testing.T) {
			p := newDriver(t)
			r := p.peerRecord("j", PhaseJoining)
			r.Newcomer = ""
			p = newNewcomer(t, map[string]Record{"j": r})
			p.run(time.Second)
			x := p.peerRecord("x", PhaseActive, 4, 5, 6, 7)
			r.Seq, r.Longest, r.Watched = 1, time.Minute, p.server.Version()
			if tombstone {
				r.Tombstones = []Tombstone{{UID: "uid-x", Holder: "x_1", Claims: x.Claims, Duration: time.Minute, Remaining: time.Minute}}
			}
			for start := p.now.Mono; p.now.Mono-start < 45*time.Second; {
				p.put("lease-j", r)
				p.show("lease-j")
				p.quiet(3*time.Second, 4, 5, 6, 7)
				r.Seq++
			}
		})
	}
}

// R31, R64: only a quorum list has shown x, whose Lease was then deleted before the first list of
// the watch. x blocks as a peer, and the tombstone of x that b publishes is not adopted for that
// reason. The member's own Lease is deleted too ("kubectl delete leases -l ..."): the next
// machine inherits that it is settled, but nothing of x.
func TestR64_APeerThatOnlyAListHasShownBlocksTheNextMachine(t *testing.T) {
	p := newDriver(t)
	p.m, p.did = New(p.cfg), nil
	x := p.put("lease-x", p.peerRecord("x", PhaseActive, p.all()...))
	b := p.peerRecord("b", PhaseActive)
	p.put("lease-b", b)
	p.step(Tick{})
	p.step(Synced{})
	p.run(100 * time.Millisecond) // CREATE, and the quorum list with x
	p.remove("lease-x")
	deletedAt := p.now.Mono
	// The watch lists only now.
	p.step(LeaseObserved{Lease: p.lease("lease-b"), Listed: true})
	p.step(LeaseObserved{Lease: p.lease(p.cfg.Lease), Listed: true})
	p.step(WatchProgress{Version: p.server.Version(), Listed: true})
	b.Seq, b.Watched = 1, p.server.Version()
	b.Tombstones = []Tombstone{{UID: x.UID, Holder: "x_1", Claims: x.Record.Claims, Duration: 15 * time.Second, Remaining: 15 * time.Second}}
	p.put("lease-b", b)
	p.show("lease-b")
	if !p.m.knowledge.settled {
		t.Fatal("not settled")
	}
	p.quiet(time.Second, p.all()...) // x blocks everything

	last := p.lease(p.cfg.Lease)
	p.remove(p.cfg.Lease)
	p.gone(last)
	p.serve()
	if p.m.stage != ended {
		t.Fatal("the machine has not ended")
	}
	p.next("a_2", "lease-b")
	p.quiet(9*time.Second-(p.now.Mono-deletedAt), p.all()...) // x may work until its fence
}

// R32, R29: the ring label of b's Lease is removed: a tombstone. Then someone applies what is not
// b's last record, with the label, before b has written. b works on everything until it notices:
// cut off, until its fence.
func TestR32_ARecordThatComesBackAfterItsTombstoneIsJudged(t *testing.T) {
	for name, change := range map[string]func(*Record){
		"an older record":        func(r *Record) { r.Seq, r.Claims.Set = 4, setOf(testPartitions) },
		"another Lease's void":   func(r *Record) { *r = Record{Member: "b", Phase: PhaseDraining, Copied: true} },
		"another holder's":       func(r *Record) { r.Holder, r.Seq, r.Claims.Set = "b_0", 9, setOf(testPartitions) },
		"a shorter duration too": func(r *Record) { r.Seq, r.Duration, r.Claims.Set = 4, time.Second, setOf(testPartitions) },
	} {
		for what, final := range map[string]bool{"event": true, "relist": false} {
			t.Run(name+", "+what, func(t *testing.T) {
				p := newDriver(t)
				r := p.peerRecord("b", PhaseActive, p.all()...)
				r.Seq = 5
				l := p.put("lease-b", r)
				p.show("lease-b")
				p.join()
				p.step(LeaseDeleted{Last: l, Final: final}) // it is no longer selected
				p.run(200 * time.Millisecond)
				change(&r)
				p.put("lease-b", r)
				p.show("lease-b")
				p.quiet(8*time.Second, p.all()...)
			})
		}
	}
}

// The same with an edit that cannot be read: the members knew that 15 s were declared, and b is
// dead. Its part must not be without an owner for an hour (L1, R46).
func TestR46_AnEditAfterTheLabelWasRemovedHidesNothingThatWasKnown(t *testing.T) {
	p := newDriver(t)
	r := p.peerRecord("b", PhaseActive, p.all()...)
	r.Seq = 5
	l := p.put("lease-b", r)
	p.show("lease-b")
	p.join()
	p.step(LeaseDeleted{Last: l, Final: true})
	p.run(200 * time.Millisecond)
	p.put("lease-b", edited("b_1"))
	p.show("lease-b")
	p.run(2*p.cfg.LeaseDuration + 5*time.Second)
	if len(p.in(ring.Active)) == 0 {
		t.Errorf("nothing is owned after %v; the Lease blocks for %v", 2*p.cfg.LeaseDuration+5*time.Second, p.m.counting(p.m.peers["lease-b"].lease.Record.Duration))
	}
}

// R32, R64: this member's Lease was deleted, and its work takes a while to stop. Meanwhile its
// watch shows that b claims everything (seq 9), and then an older record of b (seq 7), which
// someone has applied. The watch has no gap, but no machine runs that could judge it.
func TestR64_ARecordThatIsShownBetweenTwoMachinesIsJudged(t *testing.T) {
	p := newDriver(t)
	r := p.peerRecord("b", PhaseActive, 0)
	r.Seq = 5
	p.put("lease-b", r)
	p.show("lease-b")
	p.join()
	last := p.lease(p.cfg.Lease)
	p.remove(p.cfg.Lease)
	p.gone(last)
	p.serve()
	if p.m.stage != ended {
		t.Fatal("the machine has not ended")
	}
	p.now = p.now.Add(16 * time.Second) // work is in flight; the tombstone of this member's Lease expires
	old := r
	old.Seq = 7
	r.Seq, r.Claims.Set = 9, setOf(testPartitions, p.all()...)
	p.put("lease-b", r)
	p.show("lease-b")
	p.put("lease-b", old)
	p.show("lease-b")
	p.next("a_2", "lease-b")
	p.quiet(8*time.Second, without(p.all(), []int{0})...) // b, cut off, works until its fence
}

// R49: "its own dead predecessor, if that claimed everything". To claim is not to work. a evicts m
// and claims everything; before that write, m's process, which inherits that it is settled (R64),
// has joined again, has claimed 0 and 1, has read no other claim of them, and works. a crashes
// before its watch shows that; m's new Lease is deleted while m is cut off; a starts again in the
// same Pod.
func TestR49_APredecessorThatClaimedEverythingDidNotWorkOnEverything(t *testing.T) {
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
// Lease was collected. This is as strong a sign as a predecessor that claimed a part. A released
// Lease is that of a member that may have left before its watch has shown such a deletion.
func TestR49_AVoidLeaseShowsThatAnotherMemberWasAtWork(t *testing.T) {
	for what, evictedBy := range map[string]string{"evicted": "m_1", "released": ""} {
		for name, own := range map[string]bool{"of the member's own name": true, "of another name": false} {
			t.Run(what+", "+name, func(t *testing.T) {
				p := newDriver(t)
				p.m, p.did = New(p.cfg), nil
				lease, member := "lease-c", "c"
				if own {
					lease, member = p.cfg.Lease, p.cfg.Member
				}
				l := p.put(lease, Record{Member: member, Phase: PhaseDraining, EvictedBy: evictedBy, Newcomer: Settled})
				p.step(LeaseObserved{Lease: l, Listed: true})
				p.step(WatchProgress{Version: p.server.Version(), Listed: true})
				p.step(Synced{})
				p.quiet(14*time.Second, p.all()...)
				p.run(3 * time.Second)
				p.wantStates(p.all(), nil)
			})
		}
	}
}

// R49: `watched` of a record that was restored from another cluster (a backup), whose versions
// were higher: no member has written it since the newcomer's first list. x's Lease was deleted
// just before that list, and x works.
func TestR49_AWatchedVersionAboveThatOfItsLeaseSaysNothing(t *testing.T) {
	p := newDriver(t)
	b := p.peerRecord("b", PhaseActive, 0)
	b.Watched = "9000000" // the Lease itself is at about 101
	p = newNewcomer(t, map[string]Record{"b": b})
	p.quiet(8*time.Second, without(p.all(), []int{0})...)
}

// R49: "A Lease that is gone meanwhile is not waited for". x works on 4 to 7, j joins and sees x.
// x's Lease is deleted while x is cut off: j has a tombstone, publishes it, and waits. The first
// list of this member shows only j, which is joining: it waits for what j knows. Then j is gone
// ("kubectl rollout restart" replaces it), and nothing of what it knew counts.
func TestR49_AWitnessThatIsGoneDoesNotTakeItsTombstonesAlong(t *testing.T) {
	p := newDriver(t)
	r := p.peerRecord("j", PhaseJoining)
	r.Newcomer = ""
	p = newNewcomer(t, map[string]Record{"j": r})
	x := p.peerRecord("x", PhaseActive, 4, 5, 6, 7)
	r.Seq, r.Watched = 1, p.server.Version()
	r.Tombstones = []Tombstone{{UID: "uid-x", Holder: "x_1", Claims: x.Claims, Duration: 15 * time.Second, Remaining: 15 * time.Second}}
	p.put("lease-j", r)
	p.show("lease-j")
	p.run(time.Second)
	last := p.lease("lease-j")
	p.remove("lease-j")
	p.step(LeaseDeleted{Last: last, Final: true})
	p.quiet(8*time.Second, 4, 5, 6, 7)
}

// R52, V2: a has claimed everything, and its list is not answered. It is cut off; b evicts it,
// works with a token of its own, and leaves. Someone applies a's old record again. a must not work
// with the token of its first claim, which is lower than b's.
func TestR52_AClaimFromBeforeTheFenceGetsANewToken(t *testing.T) {
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

// R49: a crashed while it worked on a part, so the next process of its Pod is no cold start. It
// waits, and crashes too, while its informers sync. The third finds the second's Lease, which claims nothing and is joining,
// and starts cold. m, whose Lease was deleted before the first restart, works all the time.
func TestR49_ASecondCrashDoesNotHideWhatTheFirstHasShown(t *testing.T) {
	p := newDriver(t, func(c *Config) { c.TakeOver, c.PodUID = true, "pod-uid" })
	p.m, p.did = New(p.cfg), nil
	old := p.peerRecord("a", PhaseActive, 0, 1, 2)
	old.Holder, old.PodUID = "a_before", "pod-uid"
	p.step(LeaseObserved{Lease: p.put(p.cfg.Lease, old), Listed: true})
	p.step(WatchProgress{Version: p.server.Version(), Listed: true})
	p.quiet(2*time.Second, p.all()...) // its informers have not synced
	p.cfg.Holder = "a_2"
	p.m, p.did = New(p.cfg), nil
	p.step(LeaseObserved{Lease: p.lease(p.cfg.Lease), Listed: true})
	p.step(WatchProgress{Version: p.server.Version(), Listed: true})
	p.step(Synced{})
	p.quiet(6*time.Second, p.all()...)
}

// R12a, S0: a partition is being drained, within its grace period, when the process is paused until
// long after its fence. b evicts it and works. The first event afterwards, which is old, makes the
// member want the partition again: it must not become active while the member is fenced.
func TestR12a_ADrainDoesNotEndInActivationWhileFenced(t *testing.T) {
	p := newDriver(t, func(c *Config) { c.DrainGrace = time.Minute }).join()
	b := p.peer("b", PhaseActive)
	drain := take[Drain](p).Partitions
	p.wait(time.Second)
	b.Record.Phase = PhaseDraining // it leaves at once; this member does not see yet that b is back
	l := p.put(b.Name, b.Record)
	p.did = nil
	p.now = p.now.Add(20 * time.Second)
	p.step(LeaseObserved{Lease: l})
	if fenced, active := slices.ContainsFunc(p.did, isAction[Fenced]), slices.ContainsFunc(p.did, isAction[Activated]); !fenced || active {
		t.Errorf("fenced: %v; activated: %v, of the drain of %v", fenced, active, slices.Collect(drain.All()))
	}
}

func isAction[T Action](a Action) bool {
	_, ok := a.(T)
	return ok
}
