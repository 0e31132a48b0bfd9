// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// script turns the fuzzer's bytes into events: in any order and with any content, including
// responses to no request.
type script struct {
	data []byte
	p    *driver
}

func (s *script) byte() byte {
	if len(s.data) == 0 {
		return 0
	}
	b := s.data[0]
	s.data = s.data[1:]
	return b
}

func (s *script) pick(n int) int { return int(s.byte()) % n }

func (s *script) set() ring.Set {
	set := ring.NewSet([]int{0, 1, 8, 8, 8, 13}[s.pick(6)])
	for b := s.byte(); b != 0; b &= b - 1 {
		set.Add(int(b))
	}
	for i := range s.pick(8) {
		set.Add(i)
	}
	return set
}

func (s *script) claims() Claims {
	c := Claims{Everything: s.pick(8) == 0, Set: s.set()}
	c.Parameters = ring.Parameters{Key: []string{"name", "name", "namespace", ""}[s.pick(4)], Partitions: c.Set.Partitions(), VirtualNodes: 3, Load: 1.25}
	return c
}

func (s *script) record() Record {
	name := []string{"a", "b", "c", ""}[s.pick(4)]
	r := Record{
		Member: name, Holder: fmt.Sprintf("%s_%d", name, s.pick(3)), PodUID: []string{"", "uid-a", "x"}[s.pick(3)],
		Duration: time.Duration(s.pick(4)-1) * 7 * time.Second,
		Phase:    []Phase{PhaseJoining, PhaseActive, PhaseDraining, "?"}[s.pick(4)],
		Seq:      uint64(s.byte()), Claims: s.claims(),
	}
	r.Parameters = r.Claims.Parameters
	switch s.pick(6) {
	case 0:
		r.Holder = ""
	case 1:
		r.Holder = s.p.cfg.Holder
	case 2:
		r.Parameters = ring.Parameters{}
	case 3:
		r.Parameters = s.p.cfg.Parameters
	}
	r.Watermarks = s.watermarks()
	for range s.pick(3) {
		r.Tombstones = append(r.Tombstones, Tombstone{UID: "lease-uid-x", Holder: fmt.Sprint(s.pick(4)), Claims: s.claims()})
	}
	return r
}

func (s *script) watermarks() Watermarks {
	watermarks := Watermarks{}
	for range s.pick(3) {
		watermarks[[]string{"", "A", "B", "C"}[s.pick(4)]] = []string{"", "0", "9", "100", "101", "x"}[s.pick(6)]
	}
	return watermarks
}

func (s *script) lease() Lease {
	l := Lease{
		Name: "lease-" + []string{"a", "b", "c", "d"}[s.pick(4)], UID: fmt.Sprint("lease-", s.pick(3)),
		Version: []string{"", "0", "9", "101", "102", "103", "999", "x"}[s.pick(8)],
		Created: time.Unix(int64(s.pick(3)), 0), Record: s.record(),
	}
	if s.pick(3) == 0 {
		if own := s.p.lease(s.p.cfg.Lease); own.Name != "" {
			l = own
		}
	}
	return l
}

func (s *script) leases() []Lease {
	var list []Lease
	for range s.pick(4) {
		list = append(list, s.lease())
	}
	return list
}

func (s *script) outcome() Outcome { return Outcome(s.pick(6)) }

// op is mostly one of the latest requests.
func (s *script) op() uint64 { return s.p.m.lastOp - uint64(s.pick(4)) }

func (s *script) event() Event {
	switch s.pick(15) {
	case 0:
		return LeaseObserved{Lease: s.lease()}
	case 1:
		return LeaseDeleted{Last: s.lease()}
	case 2:
		return Synced{}
	case 3:
		return Idle{Partitions: s.set()}
	case 4:
		return GetResult{Op: s.op(), Outcome: s.outcome(), Lease: s.lease()}
	case 5:
		return WriteResult{Op: s.op(), Outcome: s.outcome(), Lease: s.lease()}
	case 6:
		return DeleteResult{Op: s.op(), Outcome: s.outcome()}
	case 7:
		return ListResult{Op: s.op(), Outcome: s.outcome(), Leases: s.leases()}
	case 8:
		return EvictResult{Op: s.op(), Outcome: s.outcome(), Lease: s.lease()}
	case 9:
		if s.pick(8) == 0 {
			return Stop{}
		}
	case 10:
		return nil
	case 11:
		return WatermarksReached{Watermarks: s.watermarks()}
	}
	return Tick{}
}

// FuzzStep is C7: no event makes the machine panic, and whatever events it gets, it keeps
// the guarantees that do not depend on correct events.
func FuzzStep(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x0d\x02\x0d\x04\x05\x00\x00"))
	for i := range 8 {
		seed := make([]byte, 300)
		for j := range seed {
			seed[j] = byte(j*(2*i+1) ^ i<<3)
		}
		f.Add(seed)
	}
	f.Fuzz(playScript)
}

// TestC7_NoEventMakesTheMachinePanic runs long random scripts, which the fuzzer rarely
// generates by itself.
func TestC7_NoEventMakesTheMachinePanic(t *testing.T) {
	r := rand.NewChaCha8([32]byte{7})
	for range 2000 {
		data := make([]byte, 1000)
		_, _ = r.Read(data)
		playScript(t, data)
	}
}

func playScript(t *testing.T, data []byte) {
	s := &script{data: data}
	s.p = newDriver(t, func(c *Config) {
		c.TakeOver, c.Quarantine = s.pick(2) == 0, s.pick(4) == 0
		c.StartupSettle = time.Duration(s.pick(3)) * 200 * time.Millisecond
		c.CacheSyncTimeout = time.Duration(s.pick(3)) * 500 * time.Millisecond
	})
	p := s.p
	if s.pick(2) == 0 {
		p.join()
	}
	caller := newCaller(p)
	for len(s.data) > 0 {
		switch s.pick(6) {
		case 0:
			p.now = p.now.Add(time.Duration(s.pick(200)) * 20 * time.Millisecond)
		case 1:
			p.now.Wall += time.Duration(s.pick(256)-128) * time.Second
		}
		honest := s.pick(2) == 0
		p.step(s.event())
		caller.carryOut(honest)
	}
}

// caller tracks the actions as the loop in package shard does, and fails if they cannot be
// carried out.
type caller struct {
	p      *driver
	states map[int]ring.State
	ended  bool
	fenced bool
	ops    map[uint64]bool
}

func newCaller(p *driver) *caller {
	c := &caller{p: p, states: map[int]ring.State{}, ops: map[uint64]bool{}, fenced: true}
	for partition, s := range p.m.States() {
		c.states[partition] = s
	}
	_, open := p.m.Fence()
	c.fenced = !open
	return c
}

// carryOut handles the actions of the last step. If honest is true, it answers requests.
func (c *caller) carryOut(honest bool) {
	p := c.p
	p.t.Helper()
	for i := 0; i < len(p.did) && i < 500; i++ {
		if c.ended {
			p.t.Fatalf("%#v after the end", p.did[i])
		}
		switch a := p.did[i].(type) {
		case GetLease:
			c.asked(a.Op)
			if honest {
				l, exists := p.lease(p.cfg.Lease), p.exists(p.cfg.Lease)
				outcome := NotFound
				if exists {
					outcome = OK
				}
				p.step(GetResult{Op: a.Op, Outcome: outcome, Lease: l})
			}
		case CreateLease:
			c.asked(a.Op)
			if exists := p.exists(p.cfg.Lease); honest && !exists {
				p.step(WriteResult{Op: a.Op, Outcome: OK, Lease: p.put(p.cfg.Lease, a.Record)})
			}
		case WriteLease:
			c.asked(a.Op)
			for partition, s := range c.states {
				if s != ring.NotOwned && !a.Record.Claims.Set.Has(partition) {
					p.t.Fatalf("the claim to partition %d was withdrawn while it is %v", partition, s)
				}
			}
			if l := p.lease(p.cfg.Lease); honest && l.UID == a.UID && l.Version == a.Version {
				p.step(WriteResult{Op: a.Op, Outcome: OK, Lease: p.put(p.cfg.Lease, a.Record)})
			}
		case DeleteLease:
			c.asked(a.Op)
			if honest {
				p.step(DeleteResult{Op: a.Op, Outcome: OK})
			}
		case EvictLease:
			c.asked(a.Op)
			if honest {
				p.step(EvictResult{Op: a.Op, Outcome: Conflict})
			}
		case ListLeases:
			c.asked(a.Op)
			if honest {
				p.step(ListResult{Op: a.Op, Outcome: OK, Leases: p.list()})
			}
		case Claimed:
			c.move(a.Partitions, ring.NotOwned, ring.Pending)
		case Activated:
			c.move(a.Partitions, ring.Pending, ring.Active)
			if c.fenced {
				p.t.Fatal("partitions were activated while fenced")
			}
		case Drain:
			c.move(a.Partitions, ring.Active, ring.Pending)
		case Released:
			c.move(a.Partitions, ring.Pending, ring.NotOwned)
		case Fenced:
			if c.fenced {
				p.t.Fatal("fenced twice")
			}
			c.fenced = true
		case Unfenced:
			if !c.fenced {
				p.t.Fatal("unfenced twice")
			}
			c.fenced = false
		case Ended:
			c.ended = true
		}
	}
	p.did = p.did[:0]
	if c.ended {
		return
	}
	if fence, open := p.m.Fence(); open == c.fenced || open && p.m.now.Reached(fence) {
		p.t.Fatalf("Fence returns %v, %v; by the actions fenced is %v", fence, open, c.fenced)
	}
	states := p.m.States()
	if len(states) != len(c.states) { // other partitions
		for partition, s := range c.states {
			if s != ring.NotOwned {
				p.t.Fatalf("the partition count changed while partition %d is %v", partition, s)
			}
		}
		c.states = map[int]ring.State{}
	}
	for partition, s := range states {
		if c.states[partition] != s {
			p.t.Fatalf("partition %d is %v, by the actions %v", partition, s, c.states[partition])
		}
		c.states[partition] = s
	}
	if next := p.m.Next(); next <= p.m.now.Mono {
		p.t.Fatalf("Next is %v, not after %v", next, p.m.now.Mono)
	}
	if pending := p.m.PendingWatermarks(); honest && pending != nil {
		p.step(WatermarksReached{Watermarks: pending})
		if p.m.PendingWatermarks() != nil {
			p.t.Fatalf("%v are pending after %v were reported as reached", p.m.PendingWatermarks(), pending)
		}
		c.carryOut(false)
	}
	p.m.Blockers()
	p.m.Peers()
}

func (c *caller) move(set ring.Set, from, to ring.State) {
	c.p.t.Helper()
	for partition := range set.All() {
		if c.states[partition] != from {
			c.p.t.Fatalf("partition %d changes to %v from %v instead of %v", partition, to, c.states[partition], from)
		}
		c.states[partition] = to
	}
}

func (c *caller) asked(op uint64) {
	c.p.t.Helper()
	if op == 0 || c.ops[op] {
		c.p.t.Fatalf("operation %d was requested twice", op)
	}
	c.ops[op] = true
}
