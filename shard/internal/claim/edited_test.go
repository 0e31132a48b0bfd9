// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"slices"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// edited is a record that another client has edited, as package lease decodes it.
func edited(holder string) Record {
	return Record{Edited: true, Holder: holder, Phase: PhaseDraining, Claims: Claims{Everything: true}}
}

// A member's record is edited while its process works, and cannot be written again. Until the
// duration that its holder had declared has passed, it claims everything; then the holder is
// evicted (R32, R45, R46).
func TestR32_AnEditedRecordClaimsEverythingForItsDuration(t *testing.T) {
	for name, change := range map[string]func(*driver, Record) Record{
		"the holder is removed": func(_ *driver, r Record) Record { return edited("") },
		"the holder is changed": func(_ *driver, r Record) Record { return edited("x_1") },
		"something else":        func(_ *driver, r Record) Record { return edited(r.Holder) },
		"an older record":       func(_ *driver, r Record) Record { r.Seq--; r.Claims.Set = setOf(testPartitions); return r },
		"another holder's record": func(p *driver, r Record) Record {
			r.Holder, r.Seq = "b_0", r.Seq+9
			return r
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newDriver(t)
			r := p.peerRecord("b", PhaseActive, p.all()...)
			r.Seq, r.Duration = 5, 20*time.Second
			p.put("lease-b", r)
			p.show("lease-b")
			p.join()
			members := p.m.View().Members()
			p.put("lease-b", change(p, r))
			p.show("lease-b")
			start := p.now.Mono
			for p.now.Mono-start < 19*time.Second {
				p.run(500 * time.Millisecond)
				p.wantStates(nil, nil)
			}
			if got := p.m.View().Members(); !slices.Equal(got, members) {
				t.Errorf("the ring has changed from %q to %q", members, got)
			}
			p.run(4 * time.Second)
			p.wantStates(p.all(), nil)
		})
	}
}

// The holder of an edited record, if it lives, writes it again: then its claims count.
func TestR32_TheHolderRestoresItsRecord(t *testing.T) {
	p := newDriver(t)
	r := p.peerRecord("b", PhaseActive, 1, 2)
	r.Seq = 5
	p.put("lease-b", r)
	p.show("lease-b")
	p.join()
	p.put("lease-b", edited("b_1"))
	p.show("lease-b")
	r.Seq = 6
	p.put("lease-b", r)
	p.show("lease-b")
	p.run(time.Second)
	p.wantStates(without(p.owned("a", "a", "b"), []int{1, 2}), nil)
}

// A member whose own record was edited, but not its holder, writes it again. So does one that
// was never seen before the edit.
func TestR32_AMemberRestoresItsOwnRecord(t *testing.T) {
	p := newDriver(t).join()
	l := p.put(p.cfg.Lease, edited(p.cfg.Holder))
	p.show(l.Name)
	u := take[WriteLease](p)
	if u.Version != l.Version || u.Record.Claims.Set.Len() != testPartitions {
		t.Errorf("writes %+v", u)
	}
	none[Drain](p)
	p.wantStates(p.all(), nil)
}

// The next machine of the process takes back a Lease whose holder someone removed.
func TestR51_TheNextMachineTakesBackItsEditedLease(t *testing.T) {
	p := newDriver(t).join()
	l := p.put(p.cfg.Lease, edited(""))
	p.show(l.Name)
	p.step(GetResult{Op: take[GetLease](p).Op, Outcome: OK, Lease: l})
	if got := take[Ended](p).Reason; got != ErrTakenOver {
		t.Errorf("ends with %v", got)
	}
	knowledge := p.m.Knowledge()
	p.cfg.Holder, p.cfg.Predecessor, p.cfg.Knowledge = "a_2", "a_1", knowledge
	p.m, p.did = New(p.cfg), nil
	p.step(Tick{})
	if get := p.did[0].(GetLease); get.UID != l.UID {
		t.Errorf("reads %+v", get)
	}
	p.step(Synced{})
	p.run(2 * time.Second)
	p.wantStates(p.all(), nil)
}

// If this member has never seen what the holder declared, the longest duration counts (R46).
func TestR46_AnUnknownDurationIsTheLongest(t *testing.T) {
	p := newDriver(t).join()
	p.put("lease-b", edited("b_1"))
	p.show("lease-b")
	p.hang = true
	p.run(MaxLeaseDuration - time.Minute)
	if len(p.hung) > 0 {
		t.Fatalf("%+v", p.hung)
	}
	p.run(2 * time.Minute)
	if len(p.hung) == 0 {
		t.Error("it is never evicted")
	}
}

// A lowered duration does not count, nor does one that is shorter than the member's own.
func TestR46_TheLongestDeclaredDurationCounts(t *testing.T) {
	for _, declared := range [][]time.Duration{{30 * time.Second, time.Second}, {time.Second}, {30 * time.Second, 0}} {
		p := newDriver(t).join()
		r := p.peerRecord("b", PhaseActive)
		for i, d := range declared {
			r.Duration, r.Seq = d, uint64(i+1)
			p.put("lease-b", r)
			p.show("lease-b")
		}
		want := max(declared[0], p.cfg.LeaseDuration)
		if _, after := until[EvictLease](p); after < want || after > want+2*time.Second {
			t.Errorf("declared %v: evicted after %v", declared, after)
		}
	}
}

// A void Lease that is shown as held again may be an old record that someone applied: its
// process may believe it.
func TestR32_AHeldRecordOnAVoidLeaseWasEdited(t *testing.T) {
	p := newDriver(t).join()
	b := p.peer("b", PhaseActive)
	p.run(time.Second)
	void := b.Record
	void.Holder, void.EvictedBy = "", "a_1"
	p.put(b.Name, void)
	p.show(b.Name)
	p.run(500 * time.Millisecond)
	p.put(b.Name, b.Record)
	p.show(b.Name)
	if !p.m.peers[b.Name].lease.Record.Claims.Everything {
		t.Error("its old claims count")
	}
}

// Parameters that cannot be read or are not valid are never in force (R48): neither those of a
// leftover Lease, nor of a member of another version.
func TestR48_InvalidParametersAreNeverInForce(t *testing.T) {
	for name, parameters := range map[string]ring.Parameters{
		"unreadable": {},
		"too many":   {Key: "name", Partitions: testPartitions, VirtualNodes: 1_000_000_000, Load: 1.25},
	} {
		t.Run(name, func(t *testing.T) {
			p := newDriver(t)
			r := p.peerRecord("old", PhaseActive)
			r.Parameters = parameters
			p.put("lease-old", r)
			p.show("lease-old")
			p.join()
			if p.m.Incompatible() || len(p.in(ring.Active)) == 0 {
				t.Errorf("incompatible: %v, active: %v", p.m.Incompatible(), p.in(ring.Active))
			}
		})
	}
}

// A stopping member leaves its void Lease to the others, so that a list of their watches shows
// how it ended. The last one leaves nothing behind (R39).
func TestR39_TheLastMemberDeletesEveryVoidLease(t *testing.T) {
	for _, last := range []bool{true, false} {
		p := newDriver(t).join()
		b := p.peer("b", PhaseActive)
		p.run(time.Second)
		if last {
			b.Record.Holder = ""
			p.put(b.Name, b.Record)
			p.show(b.Name)
		}
		p.step(Stop{})
		p.run(time.Second)
		if p.m.stage != ended {
			t.Fatal("the machine has not ended")
		}
		l := p.lease(p.cfg.Lease)
		if exists, other := p.exists(p.cfg.Lease), p.exists(b.Name); last && (exists || other) || !last && (!exists || !l.Record.Void() || !other) {
			t.Errorf("the last one: %v; left is %+v", last, p.list())
		}
	}
}

// R10 and R12a: work may end by itself during DrainGrace, and then its contexts are cancelled.
func TestR10_ContextsAreCancelledAfterTheGracePeriod(t *testing.T) {
	grace := func(c *Config) { c.DrainGrace = 5 * time.Second }
	drains := func(t *testing.T) (*driver, Lease, ring.Set, time.Duration) {
		p := newDriver(t, grace).join()
		b := p.peer("b", PhaseActive)
		drain := take[Drain](p).Partitions
		none[Cancel](p)
		return p, b, drain, p.now.Mono
	}
	t.Run("cancelled", func(t *testing.T) {
		p, _, drain, start := drains(t)
		p.wait(4900 * time.Millisecond)
		none[Cancel](p)
		cancel, _ := until[Cancel](p)
		if after := p.now.Mono - start; after < 5*time.Second || after > 5*time.Second+100*time.Millisecond || !cancel.Partitions.Equal(drain) {
			t.Errorf("cancels %v after %v", cancel.Partitions, after)
		}
		for p.m.stage != ended && p.now.Mono-start < time.Minute {
			p.wait(100 * time.Millisecond)
			p.serveWithoutDrain()
		}
		if after := p.now.Mono - start; after < 5*time.Second+p.cfg.DrainTimeout || after > 6*time.Second+p.cfg.DrainTimeout {
			t.Errorf("ends after %v: DrainTimeout counts after DrainGrace", after)
		}
	})
	t.Run("idle", func(t *testing.T) {
		p, _, drain, start := drains(t)
		p.step(Idle{Partitions: drain})
		p.run(p.cfg.Coalesce)
		if got := p.lease(p.cfg.Lease).Record.Claims.Set.Len(); got != testPartitions-drain.Len() {
			t.Errorf("still claims %d partitions after %v", got, p.now.Mono-start)
		}
	})
	t.Run("wanted again before", func(t *testing.T) {
		p, b, drain, _ := drains(t)
		b.Record.Holder = ""
		p.put(b.Name, b.Record)
		p.show(b.Name)
		p.wait(minRebuild)
		if got := take[Activated](p).Partitions; !got.Equal(drain) {
			t.Errorf("activates %v", got)
		}
		p.step(Idle{Partitions: drain}) // late: it is not draining any more
		p.wantStates(p.all(), nil)
	})
	t.Run("wanted again after", func(t *testing.T) {
		p, b, drain, _ := drains(t)
		until[Cancel](p)
		b.Record.Holder = ""
		p.put(b.Name, b.Record)
		p.show(b.Name)
		p.wait(minRebuild)
		none[Activated](p)
		p.step(Idle{Partitions: drain})
		take[Activated](p)
	})
}

// A member that was evicted while it could not reach the server finds its old record, which
// someone has applied again. A peer works on its partitions (R52).
func TestR52_AnOldRecordThatIsAppliedAgainLetsNobodyWorkTwice(t *testing.T) {
	p := newDriver(t).join()
	old := p.lease(p.cfg.Lease).Record
	u := p.due()
	p.wait(p.cfg.RenewDeadline)
	take[Fenced](p)
	p.step(WriteResult{Op: u.Op})
	p.put("lease-b", p.peerRecord("b", PhaseActive, p.all()...)) // after an eviction
	p.put(p.cfg.Lease, old)
	p.wait(2 * time.Second)
	p.serve() // reads, writes, lists
	p.run(10 * time.Second)
	if got := p.in(ring.Active); len(got) > 0 {
		t.Errorf("partitions %v are active", got)
	}
}
