// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"testing"
	"time"
)

// claimLost returns a machine whose first claim was sent, and the time at which it was sent.
// The write has no response.
func claimLost(t *testing.T, change ...func(*Config)) (*driver, WriteLease, Time) {
	t.Helper()
	p := newDriver(t, change...)
	p.step(Tick{})
	p.step(Synced{})
	p.serve()
	p.wait(p.cfg.Coalesce)
	return p, take[WriteLease](p), p.now
}

// giveUp lets the write time out, and returns the read that follows.
func (p *driver) giveUp(u WriteLease, sent Time) GetLease {
	p.t.Helper()
	p.wait(sent.Add(u.Timeout).Mono - p.now.Mono)
	p.did = p.did[:0]
	p.step(WriteResult{Op: u.Op})
	p.wait(200 * time.Millisecond)
	return take[GetLease](p)
}

// answer answers a read with the Lease as it is on the server.
func (p *driver) answer(g GetLease) {
	p.t.Helper()
	p.step(GetResult{Op: g.Op, Outcome: OK, Lease: p.lease(p.cfg.Lease)})
}

func (p *driver) wantFence(sent Time) {
	p.t.Helper()
	if fence, open := p.m.Fence(); !open || fence != sent.Add(p.cfg.RenewDeadline) {
		p.t.Errorf("the fence is at %v (%v), want the send time plus the deadline: %v", fence, open, sent.Add(p.cfg.RenewDeadline))
	}
}

// A read that shows the last write as it was sent confirms it as its response would have done.
func TestR40_AReadConfirmsTheWriteThatItShows(t *testing.T) {
	for name, given := range map[string]bool{"alongside": false, "after it was given up": true} {
		t.Run(name, func(t *testing.T) {
			p, u, sent := claimLost(t)
			p.commit(u)
			p.put(p.cfg.Lease, u.Record) // another client has added a label: another version
			p.show(p.cfg.Lease)
			read := GetLease{}
			if given {
				read = p.giveUp(u, sent)
			} else {
				p.wait(p.cfg.RenewPeriod)
				read = take[GetLease](p)
			}
			none[Claimed](p)
			before := p.m.Stats().Heartbeats
			p.answer(read)
			if got := take[Claimed](p).Partitions.Len(); got != testPartitions {
				t.Errorf("%d partitions are claimed", got)
			}
			p.wantFence(sent)
			if got, want := p.m.Token(0), p.lease(p.cfg.Lease).Version; got != want {
				t.Errorf("the token is %s, want the version %s that the read has shown", got, want)
			}
			if at, _ := p.m.RenewedAt(); at != p.now || p.m.Stats().Heartbeats != before+1 {
				t.Error("it does not count as a renewal")
			}
			// It lists, renews as if the response had arrived, and may evict (R25).
			u = take[WriteLease](p)
			if u.Version != p.lease(p.cfg.Lease).Version {
				t.Errorf("writes at %s instead of %s", u.Version, p.lease(p.cfg.Lease).Version)
			}
			p.step(ListResult{Op: take[ListLeases](p).Op, Outcome: OK, Leases: p.list()})
			p.wantStates(p.all(), nil)
		})
	}
}

// The read must show exactly what was sent.
func TestR40_AnotherRecordConfirmsNothing(t *testing.T) {
	for name, change := range map[string]func(*GetResult){
		"edited":                 func(e *GetResult) { e.Lease.Record = edited(e.Lease.Record.Holder) },
		"other claims":           func(e *GetResult) { e.Lease.Record.Claims.Set = setOf(testPartitions, 1) },
		"other parameters":       func(e *GetResult) { e.Lease.Record.Fingerprint = "x" },
		"another phase":          func(e *GetResult) { e.Lease.Record.Phase = PhaseJoining },
		"another duration":       func(e *GetResult) { e.Lease.Record.Duration += time.Second },
		"a longer duration":      func(e *GetResult) { e.Lease.Record.Longest += time.Second },
		"a later seq":            func(e *GetResult) { e.Lease.Record.Seq++ },
		"an earlier seq":         func(e *GetResult) { e.Lease.Record.Seq-- },
		"another member":         func(e *GetResult) { e.Lease.Record.Member = "b" },
		"another Pod":            func(e *GetResult) { e.Lease.Record.PodUID = "b" },
		"another version seen":   func(e *GetResult) { e.Lease.Record.Watched = "1" },
		"another newcomer state": func(e *GetResult) { e.Lease.Record.Newcomer = "x" },
		"an eviction":            func(e *GetResult) { e.Lease.Record.EvictedBy = "x" },
		"a tombstone more":       func(e *GetResult) { e.Lease.Record.Tombstones = []Tombstone{{UID: "x"}} },
		"no label of the ring":   func(e *GetResult) { e.Unselected = true },
	} {
		t.Run(name, func(t *testing.T) {
			p, u, sent := claimLost(t)
			before, _ := p.m.Fence()
			p.commit(u)
			e := GetResult{Op: p.giveUp(u, sent).Op, Outcome: OK, Lease: p.lease(p.cfg.Lease)}
			change(&e)
			p.step(e)
			none[Claimed](p)
			p.wantStates(nil, nil)
			if after, open := p.m.Fence(); open && after != before {
				t.Errorf("the fence has moved from %v to %v", before, after)
			}
		})
	}
}

// A write that is shown too late is no renewal any more, by either clock.
func TestR40_AnOldWriteConfirmsNothing(t *testing.T) {
	for name, later := range map[string]Time{
		"monotonic": {Mono: 9 * time.Second},
		"wall":      {Wall: 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			p, u, sent := claimLost(t)
			p.commit(u)
			read := p.giveUp(u, sent)
			p.now = Time{Mono: sent.Mono + max(later.Mono, 5*time.Second), Wall: sent.Wall + max(later.Wall, 5*time.Second)}
			p.answer(read)
			take[Fenced](p)
			none[Unfenced](p)
			none[Claimed](p)
			p.wantStates(nil, nil)
		})
	}
}

// An earlier write than the last one: this member renewed its Lease then, but a later write may
// still withdraw what it claims.
func TestR40_AnEarlierWriteConfirmsOnlyTheRenewal(t *testing.T) {
	p, first, sent := claimLost(t)
	old := p.lease(p.cfg.Lease)
	read := p.giveUp(first, sent)
	p.step(GetResult{Op: read.Op, Outcome: OK, Lease: old})
	second, at := take[WriteLease](p), p.now
	p.commit(first) // late
	p.step(WriteResult{Op: second.Op, Outcome: Conflict})
	p.answer(take[GetLease](p))
	p.wantFence(sent)
	none[Claimed](p)
	p.wantStates(nil, nil)
	third := take[WriteLease](p)
	if third.Record.Seq <= second.Record.Seq || third.Version != p.lease(p.cfg.Lease).Version {
		t.Errorf("seq %d at version %s follows %d", third.Record.Seq, third.Version, second.Record.Seq)
	}
	if at == sent || second.Record.Seq <= first.Record.Seq {
		t.Errorf("a retry with seq %d after %d", second.Record.Seq, first.Record.Seq)
	}
	p.step(WriteResult{Op: third.Op, Outcome: OK, Lease: p.commit(third)})
	p.wantStates(nil, p.all())
}

// A fenced member checks its claims (R52). A read then shows an earlier write, which is still a
// renewal: the member is no longer fenced, but its partitions have the tokens from before the
// check. It sends no list before a write has given them new ones.
func TestR40_R52_ARenewalByAReadGivesNoToken(t *testing.T) {
	p := newDriver(t).join()
	first := p.due()
	p.wait(first.Timeout - 100*time.Millisecond)
	p.step(WriteResult{Op: first.Op, Outcome: OK, Lease: p.commit(first)})
	p.show(p.cfg.Lease)
	old := p.lease(p.cfg.Lease)
	second := take[WriteLease](p)
	sent := p.m.own.op.sent
	read := p.giveUp(second, sent)
	if _, open := p.m.Fence(); open {
		t.Fatal("not fenced")
	}
	p.step(GetResult{Op: read.Op, Outcome: OK, Lease: old})
	p.step(Idle(take[Drain](p)))
	third := take[WriteLease](p)
	p.commit(second)
	p.show(p.cfg.Lease)
	p.step(WriteResult{Op: third.Op, Outcome: Conflict})
	p.wait(100 * time.Millisecond)
	p.answer(take[GetLease](p))
	p.wantFence(sent)
	none[ListLeases](p)
	p.wantStates(nil, p.all())
	fourth := take[WriteLease](p)
	none[ListLeases](p)
	p.step(WriteResult{Op: fourth.Op, Outcome: OK, Lease: p.commit(fourth)})
	p.show(p.cfg.Lease)
	p.serve()
	p.wantStates(p.all(), nil)
	if got, want := p.m.Token(0), p.lease(p.cfg.Lease).Version; got != want {
		t.Errorf("the token is %s, want %s", got, want)
	}
}

// A response that comes after a read has confirmed its write has no effect, whatever it is.
func TestR40_ALateResponseIsIgnored(t *testing.T) {
	for _, outcome := range []Outcome{OK, Conflict, NotFound, Unknown, Refused} {
		p := newDriver(t).join()
		u := p.due()
		sent := p.m.own.op.sent
		written := p.commit(u)
		p.show(p.cfg.Lease)
		p.wait(p.cfg.RenewPeriod)
		p.answer(take[GetLease](p))
		next := take[WriteLease](p)
		late := WriteResult{Op: u.Op, Outcome: outcome}
		if outcome == OK {
			late.Lease = written
		}
		before := p.m.Stats()
		p.step(late)
		if p.m.Stats() != before || p.m.own.op == nil || p.m.own.version == "" || len(p.did) > 0 {
			t.Errorf("%v had an effect: %v, %v", outcome, p.did, p.m.Stats())
		}
		p.wantFence(sent)
		at := p.m.own.op.sent
		p.step(WriteResult{Op: next.Op, Outcome: OK, Lease: p.commit(next)})
		p.step(late)
		p.wantFence(at)
	}
}

// The partitions that the write claimed do not exist any more.
func TestR40_ClaimsOfOtherPartitionsAreNotConfirmed(t *testing.T) {
	p, u, _ := claimLost(t)
	p.commit(u)
	p.wait(time.Second)
	p.step(WriteResult{Op: u.Op})
	old := p.peerRecord("b", PhaseActive)
	old.Parameters.Partitions = 2 * testPartitions
	old.Fingerprint = old.Parameters.Fingerprint()
	old.Claims.Parameters, old.Claims.Set = old.Parameters, setOf(old.Parameters.Partitions)
	l := p.put("lease-b", old)
	l.Created = time.Unix(0, 0)
	p.step(LeaseObserved{Lease: l})
	if got := len(p.m.States()); got != old.Parameters.Partitions {
		t.Fatalf("there are %d partitions", got)
	}
	p.wait(200 * time.Millisecond)
	p.answer(take[GetLease](p))
	p.wantStates(nil, nil)
	none[Claimed](p)
}

// R41: one read is sent alongside a write without a response, after RenewPeriod. Until one of
// them confirms the write, or it is given up, no other write is sent (R7).
func TestR41_AReadAlongsideAWrite(t *testing.T) {
	for name, test := range map[string]struct {
		result func(*driver, GetLease) GetResult
		ends   error
	}{
		"no response": {func(_ *driver, g GetLease) GetResult { return GetResult{Op: g.Op} }, nil},
		"refused":     {func(_ *driver, g GetLease) GetResult { return GetResult{Op: g.Op, Outcome: Refused} }, nil},
		"the earlier version": {func(p *driver, g GetLease) GetResult {
			return GetResult{Op: g.Op, Outcome: OK, Lease: p.lease(p.cfg.Lease)}
		}, nil},
		"an edited record": {func(p *driver, g GetLease) GetResult {
			l := p.lease(p.cfg.Lease)
			l.Record = edited(l.Record.Holder)
			return GetResult{Op: g.Op, Outcome: OK, Lease: l}
		}, nil},
		"evicted": {func(p *driver, g GetLease) GetResult {
			l := p.lease(p.cfg.Lease)
			l.Record = Record{EvictedBy: "b_1", Phase: PhaseDraining}
			return GetResult{Op: g.Op, Outcome: OK, Lease: l}
		}, ErrEvicted},
		"deleted": {func(_ *driver, g GetLease) GetResult { return GetResult{Op: g.Op, Outcome: NotFound} }, ErrVanished},
	} {
		t.Run(name, func(t *testing.T) {
			p := newDriver(t).join()
			u := p.due()
			sent := p.m.own.op.sent
			p.wait(sent.Add(p.cfg.RenewPeriod).Mono - p.now.Mono - 1)
			none[GetLease](p)
			p.wait(1)
			read := take[GetLease](p)
			p.step(test.result(p, read))
			if test.ends != nil {
				if got := take[Ended](p).Reason; got != test.ends {
					t.Errorf("ended with %v, want %v", got, test.ends)
				}
				return
			}
			p.wait(sent.Add(u.Timeout).Mono - p.now.Mono)
			none[GetLease](p)
			none[WriteLease](p)
			none[Ended](p)
			p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
			p.wantFence(sent)
		})
	}
}

// The response of the read that was sent alongside a write comes after that of the write.
func TestR41_TheReadAlongsideComesTooLate(t *testing.T) {
	p := newDriver(t).join()
	u := p.due()
	old := p.lease(p.cfg.Lease)
	p.wait(p.cfg.RenewPeriod)
	read := take[GetLease](p)
	p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
	p.did = p.did[:0]
	p.step(GetResult{Op: read.Op, Outcome: OK, Lease: old}) // an older version than the confirmed one
	none[Ended](p)
	p.wantStates(p.all(), nil)
}

// Every request may take as long as a write.
func TestR41_RequestsTimeOutAfterHalfTheRenewDeadline(t *testing.T) {
	p := newDriver(t)
	seen := map[string]bool{}
	check := func(what string, timeout time.Duration) {
		if seen[what] = true; timeout != p.cfg.RenewDeadline/2 {
			t.Errorf("%s times out after %v", what, timeout)
		}
	}
	p.watched = func(a Action) {
		switch a := a.(type) {
		case GetLease:
			check("a read", a.Timeout)
		case CreateLease:
			check("a creation", a.Timeout)
		case WriteLease:
			check("a write", a.Timeout)
		case ListLeases:
			check("a list", a.Timeout)
		case EvictLease:
			check("an eviction", a.Timeout)
		case DeleteLease:
			check("a deletion", a.Timeout)
		}
	}
	p.begin()
	b := p.peer("b", PhaseActive)
	p.join().run(time.Minute)
	if len(seen) != 6 || p.exists(b.Name) {
		t.Errorf("only %v", seen)
	}
}

// R17: the list must show the writes that were confirmed before it was sent, and what it was
// sent for. Renewals may overtake it: with a slow server there is always one in flight.
func TestR17_TheListMustShowTheClaims(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*driver, *Record)
		counts bool
	}{
		"the confirmed record": {func(*driver, *Record) {}, true},
		"a later renewal":      {func(_ *driver, r *Record) { r.Seq++ }, true},
		"an earlier write":     {func(_ *driver, r *Record) { r.Seq-- }, false},
		"without one of them":  {func(_ *driver, r *Record) { r.Claims.Set.Remove(3) }, false},
		"another holder":       {func(_ *driver, r *Record) { r.Holder = "a_2" }, false},
		"an edited record":     {func(_ *driver, r *Record) { *r = edited(r.Holder) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			p, list := claiming(t)
			r := p.lease(p.cfg.Lease).Record
			r.Claims.Set = r.Claims.Set.Clone()
			test.change(p, &r)
			l := p.put(p.cfg.Lease, r) // at another version, too
			p.catchUp()
			p.step(ListResult{Op: list.Op, Outcome: OK, Leases: []Lease{l}})
			if test.counts {
				p.wantStates(p.all(), nil)
			} else {
				p.wantStates(nil, p.all())
			}
		})
	}
}

// R17: a list is sent, and counts, although a write is always in flight.
func TestR17_AListCountsAlongsideARenewal(t *testing.T) {
	p, list := claiming(t)
	shown := p.list() // before the renewals
	p.wait(p.cfg.RenewPeriod)
	u := take[WriteLease](p)
	p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
	p.show(p.cfg.Lease)
	p.wait(p.cfg.RenewPeriod)
	take[WriteLease](p) // in flight
	p.step(ListResult{Op: list.Op, Outcome: OK, Leases: shown})
	p.wantStates(p.all(), nil)

	p, u, _ = claimLost(t)
	p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
	p.show(p.cfg.Lease)
	list = take[ListLeases](p)
	p.wait(p.cfg.RenewPeriod)
	take[WriteLease](p) // in flight
	p.step(ListResult{Op: list.Op})
	p.wait(time.Second)
	take[ListLeases](p)
}

// R33: the watch is fresh if it shows the member's own writes. Those of other clients, at later
// versions, do not count.
func TestR33_TheWatchMustShowTheMembersOwnWrite(t *testing.T) {
	p := newDriver(t).join()
	before := p.lease(p.cfg.Lease).Record
	u := p.due()
	p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
	old := p.lease(p.cfg.Lease)
	old.Record, old.Version = before, "99999"
	p.step(LeaseObserved{Lease: old})
	old.Record = edited(p.cfg.Holder)
	p.step(LeaseObserved{Lease: old})
	p.now = p.now.Add(p.cfg.WatchLagLimit)
	p.step(Tick{})
	if p.m.WatchFresh() {
		t.Error("the watch counts as fresh")
	}
	take[Relist](p)
	p.put(p.cfg.Lease, u.Record) // another client adds a label
	p.show(p.cfg.Lease)
	if !p.m.WatchFresh() {
		t.Error("the watch counts as stale")
	}
}

// A write that was refused was not carried out: the version is still known, and no read is
// needed.
func TestRefused_TheNextWriteFollowsWithoutARead(t *testing.T) {
	p := newDriver(t).join()
	u := p.due()
	start, writes := p.now, 0
	for p.now.Mono-start.Mono < p.cfg.RenewPeriod {
		writes++
		p.step(WriteResult{Op: u.Op, Outcome: Refused})
		version, seq := u.Version, u.Record.Seq
		none[GetLease](p)
		none[WriteLease](p) // not without a wait
		for len(p.did) == 0 {
			p.wait(10 * time.Millisecond)
		}
		u = take[WriteLease](p)
		if u.Version != version || u.Record.Seq <= seq {
			t.Fatalf("writes seq %d at %s after %d at %s", u.Record.Seq, u.Version, seq, version)
		}
	}
	if writes < 4 || writes > 8 {
		t.Errorf("%d writes in %v", writes, p.now.Mono-start.Mono)
	}
	sent := p.m.own.op.sent
	p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
	p.wantFence(sent)

	// A fenced member reads first (R4).
	u = p.due()
	p.now = p.now.Add(p.cfg.RenewDeadline)
	p.step(Tick{})
	take[Fenced](p)
	p.step(WriteResult{Op: u.Op, Outcome: Refused})
	p.wait(time.Second)
	none[WriteLease](p)
	take[GetLease](p)
}

// The server asks for a longer wait than the backoff. A renewal waits for a part of it only:
// another server may not be busy.
func TestRefused_TheServersWishCounts(t *testing.T) {
	p := newDriver(t).join()
	u := p.due()
	p.step(WriteResult{Op: u.Op, Outcome: Refused, RetryAfter: 500 * time.Millisecond})
	p.wait(490 * time.Millisecond)
	none[WriteLease](p)
	p.wait(20 * time.Millisecond)
	u = take[WriteLease](p)
	p.step(WriteResult{Op: u.Op, Outcome: Refused, RetryAfter: time.Hour})
	p.wait(p.cfg.RenewPeriod / 4)
	take[WriteLease](p)

	p, list := claiming(t)
	p.step(ListResult{Op: list.Op, Outcome: Refused, RetryAfter: time.Hour})
	p.wait(p.cfg.RenewPeriod - 10*time.Millisecond)
	none[ListLeases](p)
	p.wait(20 * time.Millisecond)
	take[ListLeases](p)

	p = newDriver(t).join()
	p.peer("b", PhaseActive)
	evict, _ := until[EvictLease](p)
	p.step(EvictResult{Op: evict.Op, Outcome: Refused, RetryAfter: time.Hour})
	again, after := until[EvictLease](p)
	if after < 2*p.cfg.RenewPeriod || again.Version != evict.Version {
		t.Errorf("evicts again after %v", after)
	}
}

// Requests for the Lease of a member that has not joined wait, too.
func TestRefused_ANewcomerWaits(t *testing.T) {
	for i := range 3 { // read, creation, and the deletion of a void Lease
		p := newDriver(t)
		if i == 2 {
			p.put(p.cfg.Lease, Record{Member: "a", Phase: PhaseDraining})
		}
		p.step(Tick{})
		for n, requests := 0, 0; n < 300; n++ {
			for _, a := range p.did {
				requests++
				switch a := a.(type) {
				case GetLease:
					if i == 0 {
						p.step(GetResult{Op: a.Op, Outcome: Refused})
					} else if l := p.lease(p.cfg.Lease); l.Name != "" {
						p.step(GetResult{Op: a.Op, Outcome: OK, Lease: l})
					} else {
						p.step(GetResult{Op: a.Op, Outcome: NotFound})
					}
				case CreateLease:
					p.step(WriteResult{Op: a.Op, Outcome: Refused})
				case DeleteLease:
					p.step(DeleteResult{Op: a.Op, Outcome: Refused})
				}
				p.did = p.did[1:]
			}
			p.wait(100 * time.Millisecond)
			if requests > 80 {
				t.Fatalf("%d: %d requests in %d00 ms", i, requests, n)
			}
		}
	}
}

// A list was sent before the fence. While the member was fenced, another one may have owned the
// partitions, and an old record of this member may have been applied again (R52): the list
// decides nothing, and the claims get new tokens, also those of partitions on which no work
// has begun.
func TestR52_AListFromBeforeTheFenceDecidesNothing(t *testing.T) {
	p, list := claiming(t)
	shown := p.list()
	u := p.due()
	p.wait(p.cfg.RenewDeadline)
	take[Fenced](p)
	p.step(WriteResult{Op: u.Op})
	p.wait(200 * time.Millisecond)
	p.answer(take[GetLease](p))
	u = take[WriteLease](p)
	p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
	p.show(p.cfg.Lease)
	p.step(ListResult{Op: list.Op, Outcome: OK, Leases: shown})
	p.wantStates(nil, p.all())
	p.run(time.Second)
	p.wantStates(p.all(), nil)
	if got, want := p.m.Token(0), p.lease(p.cfg.Lease).Version; got != want {
		t.Errorf("the token is %s, want %s", got, want)
	}
}
