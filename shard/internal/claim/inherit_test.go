// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"testing"
	"time"
)

// An old record is on a peer's Lease, or one that cannot be read, when this member's Lease is
// lost: the next machine of the process judges it as this one did (R32, R46, R64).
func TestR64_TheNextMachineJudgesRecordsAsThisOne(t *testing.T) {
	for name, change := range map[string]func(*driver, Record) Record{
		"an older record":  func(_ *driver, r Record) Record { r.Seq--; r.Claims.Set = setOf(testPartitions); return r },
		"a copied release": func(_ *driver, r Record) Record { return Record{Member: "b", Phase: PhaseDraining, Copied: true} },
		"edited":           func(_ *driver, r Record) Record { return edited("b_1") },
	} {
		for _, deleted := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				p := newDriver(t)
				r := p.peerRecord("b", PhaseActive, p.all()...)
				r.Seq = 5
				p.put("lease-b", r)
				p.show("lease-b")
				p.join()
				l := p.put("lease-b", change(p, r))
				p.show("lease-b")
				before := p.m
				p.remove(p.cfg.Lease)
				p.cfg.Predecessor, p.cfg.Holder = p.cfg.Holder, "a_2"
				p.cfg.Tombstones, p.cfg.Knowledge = before.Tombstones(), before.Knowledge()
				p.m, p.did = New(p.cfg), nil
				p.step(Tick{})
				if deleted {
					p.remove("lease-b")
					p.step(LeaseDeleted{Last: l, Final: true})
				} else {
					p.step(LeaseObserved{Lease: l, Listed: true})
				}
				p.step(Synced{})
				start := p.now.Mono
				for p.now.Mono-start < 14*time.Second {
					p.run(500 * time.Millisecond)
					p.wantStates(nil, nil)
				}
				p.run(5 * time.Second)
				p.wantStates(p.all(), nil)
			})
		}
	}
}
