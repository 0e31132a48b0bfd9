// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

const rivalName = "lease-a" // the name of the Lease of the machine that pilot drives

// rival puts a Lease of the machine's name on the server: that of another process.
func (p *driver) rival(holder string, claims ...int) Lease {
	r := p.peerRecord("a", PhaseActive, claims...)
	r.Holder, r.PodUID = holder, "uid-before"
	return p.put(rivalName, r)
}

// release makes the Lease void, as a process that stops does.
func (p *driver) release(l Lease) Lease {
	l.Record.Holder, l.Record.Phase = "", PhaseDraining
	return p.put(l.Name, l.Record)
}

// remove takes a Lease off the server. The watch does not show it.
func (p *driver) remove(name string) { delete(p.leases, name) }

func (p *driver) gone(last Lease) { p.step(LeaseDeleted{Last: last, Final: true}) }

// create answers the requests of a machine that finds no Lease of its name, and leaves
// it to the test to show the new one.
func (p *driver) create() {
	p.t.Helper()
	p.now = p.now.Add(p.cfg.RenewPeriod) // it may only look again after a while
	p.step(Tick{})
	create := take[CreateLease](p.answerGet())
	p.step(WriteResult{Op: create.Op, Outcome: OK, Lease: p.commit(create)})
	p.step(Synced{})
}

// R29, R30, R31 and R43 for a Lease of the member's own name, in every order of what
// the watch shows and what reads find.
func TestR30_AHeldLeaseOfTheOwnNameVanishes(t *testing.T) {
	everything := []int{0, 1, 2, 3, 4, 5, 6, 7}
	for _, c := range []struct {
		name   string
		config func(*Config)
		happen func(p *driver, rival Lease) // until the machine's own Lease is to be shown
		blocks []int
	}{
		{"the watch shows it before a read finds nothing", nil, func(p *driver, rival Lease) {
			p.step(LeaseObserved{rival})
			p.remove(rival.Name)
			p.gone(rival)
			p.create()
		}, []int{0, 1}},
		{"a read finds nothing before the watch shows it", nil, func(p *driver, rival Lease) {
			p.step(LeaseObserved{rival})
			p.remove(rival.Name)
			p.create()
			p.gone(rival)
		}, []int{0, 1}},
		{"the watch shows nothing before its end", nil, func(p *driver, rival Lease) {
			p.remove(rival.Name)
			p.create()
			p.gone(rival)
		}, []int{0, 1}},
		{"the watch shows more at its end", nil, func(p *driver, rival Lease) {
			p.step(LeaseObserved{rival})
			p.remove(rival.Name)
			p.create()
			rival.Record.Claims.Set.Add(2)
			p.gone(rival)
		}, []int{0, 1, 2}},
		{"a list of the watch lacks it", nil, func(p *driver, rival Lease) {
			p.step(LeaseObserved{rival})
			p.remove(rival.Name)
			p.step(LeaseDeleted{Last: rival})
			p.create()
		}, everything},
		{"a list of the watch has another in its place", nil, func(p *driver, rival Lease) {
			p.step(LeaseObserved{rival})
			p.remove(rival.Name)
			p.create()
		}, everything},
		{"the watch starts after its end", nil, func(p *driver, rival Lease) {
			p.remove(rival.Name)
			p.create()
		}, everything},
		{"two, one after the other", nil, func(p *driver, rival Lease) {
			p.step(LeaseObserved{rival})
			p.remove(rival.Name)
			p.gone(rival)
			second := p.rival("a_00", 2)
			p.step(LeaseObserved{second})
			p.remove(rival.Name)
			p.gone(second)
			p.create()
		}, []int{0, 1, 2}},
		{"two, and only the second is shown", nil, func(p *driver, rival Lease) {
			p.remove(rival.Name)
			second := p.rival("a_00", 2)
			p.step(LeaseObserved{second})
			p.remove(rival.Name)
			p.gone(second)
			p.create()
		}, everything},
		{"the second is released", nil, func(p *driver, rival Lease) {
			p.step(LeaseObserved{rival})
			p.remove(rival.Name)
			p.gone(rival)
			second := p.rival("a_00", 2)
			p.step(LeaseObserved{second})
			void := p.release(second)
			p.step(LeaseObserved{void})
			p.remove(rival.Name)
			p.gone(void)
			p.create()
		}, []int{0, 1}},
		{"it was not selected for a while, longer than its tombstone lasts", nil, func(p *driver, rival Lease) {
			p.step(LeaseObserved{rival})
			p.gone(rival)
			for start := p.now.Mono; p.now.Mono-start < p.cfg.LeaseDuration+time.Second; {
				rival = p.rival("a_0", 0, 1) // it is alive
				p.wait(p.cfg.RenewPeriod)
				p.answerGet()
			}
			p.step(LeaseObserved{rival})
			p.remove(rival.Name)
			p.gone(rival)
			p.create()
		}, []int{0, 1}},
		{"the lock is another Pod's", func(c *Config) { c.TakeOver = true }, func(p *driver, rival Lease) {
			p.step(LeaseObserved{rival})
			p.remove(rival.Name)
			p.create()
			p.gone(rival)
		}, []int{0, 1}},
		{"no member knows its Pod", func(c *Config) { c.TakeOver, c.PodUID = true, "" }, func(p *driver, rival Lease) {
			rival.Record.PodUID = ""
			p.step(LeaseObserved{rival})
			p.remove(rival.Name)
			p.create()
			p.gone(rival)
		}, []int{0, 1}},
		{"another process of the Pod may be alive", nil, func(p *driver, rival Lease) {
			rival.Record.PodUID = p.cfg.PodUID
			p.step(LeaseObserved{rival})
			p.remove(rival.Name)
			p.create()
			p.gone(rival)
		}, []int{0, 1}},
		{"a peer has seen it vanish, and this member has not", nil, func(p *driver, rival Lease) {
			r := p.peerRecord("b", PhaseDraining)
			r.Tombstones = []Tombstone{{Lease: rival.Name, Holder: rival.Record.Holder, Claims: rival.Record.Claims}}
			p.m = New(p.cfg)
			p.step(Tick{})
			p.step(LeaseObserved{p.put("lease-b", r)})
			p.remove(rival.Name)
			p.create()
		}, []int{0, 1}},

		{"it was released", nil, func(p *driver, rival Lease) {
			p.step(LeaseObserved{rival})
			void := p.release(rival)
			p.step(LeaseObserved{void})
			p.remove(rival.Name)
			p.gone(void)
			p.create()
		}, nil},
		{"it was released, and a read finds nothing before the watch shows that", nil, func(p *driver, rival Lease) {
			p.step(LeaseObserved{rival})
			void := p.release(rival)
			p.remove(rival.Name)
			p.create()
			p.step(LeaseObserved{void})
			p.gone(void)
		}, nil},
		{"it was released, as only a read has shown", nil, func(p *driver, rival Lease) {
			p.step(LeaseObserved{rival})
			p.release(rival)
			p.now = p.now.Add(p.cfg.RenewPeriod)
			p.step(Tick{})
			p.answerGet()
			p.step(DeleteResult{Op: take[DeleteLease](p).Op, Outcome: OK})
			p.remove(rival.Name)
			p.step(LeaseObserved{rival}) // the watch is behind, and then jumps
			p.create()
		}, nil},
		{"it was released before the first read, and the watch is behind, and jumps", nil, func(p *driver, rival Lease) {
			p.release(rival)
			p.m = New(p.cfg)
			p.step(Tick{})
			p.answerGet()
			p.step(DeleteResult{Op: take[DeleteLease](p).Op, Outcome: OK})
			p.remove(rival.Name)
			p.step(LeaseObserved{rival})
			p.step(LeaseDeleted{Last: rival})
			p.create()
		}, nil},
		{"it was released, and a peer that has missed that believes that it vanished", nil, func(p *driver, rival Lease) {
			p.step(LeaseObserved{rival})
			void := p.release(rival)
			p.step(LeaseObserved{void})
			r := p.peerRecord("b", PhaseDraining)
			r.Tombstones = []Tombstone{{Lease: rival.Name, Holder: rival.Record.Holder, Claims: rival.Record.Claims}}
			p.step(LeaseObserved{p.put("lease-b", r)})
			p.remove(rival.Name)
			p.gone(void)
			p.create()
		}, nil},
		{"it was evicted by this member, and deleted by others", nil, func(p *driver, rival Lease) {
			p.step(LeaseObserved{rival})
			var evict EvictLease
			for start := p.now.Mono; evict.Op == 0 && p.now.Mono-start < time.Minute; p.wait(100 * time.Millisecond) {
				for i := 0; i < len(p.did); i++ {
					switch a := p.did[i].(type) {
					case GetLease:
						p.step(GetResult{Op: a.Op, Outcome: OK, Lease: rival})
					case EvictLease:
						evict = a
					}
				}
				p.did = nil
			}
			rival.Record.EvictedBy = "a_1"
			p.step(EvictResult{Op: evict.Op, Outcome: OK, Lease: p.release(rival)})
			p.remove(rival.Name)
			p.create()
		}, nil},
		{"this process holds the lock of its Pod", func(c *Config) { c.TakeOver, c.PodUID = true, "uid-before" }, func(p *driver, rival Lease) {
			p.step(LeaseObserved{rival})
			p.step(EvictResult{Op: take[EvictLease](p).Op, Outcome: NotFound}) // it takes the Lease over at once
			p.remove(rival.Name)
			p.gone(rival)
			p.create()
		}, nil},
		{"and a list of the watch lacks it", func(c *Config) { c.TakeOver, c.PodUID = true, "uid-before" }, func(p *driver, rival Lease) {
			p.step(LeaseObserved{rival})
			p.step(EvictResult{Op: take[EvictLease](p).Op, Outcome: NotFound})
			p.remove(rival.Name)
			p.step(LeaseDeleted{Last: rival})
			p.create()
		}, nil},
		{"and the watch shows nothing before its end", func(c *Config) { c.TakeOver, c.PodUID = true, "uid-before" }, func(p *driver, rival Lease) {
			p.remove(rival.Name)
			p.m = New(p.cfg)
			p.step(Tick{})
			p.create()
			p.gone(rival)
		}, nil},
		{"it was this process's earlier machine", func(c *Config) { c.Predecessor = "a_0" }, func(p *driver, rival Lease) {
			p.step(LeaseObserved{rival})
			p.step(EvictResult{Op: take[EvictLease](p).Op, Outcome: NotFound})
			p.remove(rival.Name)
			p.step(LeaseDeleted{Last: rival})
			p.create()
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newDriver(t, func(cfg *Config) {
				if c.config != nil {
					c.config(cfg)
				}
			})
			rival := p.rival("a_0", 0, 1)
			p.step(Tick{})
			p.answerGet()
			c.happen(p, rival)
			if len(p.in(ring.Active)) > 0 {
				t.Fatal("works although its watch has not shown its Lease")
			}
			start := p.now.Mono
			p.show(p.cfg.Lease)
			if b, exists := p.leases["lease-b"]; exists {
				delete(p.leases, b.Name)
				p.step(LeaseDeleted{Last: b, Final: true})
			}
			for p.now.Mono-start < p.cfg.LeaseDuration {
				p.run(500 * time.Millisecond)
				p.wantStates(without(p.all(), c.blocks), nil)
				if len(c.blocks) > 0 && p.now.Mono-start > p.cfg.LeaseDuration-p.cfg.RenewPeriod-time.Second {
					break
				}
				if got := p.leases[p.cfg.Lease].Record.Tombstones; len(got) > 0 != (len(c.blocks) > 0) {
					t.Fatalf("publishes the tombstones %+v", got)
				}
			}
			p.run(4 * time.Second)
			p.wantStates(p.all(), nil)
		})
	}
}

// A machine that holds its Lease loses it to another process, whose Lease vanishes too.
// The machine that follows must know.
func TestR30_TheNextMachineKnowsWhoHadItsName(t *testing.T) {
	for _, c := range []struct {
		name   string
		happen func(p *driver, rival Lease)
		blocks []int
	}{
		{"the watch shows its end", func(p *driver, rival Lease) {
			p.step(LeaseObserved{rival})
			p.gone(rival)
		}, []int{0, 1}},
		{"a list of the watch lacks it", func(p *driver, rival Lease) {
			p.step(LeaseObserved{rival})
			p.step(LeaseDeleted{Last: rival})
		}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"only a read has shown it", func(p *driver, rival Lease) {
			p.now = p.now.Add(p.cfg.RenewPeriod)
			p.step(Tick{})
			p.step(WriteResult{Op: take[WriteLease](p).Op, Outcome: Conflict})
			p.step(GetResult{Op: take[GetLease](p).Op, Outcome: OK, Lease: rival})
		}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"only a list has shown it", func(p *driver, rival Lease) {
			p.m.list.op = 99 // as if one were in flight
			p.step(ListResult{Op: 99, Outcome: OK, Leases: []Lease{rival}})
		}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newDriver(t).join()
			own := p.leases[p.cfg.Lease]
			p.remove(own.Name)
			c.happen(p, p.rival("a_0", 0, 1))
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

// A Lease of the member's name brings the tombstones that its holder knew of, unless
// they must have run out long ago.
func TestR30_TombstonesOnALeaseOfTheOwnName(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Record)
		want   int
	}{
		{"held", func(*Record) {}, 1},
		{"released", func(r *Record) { r.Holder = "" }, 1},
		{"evicted", func(r *Record) { r.Holder, r.EvictedBy = "", "c_1" }, 0},
	} {
		for _, read := range []bool{false, true} {
			p := newDriver(t)
			l := p.rival("a_0", 0, 1)
			l.Record.Tombstones = []Tombstone{{Lease: "lease-b", Holder: "b_1", Claims: l.Record.Claims}}
			c.change(&l.Record)
			l = p.put(l.Name, l.Record)
			p.step(Tick{})
			if read {
				p.answerGet()
			} else {
				p.step(LeaseObserved{l})
			}
			if got := p.m.tombstoneList(); len(got) != c.want {
				t.Errorf("%s, read %v: the tombstones are %+v", c.name, read, got)
			}
		}
	}
}

// A list of the watch has another process's Lease in the place of one that was held.
// The first one's tombstone counts from then on, not from when the second one leaves.
func TestR30_ATombstoneCountsFromTheListThatLacksTheLease(t *testing.T) {
	p := newDriver(t)
	first := p.rival("a_0", 0, 1)
	p.step(Tick{})
	p.answerGet()
	p.step(LeaseObserved{first})
	p.remove(first.Name)
	second := p.rival("a_00", 2)
	p.step(LeaseObserved{second})
	if len(p.m.tombstoneList()) != 1 {
		t.Fatal("there is no tombstone")
	}
	p.wait(p.cfg.LeaseDuration)
	void := p.release(second)
	p.step(LeaseObserved{void})
	p.remove(void.Name)
	p.gone(void)
	p.did = append(p.did, GetLease{Op: p.m.own.op.id})
	p.create()
	p.show(p.cfg.Lease)
	p.run(time.Second)
	p.wantStates(p.all(), nil)
}

// After a restore of the database another Lease of the name may have a higher version
// than this member's: that the watch shows it does not prove the watch.
func TestR33_AnotherLeaseOfTheNameDoesNotProveTheWatch(t *testing.T) {
	p := newDriver(t)
	p.step(Tick{})
	p.create()
	other := p.leases[p.cfg.Lease]
	other.UID, other.Version, other.Record.Holder = "other", "9999", "a_0"
	p.step(LeaseObserved{other})
	if p.m.WatchFresh() {
		t.Error("the watch counts as fresh")
	}
	p.show(p.cfg.Lease)
	if !p.m.WatchFresh() {
		t.Error("the watch does not count as fresh")
	}
}
