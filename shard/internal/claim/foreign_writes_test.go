// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Others' labels, annotations and finalizers on a member's Lease.
func extra(value string) Extra {
	return Extra{Labels: map[string]string{"team": value}, Finalizers: []string{"example.com/keep"}}
}

// putExtra lets another client put something on the member's Lease. The watch does not show it.
func (p *driver) putExtra(e Extra) Lease {
	l := p.lease(p.cfg.Lease)
	l.Record.Extra = e
	return p.put(l.Name, l.Record)
}

// What other clients put on the Lease costs no request. Each write keeps what stands there at the
// version that it replaces (R42).
func TestR42_AMemberKeepsWhatOthersPutOnItsLease(t *testing.T) {
	t.Run("the watch shows it", func(t *testing.T) {
		p := newDriver(t).join()
		for _, value := range []string{"a", "b", "c"} {
			l := p.putExtra(extra(value))
			p.show(l.Name)
			if len(p.did) > 0 {
				t.Errorf("the machine returned %#v", p.did)
			}
			u := p.due()
			if diff := cmp.Diff(extra(value), u.Record.Extra); diff != "" || u.Version != l.Version {
				t.Errorf("writes at %s instead of %s (-want +got):\n%s", u.Version, l.Version, diff)
			}
			p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
			p.show(l.Name)
		}
		p.wantStates(p.all(), nil)
	})
	t.Run("the watch shows it before the response to a write", func(t *testing.T) {
		p := newDriver(t).join()
		u := p.due()
		written := p.commit(u)
		l := p.putExtra(extra("a"))
		p.step(LeaseObserved{Lease: written})
		p.show(l.Name)
		p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: written})
		if u := p.due(); u.Version != l.Version || u.Record.Extra.Labels["team"] != "a" {
			t.Errorf("writes %+v at %s instead of %s", u.Record.Extra, u.Version, l.Version)
		}
	})
	t.Run("the watch does not show it", func(t *testing.T) {
		p := newDriver(t).join()
		l := p.putExtra(extra("a"))
		p.step(WriteResult{Op: p.due().Op, Outcome: Conflict})
		p.step(GetResult{Op: take[GetLease](p).Op, Outcome: OK, Lease: l})
		if u := take[WriteLease](p); u.Version != l.Version || u.Record.Extra.Labels["team"] != "a" {
			t.Errorf("writes %+v at %s instead of %s", u.Record.Extra, u.Version, l.Version)
		}
	})
	t.Run("the response shows it", func(t *testing.T) {
		p := newDriver(t).join()
		u := p.due()
		l := p.commit(u)
		l.Record.Extra = extra("a") // by an admission webhook
		p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: l})
		if u := p.due(); u.Record.Extra.Labels["team"] != "a" {
			t.Errorf("writes %+v", u.Record.Extra)
		}
	})
	t.Run("the last write", func(t *testing.T) {
		p := newDriver(t).join()
		p.peer("b", PhaseJoining)
		p.putExtra(extra("a"))
		p.show(p.cfg.Lease)
		p.step(Stop{})
		p.run(time.Second)
		if l := p.lease(p.cfg.Lease); !l.Record.Void() || len(l.Record.Extra.Finalizers) != 1 {
			t.Errorf("leaves %+v", l)
		}
	})
}

// A client that edits the record, or removes the label of the ring, each time that the member has
// restored it, gets at most one more write per renew period.
func TestR42_AFightCostsOneMoreWritePerRenewPeriod(t *testing.T) {
	for name, fight := range map[string]func(*driver){
		"edits": func(p *driver) {
			p.put(p.cfg.Lease, edited(p.cfg.Holder))
			p.show(p.cfg.Lease)
		},
		"removes the label": func(p *driver) {
			l := p.lease(p.cfg.Lease)
			p.put(l.Name, l.Record) // without the label; the watch shows that as a deletion
			p.step(LeaseDeleted{Last: l, Final: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newDriver(t).join()
			const measured = time.Minute
			writes := 0
			fight(p)
			for start := p.now.Mono; p.now.Mono-start < measured; {
				if len(p.did) == 0 {
					p.now = p.now.Add(max(p.m.Next()-p.now.Mono, time.Millisecond))
					p.step(Tick{})
				}
				did := p.did
				p.did = nil
				for _, a := range did {
					switch a := a.(type) {
					case GetLease:
						p.step(GetResult{Op: a.Op, Outcome: OK, Lease: p.lease(p.cfg.Lease)})
					case WriteLease:
						if writes++; writes > 1000 {
							t.Fatal("it answers without a limit")
						}
						p.step(WriteResult{Op: a.Op, Outcome: OK, Lease: p.commit(a)})
						p.show(p.cfg.Lease)
						fight(p)
					case Drain, Fenced, Ended:
						t.Fatalf("%T", a)
					}
				}
			}
			periods := int(measured / (p.cfg.RenewPeriod * 9 / 10))
			if writes > 2*periods+1 || writes < periods {
				t.Errorf("%d writes in %d renew periods", writes, periods)
			}
			p.wantStates(p.all(), nil)
		})
	}
}

// Another client that changes the claims, and makes the record look like one of the member, is
// answered at once.
func TestR42_ForgedClaimsAreOverwrittenAtOnce(t *testing.T) {
	p := newDriver(t).join()
	for range 3 {
		r := p.lease(p.cfg.Lease).Record
		r.Claims = Claims{Parameters: p.cfg.Parameters, Set: setOf(testPartitions)}
		l := p.put(p.cfg.Lease, r)
		p.show(l.Name)
		p.step(GetResult{Op: take[GetLease](p).Op, Outcome: OK, Lease: l})
		u := take[WriteLease](p)
		p.step(WriteResult{Op: u.Op, Outcome: OK, Lease: p.commit(u)})
		p.show(l.Name)
	}
}

// A webhook changes the evictions of a peer's Lease, so that it is never void. They are repeated
// with a backoff, although the watch shows a new version after each of them.
func TestR87_AnEvictionThatIsAlteredIsRepeatedWithABackoff(t *testing.T) {
	p := newDriver(t).join()
	p.put("lease-b", p.peerRecord("b", PhaseActive, 1))
	p.show("lease-b")
	p.hang = true
	for evictions, end := 0, p.now.Mono+time.Minute; p.now.Mono < end; {
		p.run(10 * time.Millisecond)
		for _, a := range p.hung {
			evictions++
			p.step(EvictResult{Op: a.(EvictLease).Op})
			p.put("lease-b", edited(""))
			p.show("lease-b")
		}
		if p.hung = nil; evictions > 40 {
			t.Fatalf("%d evictions", evictions)
		}
	}
}
