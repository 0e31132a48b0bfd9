// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tom-ludwig/operator-scaling/shard/internal/leaseserver"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// driver drives one machine by hand: the test is its clock, its API server and its watch,
// and decides the result of each request.
type driver struct {
	t       *testing.T
	m       *Machine
	cfg     Config
	now     Time
	did     []Action // the actions that the test has not taken yet
	server  *leaseserver.Store[Record]
	created int              // Leases
	unowned []time.Duration  // of all activations
	hang    bool             // evictions and deletions of other members' Leases get no response
	hung    []Action         // those evictions and deletions
	lists   func(ListLeases) // handles lists, if it is not nil
	watched func(Action)     // is called for each action, if it is not nil
	rings   *[]BuildRing     // where to put the requests for rings; nil: each is answered at once
}

const testPartitions = 8

func testConfig(member string) Config {
	return Config{
		Member: member, Lease: "lease-" + member, Holder: member + "_1", PodUID: "uid-" + member,
		Parameters:    ring.Parameters{Key: "name", Partitions: testPartitions, VirtualNodes: 20, Load: 1.25},
		LeaseDuration: 15 * time.Second, RenewDeadline: 9 * time.Second, RenewPeriod: 3 * time.Second,
		WatchLagLimit: 6 * time.Second, DrainTimeout: 30 * time.Second, Coalesce: 50 * time.Millisecond,
	}
}

func newDriver(t *testing.T, change ...func(*Config)) *driver {
	t.Helper()
	p := &driver{t: t, cfg: testConfig("a"), server: leaseserver.NewStore[Record]()}
	p.server.Revision = 100
	for _, c := range change {
		c(&p.cfg)
	}
	p.now = Time{Mono: time.Hour, Wall: 1_700_000_000 * time.Second}
	p.begin()
	return p
}

// begin creates the machine. Its watch begins with a list without Leases, so that it is not
// a newcomer (R49).
func (p *driver) begin() {
	p.m = New(p.cfg)
	p.step(WatchProgress{Version: "1", Listed: true})
}

// step passes the machine an event. If it requests a ring, it gets that at once.
func (p *driver) step(e Event) {
	p.t.Helper()
	for _, a := range slices.Clone(p.m.Step(p.now, e)) {
		switch a := a.(type) {
		case Activated:
			p.unowned = append(p.unowned, a.Unowned...)
		case BuildRing:
			if p.rings == nil {
				defer p.step(a.Build())
			} else {
				*p.rings = append(*p.rings, a)
			}
			continue
		}
		if p.watched != nil {
			p.watched(a)
		}
		p.did = append(p.did, a)
	}
}

// wait advances the time, with a Tick whenever the machine needs one.
func (p *driver) wait(d time.Duration) {
	p.t.Helper()
	for end := p.now.Add(d); p.now.Mono < end.Mono && p.m.stage != ended; {
		next := min(p.m.Next(), end.Mono)
		if next <= p.now.Mono {
			p.t.Fatalf("Next is %v, now it is %v", next, p.now.Mono)
		}
		p.now = p.now.Add(next - p.now.Mono)
		p.step(Tick{})
	}
}

// take returns the first action of the given type that was not taken yet, and drops the
// actions before it.
func take[T Action](p *driver) T {
	p.t.Helper()
	for i, a := range p.did {
		if found, ok := a.(T); ok {
			p.did = p.did[i+1:]
			return found
		}
	}
	var none T
	p.t.Fatalf("the machine did not return %T, but: %#v", none, p.did)
	return none
}

// none fails if the machine returned an action of the given type.
func none[T Action](p *driver) {
	p.t.Helper()
	for _, a := range p.did {
		if found, ok := a.(T); ok {
			p.t.Fatalf("the machine returned %#v", found)
		}
	}
}

// lease returns a Lease as it is on the server; the zero value if there is none.
func (p *driver) lease(name string) Lease {
	o, _ := p.server.Get(name)
	return toLease(o)
}

func toLease(o leaseserver.Object[Record]) Lease {
	return Lease{Name: o.Name, UID: o.UID, Version: o.Version, Created: o.Created, Record: o.Value}
}

func (p *driver) exists(name string) bool { return p.lease(name).Name != "" }

// put writes a Lease on the server, as the machine or another client would. The machine
// gets no event.
func (p *driver) put(name string, r Record) Lease {
	o, err := p.server.Update(name, leaseserver.Condition{}, decoded(r))
	if err != nil {
		p.created++
		o, _ = p.server.Create(name, time.Unix(int64(p.created), 0), decoded(r))
	}
	return toLease(o)
}

// decoded is a record as package lease decodes it.
func decoded(r Record) Record {
	if r.Void() {
		r.Claims = Claims{}
	}
	return r
}

// remove deletes a Lease on the server. The machine gets no event.
func (p *driver) remove(name string) { _ = p.server.Delete(name, leaseserver.Condition{}) }

// show makes the watch show a Lease as it is on the server.
func (p *driver) show(name string) {
	p.t.Helper()
	p.step(LeaseObserved{Lease: p.lease(name)})
}

// catchUp makes the watch come to the present, without an event.
func (p *driver) catchUp() {
	p.t.Helper()
	p.step(WatchProgress{Version: p.server.Version()})
}

// peer puts the Lease of another member on the server and shows it.
func (p *driver) peer(name string, phase Phase, claims ...int) Lease {
	p.t.Helper()
	l := p.put("lease-"+name, p.peerRecord(name, phase, claims...))
	p.show(l.Name)
	return l
}

func (p *driver) peerRecord(name string, phase Phase, claims ...int) Record {
	return Record{
		Member: name, Holder: name + "_1", Duration: p.cfg.LeaseDuration, Phase: phase, Newcomer: Settled,
		Parameters: p.cfg.Parameters, Fingerprint: p.cfg.Parameters.Fingerprint(),
		Claims: Claims{Parameters: p.cfg.Parameters, Set: setOf(p.cfg.Parameters.Partitions, claims...)},
	}
}

func setOf(partitions int, members ...int) ring.Set {
	s := ring.NewSet(partitions)
	for _, p := range members {
		s.Add(p)
	}
	return s
}

// commit carries out the machine's write on the server.
func (p *driver) commit(a Action) Lease {
	p.t.Helper()
	switch a := a.(type) {
	case CreateLease:
		return p.put(p.cfg.Lease, a.Record)
	case WriteLease:
		o, err := p.server.Update(p.cfg.Lease, leaseserver.At(a.UID, a.Version), decoded(a.Record))
		if err != nil {
			p.t.Fatalf("update at %s, but the Lease is at %s: %v", a.Version, p.lease(p.cfg.Lease).Version, err)
		}
		return toLease(o)
	}
	p.t.Fatalf("%T is not a write", a)
	return Lease{}
}

// serve answers every request at once, as a healthy server and watch do, until the machine
// has no more. The time does not advance.
func (p *driver) serve() {
	p.t.Helper()
	for i := 0; i < len(p.did); i++ {
		if i > 1000 {
			p.t.Fatal("the machine does not come to rest")
		}
		switch a := p.did[i].(type) {
		case GetLease:
			if l := p.lease(p.cfg.Lease); l.Name != "" {
				p.step(GetResult{Op: a.Op, Outcome: OK, Lease: l})
			} else {
				p.step(GetResult{Op: a.Op, Outcome: NotFound})
			}
		case CreateLease:
			p.step(WriteResult{Op: a.Op, Outcome: OK, Lease: p.commit(a)})
			p.show(p.cfg.Lease)
		case WriteLease:
			p.step(WriteResult{Op: a.Op, Outcome: OK, Lease: p.commit(a)})
			p.show(p.cfg.Lease)
		case ListLeases:
			if p.lists != nil {
				p.lists(a)
				continue
			}
			p.step(ListResult{Op: a.Op, Outcome: OK, Leases: p.list()})
		case DeleteLease:
			if p.hang && a.Name != p.cfg.Lease {
				p.hung = append(p.hung, a)
				continue
			}
			last := p.lease(a.Name)
			if p.server.Delete(a.Name, leaseserver.At(a.UID, a.Version)) != nil {
				p.step(DeleteResult{Op: a.Op, Outcome: Conflict})
				continue
			}
			p.step(DeleteResult{Op: a.Op, Outcome: OK})
			p.step(LeaseDeleted{Last: last})
		case EvictLease:
			if p.hang {
				p.hung = append(p.hung, a)
				continue
			}
			void := Record{Member: a.Member, PodUID: a.PodUID, Phase: PhaseDraining, EvictedBy: p.cfg.Holder}
			o, err := p.server.Update(a.Name, leaseserver.At(a.UID, a.Version), decoded(void))
			if err != nil {
				p.step(EvictResult{Op: a.Op, Outcome: Conflict})
				continue
			}
			p.step(EvictResult{Op: a.Op, Outcome: OK, Lease: toLease(o)})
			p.show(a.Name)
		case Drain:
			p.step(Idle(a))
		}
	}
	p.did = p.did[:0]
}

func (p *driver) list() (list []Lease) {
	for _, o := range p.server.List() {
		list = append(list, toLease(o))
	}
	return list
}

// run serves while the time advances.
func (p *driver) run(d time.Duration) {
	p.t.Helper()
	p.serve()
	for end := p.now.Add(d); p.now.Mono < end.Mono && p.m.stage != ended; {
		p.now = p.now.Add(min(p.m.Next(), end.Mono) - p.now.Mono)
		p.step(Tick{})
		p.serve()
	}
}

// join makes the machine a serving member that owns what it wants and has nothing in
// flight.
func (p *driver) join() *driver {
	p.t.Helper()
	p.step(Tick{})
	p.step(Synced{})
	p.run(time.Second)
	if !p.m.Serving() {
		p.t.Fatal("the machine does not serve")
	}
	return p
}

// in returns the partitions that are in the state.
func (p *driver) in(state ring.State) []int {
	list := []int{}
	for partition, s := range p.m.States() {
		if s == state {
			list = append(list, partition)
		}
	}
	return list
}

func (p *driver) wantStates(active, pending []int) {
	p.t.Helper()
	for _, c := range []struct {
		state ring.State
		want  []int
	}{{ring.Active, active}, {ring.Pending, pending}} {
		if diff := cmp.Diff(c.want, p.in(c.state), cmp.Transformer("all", func(l []int) []int { return append([]int{}, l...) })); diff != "" {
			p.t.Fatalf("%v partitions (-want +got):\n%s", c.state, diff)
		}
	}
}

// owned returns the partitions that one of the given members owns on their ring.
func (p *driver) owned(member string, members ...string) []int {
	r, err := ring.New(p.cfg.Parameters, members)
	if err != nil {
		p.t.Fatal(err)
	}
	return slices.Collect(r.Owned(member).All())
}

func (p *driver) all() []int { return slices.Collect(ring.FullSet(p.cfg.Parameters.Partitions).All()) }

func without(list, out []int) []int {
	return slices.DeleteFunc(slices.Clone(list), func(i int) bool { return slices.Contains(out, i) })
}
