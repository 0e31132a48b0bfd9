// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"fmt"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// newNewcomer returns a machine whose watch begins with a list of the given members' Leases,
// at version 200.
func newNewcomer(t *testing.T, peers map[string]Record) *driver {
	t.Helper()
	p := newDriver(t)
	p.m, p.did = New(p.cfg), nil
	for name, r := range peers {
		p.step(LeaseObserved{Lease: p.put("lease-"+name, r), Listed: true})
	}
	p.server.Revision = 200
	p.step(WatchProgress{Version: "200", Listed: true})
	p.step(Synced{})
	return p
}

// A Lease was deleted before the newcomer's first list. The newcomer works on nothing until a
// settled member, whose watch has come to that list, has written its record. It adopts the
// tombstones of each record that a member has written.
func TestR49_ANewcomerWaitsForASettledMember(t *testing.T) {
	for _, c := range []struct {
		name            string
		change          func(*Record)
		settles, adopts bool
	}{
		{"settled, at the list", func(r *Record) { r.Watched = "200" }, true, true},
		{"settled, before the list", func(r *Record) { r.Watched = "199" }, false, true},
		{"settled, after its own write", func(r *Record) { r.Watched = "900" }, false, true},
		{"released", func(r *Record) { r.Watched, r.Holder, r.Phase, r.Claims = "200", "", PhaseDraining, Claims{} }, true, true},
		{"evicted", func(r *Record) { r.Watched, r.Holder, r.EvictedBy = "200", "", "x_1" }, false, false},
		{"edited", func(r *Record) { r.Watched, r.Edited = "200", true }, false, false},
		{"not settled", func(r *Record) { r.Watched, r.Newcomer = "200", "" }, false, true},
		{"cold", func(r *Record) { r.Watched, r.Newcomer = "200", Cold }, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newNewcomer(t, nil)
			b := p.peerRecord("b", PhaseActive)
			p = newNewcomer(t, map[string]Record{"b": b})
			p.run(5 * time.Second)
			p.wantStates(nil, nil)
			b.Seq++
			b.Tombstones = []Tombstone{{UID: "gone", Holder: "x_1", Claims: p.peerRecord("x", PhaseActive, 0, 1, 2, 3, 4, 5, 6).Claims, Remaining: 4 * time.Second}}
			c.change(&b)
			p.put("lease-b", b)
			p.show("lease-b")
			if p.m.knowledge.settled != c.settles {
				t.Errorf("settled: %v", p.m.knowledge.settled)
			}
			if got := len(p.m.tombstonesNow()); (got == 1) != c.adopts {
				t.Errorf("%d tombstones", got)
			}
			p.run(3 * time.Second)
			for _, partition := range p.in(ring.Active) {
				if partition < 7 {
					t.Fatalf("partition %d is active", partition)
				}
			}
		})
	}
}

// Without such a member it waits for the longest lease duration in use since its first list,
// and not since it created its Lease.
func TestR49_WithoutAWitnessANewcomerWaitsForTheLongestDuration(t *testing.T) {
	for name, change := range map[string]func(*Record){
		"declared":  func(r *Record) { r.Duration = 40 * time.Second },
		"published": func(r *Record) { r.Longest = 40 * time.Second },
	} {
		t.Run(name, func(t *testing.T) {
			p := newDriver(t)
			p.m, p.did = New(p.cfg), nil
			p.step(Tick{})
			p.step(Synced{})
			p.run(10 * time.Second) // the watch lists late
			b := p.peerRecord("b", PhaseActive)
			change(&b)
			p.step(LeaseObserved{Lease: p.put("lease-b", b), Listed: true})
			p.step(WatchProgress{Version: p.server.Version(), Listed: true})
			for start := p.now.Mono; p.now.Mono-start < 39*time.Second; {
				b.Seq++ // it is alive, and its watch is stale
				p.put("lease-b", b)
				p.show("lease-b")
				p.run(3 * time.Second)
				if p.now.Mono-start < 40*time.Second {
					p.wantStates(nil, nil)
				}
			}
			p.run(3 * time.Second)
			p.wantStates(p.owned("a", "a", "b"), nil)
		})
	}
}

func TestR49_AColdStartWaitsForTheOtherJoiningMembers(t *testing.T) {
	joining := func(p *driver, change func(*Record)) Record {
		r := p.peerRecord("b", PhaseJoining)
		r.Newcomer = ""
		if change != nil {
			change(&r)
		}
		return r
	}
	for _, c := range []struct {
		name   string
		change func(*Record)
		cold   bool
	}{
		{"cold, at the list", func(r *Record) { r.Newcomer, r.Watched = Cold, "200" }, true},
		{"settled, at the list", func(r *Record) { r.Newcomer, r.Watched = Settled, "200" }, true},
		{"cold, before the list", func(r *Record) { r.Newcomer, r.Watched = Cold, "150" }, false},
		{"neither", func(r *Record) { r.Watched = "200" }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newDriver(t)
			p = newNewcomer(t, map[string]Record{"b": joining(p, nil)})
			p.run(2 * time.Second)
			if p.m.Serving() || p.lease(p.cfg.Lease).Record.Newcomer != Cold {
				t.Fatalf("serves: %v, publishes %q", p.m.Serving(), p.lease(p.cfg.Lease).Record.Newcomer)
			}
			r := joining(p, c.change)
			r.Seq++
			p.put("lease-b", r)
			p.show("lease-b")
			p.run(2 * time.Second)
			if p.m.Serving() != c.cold {
				t.Errorf("serves: %v", p.m.Serving())
			}
		})
	}
	t.Run("gone", func(t *testing.T) {
		p := newDriver(t)
		p = newNewcomer(t, map[string]Record{"b": joining(p, nil)})
		p.run(time.Second)
		last := p.lease("lease-b")
		p.remove("lease-b")
		p.step(LeaseDeleted{Last: last, Final: true})
		p.quiet(p.cfg.LeaseDuration-2*time.Second, p.all()...) // it may have known of another one
		p.run(3 * time.Second)
		p.wantStates(p.all(), nil)
	})
	t.Run("with Quarantine", func(t *testing.T) {
		p := newDriver(t, func(c *Config) { c.Quarantine = true })
		p.step(Synced{})
		p.run(5 * time.Second)
		if p.m.knowledge.settled {
			t.Error("settled")
		}
	})
}

// A settled member writes as soon as its watch shows a newcomer, which waits for that.
func TestR49_ASettledMemberAnswersANewcomer(t *testing.T) {
	p := newDriver(t).join()
	r := p.peerRecord("b", PhaseJoining)
	r.Newcomer = ""
	b := p.put("lease-b", r)
	p.did = nil
	p.show("lease-b")
	none[WriteLease](p)
	p.wait(p.cfg.Coalesce)
	u := take[WriteLease](p)
	if CompareVersions(u.Record.Watched, b.Version) < 0 || !u.Record.Newcomer.IsSettled() {
		t.Errorf("writes watched %q, %q", u.Record.Watched, u.Record.Newcomer)
	}
	p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
	p.show(p.cfg.Lease)
	// Once for each of its steps, not for each of its renewals.
	r.Seq++
	p.put("lease-b", r)
	p.did = nil
	p.show("lease-b")
	p.wait(p.cfg.Coalesce)
	none[WriteLease](p)
}

// All newcomers that start within Coalesce get one answer.
func TestR49_OneWriteAnswersManyNewcomers(t *testing.T) {
	p := newDriver(t).join()
	r := p.peerRecord("", PhaseJoining)
	r.Newcomer = ""
	p.did = nil
	for i := range 20 {
		r.Member = fmt.Sprintf("b-%02d", i)
		r.Holder = r.Member + "_1"
		p.put("lease-"+r.Member, r)
		p.show("lease-" + r.Member)
		p.now = p.now.Add(p.cfg.Coalesce / 25)
	}
	none[WriteLease](p)
	p.wait(p.cfg.Coalesce)
	u := take[WriteLease](p)
	if CompareVersions(u.Record.Watched, p.server.Version()) < 0 {
		t.Errorf("writes watched %q, the last newcomer is at %s", u.Record.Watched, p.server.Version())
	}
	p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
	p.wait(time.Second)
	none[WriteLease](p)
}

// The settled members of a fleet take turns: about one of them writes for a newcomer, and the
// others only if none does.
func TestR49_SettledMembersTakeTurnsToAnswer(t *testing.T) {
	firsts := 0
	for i := range 40 {
		p := newDriver(t)
		for n := range 9 {
			p.peer(fmt.Sprintf("m-%d", n), PhaseActive)
		}
		p.join()
		name := fmt.Sprintf("b-%02d", i)
		r := p.peerRecord(name, PhaseJoining)
		r.Newcomer = ""
		p.did = nil
		b := p.put("lease-"+name, r)
		p.show(b.Name)
		p.wait(p.cfg.Coalesce)
		if len(p.did) > 0 {
			take[WriteLease](p)
			firsts++
			continue
		}
		// Another member is first. It is alive, but does it write?
		if i%2 == 0 {
			m := p.peerRecord("m-0", PhaseActive)
			m.Seq, m.Watched = 1, b.Version
			p.put("lease-m-0", m)
			p.show("lease-m-0")
			p.wait(500 * time.Millisecond)
			none[WriteLease](p)
		} else {
			p.wait(10 * 50 * time.Millisecond)
			take[WriteLease](p)
		}
	}
	if firsts < 1 || firsts > 12 {
		t.Errorf("this member, one of ten, writes first for %d of 40 newcomers", firsts)
	}
}

// What exceeds the bounds is merged into one tombstone that claims everything, for the longest
// time (R47): also the deletion of many Leases must not make the member's own too large.
func TestR47_TooManyTombstonesAreMerged(t *testing.T) {
	for _, partitions := range []int{8, 509, 65536} {
		p := newDriver(t).join()
		for i := range 100 {
			name := fmt.Sprint("p-", i)
			r := p.peerRecord(name, PhaseActive)
			r.Claims = Claims{Parameters: ring.Parameters{Key: "name", Partitions: partitions, VirtualNodes: 1, Load: 1}, Set: setOf(partitions, i%8)}
			p.step(LeaseDeleted{Last: p.put("lease-"+name, r), Final: true})
			p.remove("lease-" + name)
			p.now = p.now.Add(time.Millisecond)
		}
		list := p.m.tombstonesToPublish()
		last := list[len(list)-1]
		size := 0
		for _, tomb := range list {
			size += len(tomb.UID) + len(tomb.Holder) + len(tomb.Claims.Set.Encode())
		}
		if len(list) > maxTombstones+1 || size > maxTombstoneSize {
			t.Errorf("%d partitions: %d tombstones of %d bytes", partitions, len(list), size)
		}
		if last.UID != "" || !last.Claims.Everything || last.Remaining < 14*time.Second {
			t.Errorf("%d partitions: the last one is %+v", partitions, last)
		}
	}
}

// Only a newcomer adopts a merged tombstone: otherwise two members would keep each other's
// alive (R47).
func TestR47_OnlyANewcomerAdoptsAMergedTombstone(t *testing.T) {
	merged := []Tombstone{{Claims: Claims{Everything: true}, Duration: 15 * time.Second, Remaining: 10 * time.Second}}
	p := newDriver(t).join()
	r := p.peerRecord("b", PhaseActive)
	r.Tombstones = merged
	p.put("lease-b", r)
	p.show("lease-b")
	if len(p.m.tombstonesNow()) != 0 {
		t.Error("a settled member has adopted it")
	}
	r.Tombstones = nil
	p = newNewcomer(t, map[string]Record{"b": r})
	r.Tombstones, r.Watched, r.Seq = merged, "200", 1
	p.put("lease-b", r)
	p.show("lease-b")
	p.run(9 * time.Second)
	p.wantStates(nil, nil)
	p.run(3 * time.Second)
	p.wantStates(p.owned("a", "a", "b"), nil)
}

// Of the same write of the same holder the smaller time counts; others are kept side by side
// (R29).
func TestR29_TheSmallerTimeCounts(t *testing.T) {
	p := newDriver(t).join()
	b := p.peer("b", PhaseActive, 0, 1)
	p.run(5 * time.Second)
	later := b
	later.Record.Seq++
	p.remove(b.Name)
	p.step(LeaseDeleted{Last: later, Final: true}) // counts from now: 15 s
	r := p.peerRecord("c", PhaseDraining)
	show := func(seq uint64, remaining time.Duration) {
		r.Seq++
		r.Tombstones = []Tombstone{{UID: b.UID, Holder: "b_1", Seq: seq, Claims: b.Record.Claims, Duration: 15 * time.Second, Remaining: remaining}}
		p.put("lease-c", r)
		p.show("lease-c")
	}
	remaining := func() time.Duration {
		list := p.m.tombstonesNow()
		if len(list) != 1 {
			t.Fatalf("the tombstones are %+v", list)
		}
		return list[0].Remaining
	}
	show(7, time.Second) // another write: this member knows of none
	if got := remaining(); got != 15*time.Second {
		t.Errorf("%v remain", got)
	}
	show(later.Record.Seq, 9*time.Second)
	if got := remaining(); got != 9*time.Second {
		t.Errorf("%v remain, another member has published 9s", got)
	}
	show(later.Record.Seq, 12*time.Second)
	if got := remaining(); got != 9*time.Second {
		t.Errorf("%v remain: it was extended", got)
	}
}

// The first list shows only the Lease of the dead process of the same Pod. Another member may
// have been at work, and its Lease may have been deleted, even if the dead process claimed
// everything: it may have been about to.
func TestR49_ADeadPredecessorDoesNotProveThatNoOtherMemberWorks(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Record)
		cold   bool
	}{
		{"it was released", func(r *Record) {
			r.Holder, r.Phase, r.Claims.Set = "", PhaseDraining, ring.NewSet(r.Claims.Set.Partitions())
		}, false},
		{"it worked on everything", func(r *Record) {
			r.Newcomer, r.Claims.Set = Alone, ring.FullSet(r.Claims.Set.Partitions())
		}, true},
		{"that is an edit", func(r *Record) { r.Newcomer, r.Edited, r.Claims = Alone, true, Claims{Everything: true} }, false},
		{"it claimed everything", func(r *Record) { r.Claims.Set = ring.FullSet(r.Claims.Set.Partitions()) }, false},
		{"it had not joined", func(r *Record) {
			r.Phase, r.Claims.Set = PhaseJoining, ring.NewSet(r.Claims.Set.Partitions())
		}, false},
		{"it claimed a part", func(*Record) {}, false},
		{"it was stopping", func(r *Record) {
			r.Phase, r.Claims.Set = PhaseDraining, ring.NewSet(r.Claims.Set.Partitions())
		}, false},
		{"its record was edited", func(r *Record) { r.Edited, r.Claims = true, Claims{Everything: true} }, false},
	} {
		for _, readFirst := range []bool{false, true} { // the read of acquire is answered before the first list
			t.Run(fmt.Sprintf("%s, read first: %v", c.name, readFirst), func(t *testing.T) {
				p := newDriver(t, func(c *Config) { c.TakeOver, c.PodUID = true, "pod-uid" })
				p.m, p.did = New(p.cfg), nil
				old := p.peerRecord("a", PhaseActive, 0, 1, 2)
				old.Holder, old.PodUID = "a_before", "pod-uid"
				c.change(&old)
				l := p.put(p.cfg.Lease, old)
				if readFirst {
					p.step(Tick{})
					p.run(time.Second)
				} else {
					p.step(LeaseObserved{Lease: l, Listed: true})
				}
				p.step(WatchProgress{Version: p.server.Version(), Listed: true})
				if k := p.m.knowledge; (k.cold || k.settled) != c.cold {
					t.Errorf("cold: %v, settled: %v", k.cold, k.settled)
				}
			})
		}
	}
}

// The first list shows a Lease whose record was edited. Its member restores the record, which
// shows a longer duration: the newcomer waits for that, as if its first list had shown it.
func TestR49_ARestoredRecordExtendsTheWait(t *testing.T) {
	p := newNewcomer(t, nil)
	restored := p.peerRecord("b", PhaseActive)
	restored.Seq, restored.Newcomer, restored.Longest = 5, "", 40*time.Second
	for name, after := range map[string]time.Duration{"before the wait ends": 5 * time.Second, "after it would have ended": 25 * time.Second} {
		t.Run(name, func(t *testing.T) {
			p := newNewcomer(t, map[string]Record{"b": edited("b_1")})
			start := p.now.Mono
			p.run(after)
			for p.now.Mono-start < 39*time.Second {
				restored.Seq++
				p.put("lease-b", restored)
				p.show("lease-b")
				p.run(time.Second)
				p.wantStates(nil, nil)
			}
			for p.now.Mono-start < 45*time.Second {
				restored.Seq++
				p.put("lease-b", restored)
				p.show("lease-b")
				p.run(time.Second)
			}
			p.wantStates(p.owned("a", "a", "b"), nil)
		})
	}
	t.Run("it is never restored", func(t *testing.T) {
		p := newNewcomer(t, map[string]Record{"b": edited("b_1")})
		p.run(MaxLeaseDuration + time.Minute)
		p.wantStates(p.all(), nil)
	})
}

// The response to the first list of the watch is slow: the quorum list that follows the CREATE is sent
// later, and handled first. The first list decides whether this is a cold start, also if its member has
// left since. b has not seen that the Lease of x was deleted (its watch lags). x is cut off, and works.
func TestR49_AFirstListOlderThanTheQuorumList(t *testing.T) {
	left := func(_ *driver, b Record) Record { b.Holder, b.Phase = "", PhaseDraining; return b }
	joining := func(_ *driver, b Record) Record { b.Phase, b.Newcomer = PhaseJoining, ""; return b }
	replaced := func(p *driver, b Record) Record {
		p.remove("lease-b")
		b.Holder, b.Phase, b.Newcomer, b.Watched = "b_2", PhaseJoining, Cold, p.server.Version()
		return b
	}
	for _, c := range []struct {
		name   string
		first  func(*driver, Record) Record
		then   func(*driver, Record) Record
		longer bool // until the first list is 40 s old
	}{
		{name: "active, released", then: left},
		{name: "draining, released", first: func(_ *driver, b Record) Record { b.Phase = PhaseDraining; return b }, then: left},
		{name: "joining, released", first: joining, then: left},
		{name: "joining, replaced", first: joining, then: replaced},
		{name: "evicted, replaced", first: func(_ *driver, b Record) Record {
			return Record{Member: "b", Phase: PhaseDraining, EvictedBy: "d_1"}
		}, then: replaced},
		{name: "active, evicted", longer: true, first: func(_ *driver, b Record) Record { b.Longest = 40 * time.Second; return b }, then: func(*driver, Record) Record {
			return Record{Member: "b", Phase: PhaseDraining, EvictedBy: "d_1"}
		}},
	} {
		for order, in := range map[string]struct{ quorumFirst, ends bool }{
			"the quorum list is handled first": {quorumFirst: true},
			"the first list is handled first":  {},
			"the machine ends within the list": {ends: true}, // and what waits for it is not the first list any more
		} {
			t.Run(c.name+", "+order, func(t *testing.T) {
				p := newDriver(t)
				p.m, p.did = New(p.cfg), nil
				p.step(Tick{})
				p.step(Synced{})
				p.put("lease-x", p.peerRecord("x", PhaseActive, p.all()...))
				b := p.peerRecord("b", PhaseActive)
				b.Watched, b.Seq = p.server.Version(), 5
				p.put("lease-b", b)
				if c.first != nil {
					p.put("lease-b", c.first(p, b))
				}
				p.remove("lease-x")
				first, version := p.list(), p.server.Version() // served now, answered later

				p.step(GetResult{Op: take[GetLease](p).Op, Outcome: NotFound})
				create := take[CreateLease](p)
				b.Seq++
				p.put("lease-b", c.then(p, b))
				p.step(WriteResult{Op: create.Op, Outcome: OK, Lease: p.commit(create)})
				list := ListResult{Op: take[ListLeases](p).Op, Outcome: OK, Leases: p.list()}
				if in.quorumFirst {
					p.step(list)
				}
				for _, l := range first {
					p.step(LeaseObserved{Lease: l, Listed: true})
				}
				if in.ends {
					p.remove(p.cfg.Lease)
					p.m.end(ErrVanished)
					p.restart("a_2", "lease-b")
				}
				p.step(WatchProgress{Version: version, Listed: true})
				if !in.quorumFirst && !in.ends {
					p.step(list)
				}
				p.show("lease-b")
				p.serve()
				p.show(p.cfg.Lease)
				wait := 14 * time.Second
				if c.longer {
					wait = 39 * time.Second
				}
				p.quiet(wait, p.all()...)
				p.run(5 * time.Second)
				if n := len(p.in(ring.Active)); n == 0 {
					t.Error("works on nothing although x has stopped")
				}
			})
		}
	}
}

// R46, R49, L1: a newcomer sees a joining member, which dies, and whose record is edited. In the view its
// phase is still joining. The newcomer must not wait for a record of it in a cold start, which it does not
// end by evicting it.
func TestR49_AJoiningLeaseThatIsEdited(t *testing.T) {
	for name, c := range map[string]struct{ inQuorumList, inFirstList bool }{
		"between the quorum list and the first list": {inFirstList: true},
		"between the first list and the quorum list": {inQuorumList: true},
		"before both lists":                          {true, true},
		"after both lists":                           {},
	} {
		t.Run(name, func(t *testing.T) {
			p := newDriver(t)
			p.m, p.did = New(p.cfg), nil
			p.step(Tick{})
			p.step(Synced{})
			p.step(GetResult{Op: take[GetLease](p).Op, Outcome: NotFound})
			create := take[CreateLease](p)
			p.step(WriteResult{Op: create.Op, Outcome: OK, Lease: p.commit(create)})
			b := p.peerRecord("b", PhaseJoining)
			b.Newcomer = Cold
			joining := p.put("lease-b", b)
			var list, first []Lease
			if list, first = p.list(), p.list(); c.inQuorumList || c.inFirstList {
				p.put("lease-b", edited("b_1"))
			}
			version := joining.Version
			if c.inQuorumList {
				list = p.list()
			}
			if c.inFirstList {
				first, version = p.list(), p.server.Version()
			}
			p.step(ListResult{Op: take[ListLeases](p).Op, Outcome: OK, Leases: list})
			for _, l := range first {
				p.step(LeaseObserved{Lease: l, Listed: true})
			}
			p.step(WatchProgress{Version: version, Listed: true})
			if !c.inQuorumList && !c.inFirstList {
				p.put("lease-b", edited("b_1"))
			}
			p.show("lease-b")
			p.quiet(10*time.Second, p.all()...)
			p.run(2*MaxLeaseDuration + time.Minute)
			p.wantStates(p.all(), nil)
		})
	}
}

// R46, R49, S1: a quorum list shows b, which is active and knows of a duration of 60 s: that of y, whose
// Lease was deleted while it was cut off. Then the Lease of b is deleted, too, and the first list of the
// watch, which is sent later, is empty. The newcomer has seen that members were at work, and has read
// that 60 s are in use. So it waits for 60 s, and not only for the tombstone of b, 15 s.
func TestR49_AQuorumListBeforeAnEmptyFirstList(t *testing.T) {
	for name, void := range map[string]bool{"active": false, "void": true} {
		t.Run(name, func(t *testing.T) {
			p := newDriver(t)
			p.m, p.did = New(p.cfg), nil
			p.step(Tick{})
			p.step(Synced{})
			b := p.peerRecord("b", PhaseActive, 0, 1, 2, 3)
			b.Seq, b.Watched, b.Longest = 5, p.server.Version(), time.Minute
			if void {
				b.Holder, b.Phase, b.Claims = "", PhaseDraining, Claims{}
			}
			p.put("lease-b", b)
			p.step(GetResult{Op: take[GetLease](p).Op, Outcome: NotFound})
			create := take[CreateLease](p)
			p.step(WriteResult{Op: create.Op, Outcome: OK, Lease: p.commit(create)})
			p.step(ListResult{Op: take[ListLeases](p).Op, Outcome: OK, Leases: p.list()})
			p.remove("lease-b")
			p.server.Revision += 10
			p.show(p.cfg.Lease) // a part of the first list
			p.step(WatchProgress{Version: p.server.Version(), Listed: true})
			if p.m.knowledge.settled {
				t.Errorf("settled at once; tombstones: %d", p.m.TombstoneCount())
			}
			p.quiet(59*time.Second, p.all()...)
			p.run(5 * time.Second)
			p.wantStates(p.all(), nil)
		})
	}
}
