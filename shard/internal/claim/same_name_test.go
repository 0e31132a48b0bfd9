// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"fmt"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

const sameName = "lease-a" // the name of the Lease of the machine that the driver drives

// other puts a Lease of the machine's name on the server: that of another process.
func (p *driver) other(holder string, claims ...int) Lease {
	r := p.peerRecord("a", PhaseActive, claims...)
	r.Holder, r.PodUID = holder, "uid-before"
	return p.put(sameName, r)
}

// release makes the Lease void, as a process that stops does.
func (p *driver) release(l Lease) Lease {
	l.Record.Holder, l.Record.Phase = "", PhaseDraining
	return p.put(l.Name, l.Record)
}

func (p *driver) gone(last Lease) { p.step(LeaseDeleted{Last: last, Final: true}) }

// create answers the requests of a machine that finds no Lease of its name. The test itself
// shows the new Lease.
func (p *driver) create() {
	p.t.Helper()
	p.now = p.now.Add(p.cfg.RenewPeriod) // the machine may read again only after a while
	p.step(Tick{})
	p.createNow()
}

// createNow is create for a machine that reads at once.
func (p *driver) createNow() {
	p.t.Helper()
	create := take[CreateLease](p.answerGet())
	p.step(WriteResult{Op: create.Op, Outcome: OK, Lease: p.commit(create)})
	p.step(Synced{})
}

// R29, R30, R31 and R43 for a Lease of the member's own name, in every order of watch events
// and read results.
func TestR30_AHeldLeaseOfTheMembersNameIsDeleted(t *testing.T) {
	everything := []int{0, 1, 2, 3, 4, 5, 6, 7}
	for _, c := range []struct {
		name   string
		config func(*Config)
		happen func(p *driver, other Lease) // until the watch shows the machine's own Lease
		blocks []int
	}{
		{"the watch shows it before a read finds nothing", nil, func(p *driver, other Lease) {
			p.step(LeaseObserved{Lease: other})
			p.remove(other.Name)
			p.gone(other)
			p.create()
		}, []int{0, 1}},
		{"a read finds nothing before the watch shows it", nil, func(p *driver, other Lease) {
			p.step(LeaseObserved{Lease: other})
			p.remove(other.Name)
			p.create()
			p.gone(other)
		}, []int{0, 1}},
		{"the watch shows nothing before its end", nil, func(p *driver, other Lease) {
			p.remove(other.Name)
			p.create()
			p.gone(other)
		}, []int{0, 1}},
		{"the watch shows more at its end", nil, func(p *driver, other Lease) {
			p.step(LeaseObserved{Lease: other})
			p.remove(other.Name)
			p.create()
			other.Record.Claims.Set.Add(2)
			p.gone(other)
		}, []int{0, 1, 2}},
		{"a list of the watch lacks it", nil, func(p *driver, other Lease) {
			p.step(LeaseObserved{Lease: other})
			p.remove(other.Name)
			p.step(LeaseDeleted{Last: other})
			p.create()
		}, everything},
		{"a list of the watch has another Lease instead", nil, func(p *driver, other Lease) {
			p.step(LeaseObserved{Lease: other})
			p.remove(other.Name)
			p.create()
		}, everything},
		{"the watch starts after its end", nil, func(p *driver, other Lease) {
			p.remove(other.Name)
			p.create()
		}, everything},
		{"two, one after the other", nil, func(p *driver, other Lease) {
			p.step(LeaseObserved{Lease: other})
			p.remove(other.Name)
			p.gone(other)
			second := p.other("a_00", 2)
			p.step(LeaseObserved{Lease: second})
			p.remove(other.Name)
			p.gone(second)
			p.create()
		}, []int{0, 1, 2}},
		{"two, and only the second is shown", nil, func(p *driver, other Lease) {
			p.remove(other.Name)
			second := p.other("a_00", 2)
			p.step(LeaseObserved{Lease: second})
			p.remove(other.Name)
			p.gone(second)
			p.create()
		}, everything},
		{"the second is released", nil, func(p *driver, other Lease) {
			p.step(LeaseObserved{Lease: other})
			p.remove(other.Name)
			p.gone(other)
			second := p.other("a_00", 2)
			p.step(LeaseObserved{Lease: second})
			void := p.release(second)
			p.step(LeaseObserved{Lease: void})
			p.remove(other.Name)
			p.gone(void)
			p.create()
		}, []int{0, 1}},
		{"it was not selected for longer than its tombstone lasts", nil, func(p *driver, other Lease) {
			p.step(LeaseObserved{Lease: other})
			p.gone(other)
			for start := p.now.Mono; p.now.Mono-start < p.cfg.LeaseDuration+time.Second; {
				other.Record.Seq++ // its process is alive
				other = p.put(other.Name, other.Record)
				p.wait(p.cfg.RenewPeriod)
				p.answerGet()
			}
			p.step(LeaseObserved{Lease: other})
			p.remove(other.Name)
			p.gone(other)
			p.create()
		}, []int{0, 1}},
		{"the lock is another Pod's", func(c *Config) { c.TakeOver = true }, func(p *driver, other Lease) {
			p.step(LeaseObserved{Lease: other})
			p.remove(other.Name)
			p.create()
			p.gone(other)
		}, []int{0, 1}},
		{"no member knows its Pod", func(c *Config) { c.TakeOver, c.PodUID = true, "" }, func(p *driver, other Lease) {
			other.Record.PodUID = ""
			p.step(LeaseObserved{Lease: other})
			p.remove(other.Name)
			p.create()
			p.gone(other)
		}, []int{0, 1}},
		{"another process of the Pod may be alive", nil, func(p *driver, other Lease) {
			other.Record.PodUID = p.cfg.PodUID
			p.step(LeaseObserved{Lease: other})
			p.remove(other.Name)
			p.create()
			p.gone(other)
		}, []int{0, 1}},
		{"a peer has seen its deletion, and this member has not", nil, func(p *driver, other Lease) {
			r := p.peerRecord("b", PhaseDraining)
			r.Tombstones, r.Watched = []Tombstone{{UID: other.UID, Holder: other.Record.Holder, Claims: other.Record.Claims, Remaining: p.cfg.LeaseDuration + p.cfg.RenewPeriod}}, "200"
			p.m = New(p.cfg)
			p.step(LeaseObserved{Lease: p.put("lease-c", p.peerRecord("c", PhaseActive)), Listed: true}) // not a cold start
			p.step(WatchProgress{Version: "200", Listed: true})
			p.step(LeaseDeleted{Last: p.lease("lease-c"), Final: true})
			p.remove("lease-c")
			p.server.Revision = 200
			p.step(LeaseObserved{Lease: p.put("lease-b", r)})
			p.remove(other.Name)
			p.create()
		}, []int{0, 1}},

		{"it was released", nil, func(p *driver, other Lease) {
			p.step(LeaseObserved{Lease: other})
			void := p.release(other)
			p.step(LeaseObserved{Lease: void})
			p.remove(other.Name)
			p.gone(void)
			p.create()
		}, nil},
		{"it was released, and a read finds nothing before the watch shows that", nil, func(p *driver, other Lease) {
			p.step(LeaseObserved{Lease: other})
			void := p.release(other)
			p.remove(other.Name)
			p.create()
			p.step(LeaseObserved{Lease: void})
			p.gone(void)
		}, nil},
		{"a read that was sent before its end is late", nil, func(p *driver, other Lease) {
			p.now = p.now.Add(p.cfg.RenewPeriod)
			p.step(LeaseObserved{Lease: other})
			get := take[GetLease](p)
			p.remove(other.Name)
			p.gone(other)
			p.step(GetResult{Op: get.Op, Outcome: OK, Lease: other})
			p.createNow()
		}, []int{0, 1}},
		{"it was released, and a read that was sent before is late", nil, func(p *driver, other Lease) {
			p.now = p.now.Add(p.cfg.RenewPeriod)
			p.step(LeaseObserved{Lease: other})
			get := take[GetLease](p)
			void := p.release(other)
			p.step(LeaseObserved{Lease: void})
			p.remove(other.Name)
			p.gone(void)
			p.step(GetResult{Op: get.Op, Outcome: OK, Lease: other})
			p.createNow()
		}, nil},
		{"it was released, as only a read has shown", nil, func(p *driver, other Lease) {
			p.step(LeaseObserved{Lease: other})
			p.release(other)
			p.now = p.now.Add(p.cfg.RenewPeriod)
			p.step(Tick{})
			p.answerGet()
			p.step(DeleteResult{Op: take[DeleteLease](p).Op, Outcome: OK})
			p.remove(other.Name)
			p.step(LeaseObserved{Lease: other}) // the watch is behind, and then skips events
			p.create()
		}, nil},
		{"it was released before the first read, and the watch is behind and skips events", nil, func(p *driver, other Lease) {
			p.release(other)
			p.begin()
			p.step(Tick{})
			p.answerGet()
			p.step(DeleteResult{Op: take[DeleteLease](p).Op, Outcome: OK})
			p.remove(other.Name)
			p.step(LeaseObserved{Lease: other})
			p.step(LeaseDeleted{Last: other})
			p.create()
		}, nil},
		{"it was released, and a peer that has missed that publishes a tombstone", nil, func(p *driver, other Lease) {
			p.step(LeaseObserved{Lease: other})
			void := p.release(other)
			p.step(LeaseObserved{Lease: void})
			r := p.peerRecord("b", PhaseDraining)
			r.Tombstones = []Tombstone{{UID: other.UID, Holder: other.Record.Holder, Claims: other.Record.Claims}}
			p.step(LeaseObserved{Lease: p.put("lease-b", r)})
			p.remove(other.Name)
			p.gone(void)
			p.create()
		}, nil},
		{"it was evicted by this member and deleted by other members", nil, func(p *driver, other Lease) {
			p.step(LeaseObserved{Lease: other})
			var evict EvictLease
			for start := p.now.Mono; evict.Op == 0 && p.now.Mono-start < time.Minute; p.wait(100 * time.Millisecond) {
				for i := 0; i < len(p.did); i++ {
					switch a := p.did[i].(type) {
					case GetLease:
						p.step(GetResult{Op: a.Op, Outcome: OK, Lease: other})
					case EvictLease:
						evict = a
					}
				}
				p.did = nil
			}
			other.Record.EvictedBy = "a_1"
			p.step(EvictResult{Op: evict.Op, Outcome: OK, Lease: p.release(other)})
			p.remove(other.Name)
			p.create()
		}, nil},
		{"this process holds the lock of its Pod", func(c *Config) { c.TakeOver, c.PodUID = true, "uid-before" }, func(p *driver, other Lease) {
			p.step(LeaseObserved{Lease: other})
			p.step(EvictResult{Op: take[EvictLease](p).Op, Outcome: NotFound}) // the machine takes over the Lease at once
			p.remove(other.Name)
			p.gone(other)
			p.create()
		}, nil},
		{"and a list of the watch lacks it", func(c *Config) { c.TakeOver, c.PodUID = true, "uid-before" }, func(p *driver, other Lease) {
			p.step(LeaseObserved{Lease: other})
			p.step(EvictResult{Op: take[EvictLease](p).Op, Outcome: NotFound})
			p.remove(other.Name)
			p.step(LeaseDeleted{Last: other})
			p.create()
		}, nil},
		{"and the watch shows nothing before its end", func(c *Config) { c.TakeOver, c.PodUID = true, "uid-before" }, func(p *driver, other Lease) {
			p.remove(other.Name)
			p.begin()
			p.step(Tick{})
			p.create()
			p.gone(other)
		}, nil},
		{"it was this process's earlier machine", func(c *Config) { c.Predecessor = "a_0" }, func(p *driver, other Lease) {
			p.step(LeaseObserved{Lease: other})
			p.step(EvictResult{Op: take[EvictLease](p).Op, Outcome: NotFound})
			p.remove(other.Name)
			p.step(LeaseDeleted{Last: other})
			p.create()
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newDriver(t, func(cfg *Config) {
				if c.config != nil {
					c.config(cfg)
				}
			})
			other := p.other("a_0", 0, 1)
			p.step(Tick{})
			p.answerGet()
			c.happen(p, other)
			if len(p.in(ring.Active)) > 0 {
				t.Fatal("partitions are active although the watch has not shown the machine's Lease")
			}
			start := p.now.Mono
			p.show(p.cfg.Lease)
			if b := p.lease("lease-b"); b.Name != "" {
				p.remove(b.Name)
				p.step(LeaseDeleted{Last: b, Final: true})
			}
			for p.now.Mono-start < p.cfg.LeaseDuration {
				p.run(500 * time.Millisecond)
				p.wantStates(without(p.all(), c.blocks), nil)
				if len(c.blocks) > 0 && p.now.Mono-start > p.cfg.LeaseDuration-p.cfg.RenewPeriod-time.Second {
					break
				}
				if got := p.lease(p.cfg.Lease).Record.Tombstones; len(got) > 0 != (len(c.blocks) > 0) {
					t.Fatalf("the published tombstones are %+v", got)
				}
			}
			p.run(4 * time.Second)
			p.wantStates(p.all(), nil)
		})
	}
}

// A machine loses its Lease to another process, whose Lease is deleted, too. The next machine
// must know of that process.
func TestR30_TheNextMachineKnowsTheOtherHoldersOfItsName(t *testing.T) {
	for _, c := range []struct {
		name   string
		happen func(p *driver, other Lease)
		blocks []int
	}{
		{"the watch shows its end", func(p *driver, other Lease) {
			p.step(LeaseObserved{Lease: other})
			p.gone(other)
		}, []int{0, 1}},
		{"a list of the watch lacks it", func(p *driver, other Lease) {
			p.step(LeaseObserved{Lease: other})
			p.step(LeaseDeleted{Last: other})
		}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"only a read has shown it", func(p *driver, other Lease) {
			p.now = p.now.Add(p.cfg.RenewPeriod)
			p.step(Tick{})
			p.step(WriteResult{Op: take[WriteLease](p).Op, Outcome: Conflict})
			p.step(GetResult{Op: take[GetLease](p).Op, Outcome: OK, Lease: other})
		}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"only a list has shown it", func(p *driver, other Lease) {
			p.m.list.op = 99 // as if one were in flight
			p.step(ListResult{Op: 99, Outcome: OK, Leases: []Lease{other}})
		}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newDriver(t).join()
			own := p.lease(p.cfg.Lease)
			p.remove(own.Name)
			c.happen(p, p.other("a_0", 0, 1))
			next := newDriver(t, func(cfg *Config) {
				cfg.Holder, cfg.Predecessor, cfg.Tombstones = "a_2", "a_1", p.m.Tombstones()
			})
			next.step(Tick{})
			next.step(Synced{})
			next.step(LeaseDeleted{Last: own})
			next.run(2 * time.Second)
			next.wantStates(without(next.all(), c.blocks), nil)
			next.run(next.cfg.LeaseDuration)
			next.wantStates(next.all(), nil)
		})
	}
}

// A newcomer adopts the tombstones on a Lease of its name, too. It may be the only member left
// that can know of them.
func TestR49_TombstonesOnALeaseOfTheMembersName(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Record)
		want   int
	}{
		{"of the same Pod", func(r *Record) { r.PodUID = "uid-a" }, 1},
		{"of another Pod", func(*Record) {}, 1},
		{"released", func(r *Record) { r.Holder, r.Phase = "", PhaseDraining }, 1},
		{"evicted", func(r *Record) { r.Holder, r.EvictedBy = "", "c_1" }, 0},
		{"edited", func(r *Record) { r.PodUID, r.Edited = "uid-a", true }, 0},
	} {
		for _, read := range []bool{false, true} {
			p := newDriver(t, func(c *Config) { c.TakeOver = true })
			l := p.other("a_0", 0, 1)
			l.Record.Tombstones = []Tombstone{{UID: "lease-uid-b", Holder: "b_1", Claims: l.Record.Claims, Remaining: time.Second}}
			c.change(&l.Record)
			l = p.put(l.Name, l.Record)
			p.m = New(p.cfg)
			p.did = nil
			p.step(Tick{})
			if read {
				p.answerGet()
			} else {
				p.step(LeaseObserved{Lease: l, Listed: true})
			}
			if got := p.m.tombstonesNow(); len(got) != c.want {
				t.Errorf("%s, read %v: the tombstones are %+v", c.name, read, got)
			}
		}
	}
}

// A list of the watch has another process's Lease instead of one that was held. The time of
// the first one's tombstone counts from that list, not from the end of the second one.
func TestR30_ATombstoneCountsFromTheListThatLacksTheLease(t *testing.T) {
	p := newDriver(t)
	first := p.other("a_0", 0, 1)
	p.step(Tick{})
	p.answerGet()
	p.step(LeaseObserved{Lease: first})
	p.remove(first.Name)
	second := p.other("a_00", 2)
	p.step(LeaseObserved{Lease: second})
	if len(p.m.tombstonesNow()) != 1 {
		t.Fatal("there is no tombstone")
	}
	p.wait(p.cfg.LeaseDuration)
	void := p.release(second)
	p.step(LeaseObserved{Lease: void})
	p.remove(void.Name)
	p.gone(void)
	p.did = append(p.did, GetLease{Op: p.m.own.op.id})
	p.create()
	p.show(p.cfg.Lease)
	p.run(time.Second)
	p.wantStates(p.all(), nil)
}

// After a restore of the database, another Lease of the name may have a higher version than
// this member's. If the watch shows it, that does not prove that the watch is fresh.
func TestR33_AnotherLeaseOfTheNameDoesNotProveAFreshWatch(t *testing.T) {
	p := newDriver(t)
	p.step(Tick{})
	p.create()
	other := p.lease(p.cfg.Lease)
	other.UID, other.Version, other.Record.Holder = "other", "9999", "a_0"
	p.step(LeaseObserved{Lease: other})
	if p.m.WatchFresh() {
		t.Error("the watch counts as fresh")
	}
	p.show(p.cfg.Lease)
	if !p.m.WatchFresh() {
		t.Error("the watch does not count as fresh")
	}
}

// Another process of this member's name works, and the void record of an earlier Lease is
// applied to its Lease: this member neither deletes that Lease nor forgets the process
// (R3, R30, R32).
func TestR30_ACopiedVoidRecordOnTheOtherProcessesLease(t *testing.T) {
	p := newDriver(t)
	r := p.peerRecord("a", PhaseActive, p.all()...)
	r.Holder, r.PodUID, r.Seq = "a_0", "uid-other", 5
	l := p.put(p.cfg.Lease, r)
	p.show(l.Name)
	p.step(Tick{})
	p.step(Synced{})
	p.run(time.Second)
	l = p.put(l.Name, Record{Member: "a", Phase: PhaseDraining, Copied: true})
	p.show(l.Name)
	start := p.now.Mono
	for p.now.Mono-start < 14*time.Second {
		p.run(500 * time.Millisecond)
		if p.lease(l.Name).UID != l.UID {
			t.Fatalf("%v after the edit, the Lease of the other process was replaced", p.now.Mono-start)
		}
	}
	p.run(5 * time.Second)
	p.wantStates(p.all(), nil)
}

// The same, but the machine that has seen the other process at work ends before the next one of this
// process reads that Lease (R64): the next one judges the void record as that one did.
func TestR64_ACopiedVoidRecordOnTheOtherProcessesLeaseBetweenTwoMachines(t *testing.T) {
	for _, seen := range []bool{false, true} { // whether the machine that ends has seen the void record, too
		t.Run(fmt.Sprint(seen), func(t *testing.T) {
			p := newDriver(t).join()
			own := p.lease(p.cfg.Lease)
			p.remove(own.Name)
			p.gone(own)
			r := p.peerRecord("a", PhaseActive, p.all()...)
			r.Holder, r.PodUID, r.Seq = "a_0", "uid-other", 5
			p.put(own.Name, r)
			p.show(own.Name)
			l := p.put(own.Name, Record{Member: "a", Phase: PhaseDraining, Copied: true})
			if seen {
				p.show(own.Name)
			}
			before := p.m
			p.cfg.Predecessor, p.cfg.Holder = p.cfg.Holder, "a_2"
			p.cfg.Tombstones, p.cfg.Knowledge = before.Tombstones(), before.Knowledge()
			p.m, p.did = New(p.cfg), nil
			p.step(Tick{})
			p.show(own.Name)
			p.step(Synced{})
			start := p.now.Mono
			for p.now.Mono-start < 14*time.Second {
				p.run(500 * time.Millisecond)
				p.wantStates(nil, nil)
				if p.lease(l.Name).UID != l.UID {
					t.Fatalf("%v after the edit, the Lease of the other process was replaced", p.now.Mono-start)
				}
			}
			p.run(5 * time.Second)
			p.wantStates(p.all(), nil)
		})
	}
}

// R43, R64: a member's Lease is deleted. Another process of its name creates its own, and stops. The watch
// shows all that before the response to a read, or to a quorum list, that was sent meanwhile. It
// leaves the next machine no tombstone.
func TestR43_ALateResponseBringsBackNoLeaseOfTheMembersName(t *testing.T) {
	for _, listed := range []bool{false, true} {
		p, claim := claimNext(t)
		if listed {
			p.step(WriteResult{Op: claim.Op, Outcome: OK, Lease: p.commit(claim)})
		} else {
			p.step(WriteResult{Op: claim.Op, Outcome: Conflict})
		}
		mine := p.lease(p.cfg.Lease)
		p.remove(mine.Name)
		other := p.other("a_2", 0)
		leases := p.list()
		void := p.release(other)
		p.remove(other.Name)
		p.gone(mine)
		p.step(LeaseObserved{Lease: void})
		p.gone(void)
		if listed {
			p.step(ListResult{Op: take[ListLeases](p).Op, Outcome: OK, Leases: leases})
		} else {
			p.step(GetResult{Op: take[GetLease](p).Op, Outcome: OK, Lease: other})
		}
		if list := p.m.Tombstones(); len(list) > 0 {
			t.Errorf("in a list: %v: the tombstones are %+v", listed, list)
		}
	}
}

// R3, R43: only the label of the ring was removed from the Lease of another process, which the watch
// shows as its end. A read that is sent after that counts: the member does not read again at once.
func TestR43_AReadThatIsSentAfterTheEndCounts(t *testing.T) {
	p := newDriver(t)
	other := p.other("a_0", 0)
	p.step(Tick{})
	p.gone(other)
	p.answerGet() // sent before
	p.answerGet()
	none[GetLease](p)
}
