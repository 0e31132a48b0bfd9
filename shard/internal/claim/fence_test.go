// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// due advances the time until the machine renews, and returns the renewal.
func (p *driver) due() WriteLease {
	p.t.Helper()
	p.did = p.did[:0]
	for start := p.now; len(p.did) == 0 && p.now.Mono < start.Mono+p.cfg.RenewPeriod; {
		p.wait(10 * time.Millisecond)
	}
	return take[WriteLease](p)
}

func TestC3_FenceCountsFromTheSendTime(t *testing.T) {
	p := newDriver(t).join()
	u := p.due()
	sent := p.now
	p.now = p.now.Add(2 * time.Second) // the response takes this long
	p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
	fence, open := p.m.Fence()
	if want := sent.Add(p.cfg.RenewDeadline); !open || fence.Mono > want.Mono || fence.Mono < want.Mono-p.cfg.RenewPeriod {
		t.Fatalf("the fence is at %v (%v), want %v at the latest", fence, open, want)
	}
	p.now = fence
	p.now.Mono--
	p.now.Wall--
	p.step(Tick{})
	none[Fenced](p)
	p.now = fence
	p.step(Tick{})
	take[Fenced](p)
	if _, open := p.m.Fence(); open {
		t.Error("Fence does not report that the member is fenced")
	}
	p.wantStates(p.all(), nil) // the member resumes work on them if it renews in time
}

func TestC3_EitherClockTripsTheFence(t *testing.T) {
	for name, later := range map[string]Time{
		"monotonic, while the wall clock was turned back": {Mono: 9 * time.Second, Wall: -time.Hour},
		"wall, while the machine was frozen":              {Mono: time.Millisecond, Wall: 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			p := newDriver(t).join()
			p.now.Mono += later.Mono
			p.now.Wall += later.Wall
			p.step(Tick{})
			take[Fenced](p)
		})
	}
}

func TestC3_AResponseThatArrivesAfterItsOwnFenceDoesNotLiftIt(t *testing.T) {
	p := newDriver(t).join()
	u := p.due()
	written := p.commit(u)
	p.now = p.now.Add(p.cfg.RenewDeadline) // the process was paused with the response in the socket
	p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: written})
	take[Fenced](p)
	take[GetLease](p) // because it may have been evicted since
	none[Unfenced](p)
}

func TestC3_AfterTheFenceTheLeaseIsReadAndWrittenBeforeWorkResumes(t *testing.T) {
	p := newDriver(t).join()
	u := p.due()
	p.wait(p.cfg.RenewDeadline)
	take[Fenced](p)
	p.step(WriteResult{Op: u.Op})
	for range 3 { // the server does not respond
		p.wait(2 * time.Second)
		p.step(GetResult{Op: take[GetLease](p).Op})
	}
	p.wait(2 * time.Second)
	p.step(GetResult{Op: take[GetLease](p).Op, Outcome: OK, Lease: p.lease(p.cfg.Lease)})
	none[Unfenced](p)
	u = take[WriteLease](p)
	none[Activated](p)
	p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
	take[Unfenced](p)
	// Perhaps this member was evicted, and its old record was applied again (R52): a list must
	// show its claims, and no work may be in flight.
	p.wantStates(nil, p.all())
	p.show(p.cfg.Lease)
	none[ListLeases](p)
	p.step(Idle{Partitions: ring.FullSet(testPartitions)})
	list := take[ListLeases](p)
	none[Activated](p)
	p.step(ListResult{Op: list.Op, Outcome: OK, Leases: p.list()})
	p.wantStates(p.all(), nil)
	if got, want := p.m.Token(0), p.lease(p.cfg.Lease).Version; got != want {
		t.Errorf("the token is %s, want %s: another member may have owned the partition meanwhile", got, want)
	}
}

// A write that was sent before the fence, and that is confirmed, shows that nothing has
// changed: no check is needed (R52).
func TestR52_NoCheckAfterAWriteAtTheKnownVersion(t *testing.T) {
	p := newDriver(t).join()
	u := p.due()
	p.wait(p.cfg.RenewDeadline - p.cfg.RenewPeriod + 500*time.Millisecond)
	take[Fenced](p)
	p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
	take[Unfenced](p)
	none[Drain](p)
	p.wantStates(p.all(), nil)
}

func TestAMachineThatWasEvictedEnds(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Lease)
		want   error
	}{
		{"void", func(l *Lease) { l.Record.Holder, l.Record.EvictedBy = "", "b_1" }, ErrEvicted},
		{"another holder", func(l *Lease) { l.Record.Holder = "a_2" }, ErrTakenOver},
		{"without a holder", func(l *Lease) { l.Record = Record{Edited: true} }, ErrTakenOver},
		{"another Lease of the same name", func(l *Lease) { l.UID = "other" }, ErrTakenOver},
		{"an older version", func(l *Lease) { l.Version = "99" }, ErrWentBack},
		{"an older version of fewer digits", func(l *Lease) { l.Version = "9" }, ErrWentBack},
		{"an older seq", func(l *Lease) { l.Record.Seq-- }, ErrTakenOver},
		{"none", nil, ErrVanished},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newDriver(t).join()
			u := p.due()
			p.step(WriteResult{Op: u.Op, Outcome: Conflict})
			get := take[GetLease](p)
			if c.change == nil {
				p.step(GetResult{Op: get.Op, Outcome: NotFound})
			} else {
				l := p.lease(p.cfg.Lease)
				c.change(&l)
				p.step(GetResult{Op: get.Op, Outcome: OK, Lease: l})
			}
			take[Fenced](p)
			if got := take[Ended](p).Reason; got != c.want {
				t.Errorf("the machine ended with %v, want %v", got, c.want)
			}
			if len(p.m.Step(p.now, Tick{})) > 0 {
				t.Error("the machine continues after its end")
			}
		})
	}
}

func TestWritesOfOtherClientsAreOverwritten(t *testing.T) {
	p := newDriver(t).join()
	r := p.lease(p.cfg.Lease).Record
	r.Claims = Claims{Everything: true}
	p.put(p.cfg.Lease, r)
	p.show(p.cfg.Lease)
	p.step(GetResult{Op: take[GetLease](p).Op, Outcome: OK, Lease: p.lease(p.cfg.Lease)})
	u := take[WriteLease](p)
	if u.Record.Claims.Everything || u.Record.Claims.Set.Len() != testPartitions {
		t.Errorf("writes %+v", u.Record.Claims)
	}
	p.wantStates(p.all(), nil)
}

func TestAConflictIsRetriedAtOnceButThenWithABackoff(t *testing.T) {
	p := newDriver(t).join()
	start, writes := p.now, 0
	u := p.due()
	for p.now.Mono-start.Mono < 30*time.Second {
		writes++
		p.step(WriteResult{Op: u.Op, Outcome: Conflict})
		get, after := until[GetLease](p)
		if writes == 1 && after > 0 {
			t.Errorf("waits %v after the first conflict", after)
		}
		p.step(GetResult{Op: get.Op, Outcome: OK, Lease: p.lease(p.cfg.Lease)})
		u = take[WriteLease](p)
	}
	if writes > 60 {
		t.Errorf("%d writes in 30 s of conflicts", writes)
	}
}

func TestRenewalsAreJittered(t *testing.T) {
	p := newDriver(t).join()
	different := map[time.Duration]bool{}
	for range 20 {
		start := p.now.Mono
		u := p.due()
		p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
		p.show(p.cfg.Lease)
		wait := p.m.own.renewAt.Mono - start
		if wait < p.cfg.RenewPeriod*8/10 {
			t.Errorf("renews after %v", wait)
		}
		different[wait] = true
	}
	if len(different) < 5 {
		t.Errorf("only %d different periods in 20", len(different))
	}
}

func TestUnexpectedResponsesAreIgnored(t *testing.T) {
	p := newDriver(t).join()
	u := p.due()
	old := u.Op - 1
	version := p.m.own.version
	for _, e := range []Event{
		GetResult{Op: old, Outcome: NotFound},
		GetResult{Op: old, Outcome: OK},
		GetResult{Op: u.Op + 1},
		WriteResult{Op: old, Outcome: OK},
		WriteResult{Op: old},
		WriteResult{Op: old, Outcome: Conflict},
		DeleteResult{Op: old},
		ListResult{Op: old, Outcome: OK},
		EvictResult{Op: old, Outcome: NotFound},
		EvictResult{Op: u.Op + 1, Outcome: Conflict},
		nil,
	} {
		p.did = p.did[:0]
		p.step(e)
		if len(p.did) > 0 || p.m.own.op == nil || p.m.own.version != version || p.m.Stats().HeartbeatFailures > 0 {
			t.Errorf("%#v had an effect: %#v", e, p.did)
		}
	}
	p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
	p.did = p.did[:0]
	p.step(WriteResult{Op: u.Op, Outcome: Conflict}) // a second, different response
	if len(p.did) > 0 || p.m.own.version == "" {
		t.Error("a duplicate response was handled")
	}
}

func TestStatsCount(t *testing.T) {
	p := newDriver(t).join()
	before, version := p.m.Stats(), p.server.Revision
	for _, outcome := range []Outcome{OK, OK, Unknown, Conflict} {
		u, _ := until[WriteLease](p)
		if outcome == OK {
			p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
			p.show(p.cfg.Lease)
		} else {
			p.step(WriteResult{Op: u.Op, Outcome: outcome})
		}
	}
	until[GetLease](p)
	s := p.m.Stats()
	if s.Heartbeats-before.Heartbeats != p.server.Revision-version || s.HeartbeatFailures != 2 || s.Conflicts != 1 || s.FenceTrips != 0 || s.Lists == 0 {
		t.Errorf("before %+v, then %+v", before, s)
	}
	p.wait(p.cfg.RenewDeadline)
	if got := p.m.Stats().FenceTrips; got != 1 {
		t.Errorf("%d fence trips", got)
	}
	for o, want := range map[Outcome]string{Unknown: "unknown", OK: "ok", Conflict: "conflict", NotFound: "not found", Exists: "already exists"} {
		if o.String() != want {
			t.Errorf("%d is %q", o, o)
		}
	}
}
