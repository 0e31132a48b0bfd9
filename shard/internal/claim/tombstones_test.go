// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"testing"
	"time"
)

// R29, R49: no settled member is left: d, which has published a tombstone, is dead. Of two newcomers,
// one writes its record when the tombstone has expired for the other one only, because it has read the
// remaining time a message later. The other one must not adopt it again, for what remained when the
// record was written, and write at once, and so on: each hop would add the time that the message
// takes, and they would write as fast as the server responds, until they are settled. A merged
// tombstone may stand for others each time, and is adopted again, but without a write.
func TestR29_NewcomersDoNotKeepATombstoneAliveForEachOther(t *testing.T) {
	for name, uid := range map[string]string{"of one Lease": "gone", "merged": ""} {
		t.Run(name, func(t *testing.T) {
			worst, lasted := newcomersWithATombstone(t, uid)
			if worst > 20 || uid != "" && lasted > 3*time.Second {
				t.Errorf("two newcomers send %d updates in a second; the tombstone, of which 2 s remained, blocked for %v", worst, lasted)
			}
		})
	}
}

// newcomersWithATombstone returns how many updates two newcomers send in the second in which a
// tombstone of 2 s expires, and for how long that blocks, in the worst case.
func newcomersWithATombstone(t *testing.T, uid string) (worst int, lasted time.Duration) {
	const hop = 2 * time.Millisecond
	for offset := -3 * hop; offset <= 6*hop; offset += hop / 2 {
		p := newDriver(t)
		q := newDriver(t, func(c *Config) { *c = testConfig("b") })
		q.server, q.now = p.server, p.now
		d := p.peerRecord("d", PhaseActive, p.all()...)
		d.Tombstones = []Tombstone{{UID: uid, Claims: Claims{Everything: true}, Duration: 15 * time.Second, Remaining: 2 * time.Second}}
		if uid != "" {
			d.Tombstones[0].Holder, d.Tombstones[0].Seq, d.Tombstones[0].Claims = "x_1", 3, d.Claims
		}
		p.put("lease-d", d)
		start, writes, last := p.now, 0, p.now
		for _, r := range []*driver{p, q} {
			r.m, r.did = New(r.cfg), nil
			r.step(LeaseObserved{Lease: p.lease("lease-d"), Listed: true})
			r.step(WatchProgress{Version: p.server.Version(), Listed: true})
			r.watched = func(a Action) {
				if _, ok := a.(WriteLease); ok && r.now.since(start) > 2100*time.Millisecond && r.now.since(start) < 3100*time.Millisecond {
					writes++
				}
			}
		}
		p.step(Synced{})
		synced, shown := false, map[string]string{}
		for p.now.since(start) < 20*time.Second {
			other := []Lease{p.lease(q.cfg.Lease), p.lease(p.cfg.Lease)} // as they were a hop ago
			for range hop / (hop / 2) {
				p.now, q.now = p.now.Add(hop/2), q.now.Add(hop/2)
				if !synced && p.now.since(start) >= 2*time.Second+offset {
					synced = true
					q.step(Synced{})
				}
				for _, r := range []*driver{p, q} {
					r.step(Tick{})
					r.serve()
				}
			}
			for i, r := range []*driver{p, q} {
				if l := other[i]; l.Name != "" && shown[l.Name] != l.Version {
					shown[l.Name] = l.Version
					r.step(LeaseObserved{Lease: l})
					r.serve()
				}
			}
			if p.m.TombstoneCount()+q.m.TombstoneCount() > 0 {
				last = p.now
			}
		}
		worst, lasted = max(worst, writes), max(lasted, last.since(start))
	}
	return worst, lasted
}

// R29, R47: the record of another newcomer arrives late, and shows a tombstone whose time this member
// has counted. It blocks nothing any more. A merged one may stand for other Leases than before.
func TestR29_ANewcomerCountsTheTimeOfATombstoneOnce(t *testing.T) {
	for name, c := range map[string]struct {
		uid, holder string
		again       bool
	}{"of one Lease": {"gone", "x_1", false}, "merged": {"", "", true}} {
		t.Run(name, func(t *testing.T) {
			r := newDriver(t).peerRecord("d", PhaseActive)
			r.Newcomer = ""
			p := newNewcomer(t, map[string]Record{"d": r})
			adopts := func() bool {
				r.Seq++
				r.Tombstones = []Tombstone{{UID: c.uid, Holder: c.holder, Claims: Claims{Everything: true}, Duration: 15 * time.Second, Remaining: 2 * time.Second}}
				p.put("lease-d", r)
				p.show("lease-d")
				return p.m.TombstoneCount() == 1
			}
			if !adopts() {
				t.Fatal("a newcomer does not adopt it")
			}
			p.run(3 * time.Second)
			if adopts() != c.again {
				t.Errorf("adopts it again: %v", !c.again)
			}
		})
	}
}
