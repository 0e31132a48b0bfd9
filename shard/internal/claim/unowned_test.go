// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"testing"
	"time"
)

func TestUnownedTimeIsMeasured(t *testing.T) {
	const others = 2 // partitions that another member owns
	for name, c := range map[string]struct {
		leave      func(*driver, Lease)
		least, max time.Duration
	}{
		"from the release": {
			func(p *driver, l Lease) {
				p.run(5 * time.Second) // the other member has been silent for a while
				l.Record.Holder = ""
				p.put(l.Name, l.Record)
				p.show(l.Name)
			}, 1, time.Second,
		},
		"from the last renewal before an eviction": {
			func(*driver, Lease) {}, 15 * time.Second, 16 * time.Second,
		},
		"from the last renewal before the Lease was deleted": {
			func(p *driver, l Lease) {
				p.run(5 * time.Second)
				p.remove(l.Name)
				p.step(LeaseDeleted{Last: l, Final: true})
			}, 15 * time.Second, 16 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newDriver(t)
			l := p.peer("b", PhaseActive, 1, 2)
			p.join()
			if len(p.unowned) != 0 {
				t.Fatalf("partitions without an owner before were unowned for %v", p.unowned)
			}
			l.Record.Seq++
			l = p.put(l.Name, l.Record) // the last renewal
			p.show(l.Name)
			c.leave(p, l)
			p.run(2 * p.cfg.LeaseDuration)
			p.wantStates(p.all(), nil)
			if len(p.unowned) != others {
				t.Fatalf("%d times for %d partitions: %v", len(p.unowned), others, p.unowned)
			}
			for _, unowned := range p.unowned {
				if unowned < c.least || unowned > c.max {
					t.Errorf("unowned for %v, want %v to %v", unowned, c.least, c.max)
				}
			}
		})
	}
}
