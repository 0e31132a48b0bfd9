// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"testing"
	"time"
)

// A member's Lease is edited twice, and its watch shows nothing between the edits: the
// member may have written it again in between, so its timer restarts (R32, R44).
func TestR44_ASecondEditInAGapMayHideAWrite(t *testing.T) {
	p := newDriver(t)
	r := p.peerRecord("b", PhaseActive, p.all()...)
	r.Seq = 5
	p.put("lease-b", r)
	p.show("lease-b")
	p.join()
	p.put("lease-b", edited("b_1"))
	p.show("lease-b")
	for range 7 { // b renews for 14 s, and the watch does not show it
		p.run(2 * time.Second)
		r.Seq++
		p.put("lease-b", r)
	}
	l := p.put("lease-b", edited("b_1"))
	p.step(LeaseObserved{Lease: l, Listed: true})
	p.step(WatchProgress{Version: p.server.Version(), Listed: true})
	start := p.now.Mono
	for p.now.Mono-start < 14*time.Second {
		p.run(500 * time.Millisecond)
		p.wantStates(nil, nil)
	}
	p.run(4 * time.Second)
	p.wantStates(p.all(), nil)
}

// The same, and then the Lease is deleted: its tombstone counts from the second edit.
func TestR43_ADeletionAfterASecondEditInAGap(t *testing.T) {
	p := newDriver(t)
	r := p.peerRecord("b", PhaseActive, p.all()...)
	r.Seq = 5
	p.put("lease-b", r)
	p.show("lease-b")
	p.join()
	p.put("lease-b", edited("b_1"))
	p.show("lease-b")
	for range 5 {
		p.run(2 * time.Second)
		r.Seq++
		p.put("lease-b", r)
	}
	l := p.put("lease-b", edited("b_1"))
	p.step(LeaseObserved{Lease: l, Listed: true})
	p.step(WatchProgress{Version: p.server.Version(), Listed: true})
	p.remove("lease-b")
	p.step(LeaseDeleted{Last: l, Final: true})
	start := p.now.Mono
	for p.now.Mono-start < 14*time.Second {
		p.run(500 * time.Millisecond)
		p.wantStates(nil, nil)
	}
	p.run(4 * time.Second)
	p.wantStates(p.all(), nil)
}

// Another process of this member's name lives and renews, and its Lease is edited each time:
// no two reads show the same version, so nothing proves that it is silent (R3, R32).
func TestR3_AnEditedLeaseThatIsWrittenIsNotSilent(t *testing.T) {
	p := newDriver(t)
	r := p.peerRecord("a", PhaseActive, p.all()...)
	r.Holder, r.PodUID, r.Seq = "a_0", "uid-other", 5
	p.put(p.cfg.Lease, r)
	p.show(p.cfg.Lease)
	p.step(Tick{})
	p.step(Synced{})
	p.run(time.Second)
	for range 10 {
		r.Seq++
		p.put(p.cfg.Lease, r) // a renewal that no read shows
		p.put(p.cfg.Lease, edited("a_0"))
		p.run(2 * time.Second)
		none[EvictLease](p)
		if l := p.lease(p.cfg.Lease); l.Record.Void() || !p.exists(p.cfg.Lease) || l.Record.Holder == p.cfg.Holder {
			t.Fatalf("after %v the live holder was evicted: %+v", p.now, l.Record)
		}
	}
}
