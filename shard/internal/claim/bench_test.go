// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// busyFleet returns a serving machine in a fleet, with the partitions of the default ring
// spread over all members, and the Leases of the other members.
func busyFleet(b *testing.B, members int) (*driver, []Lease) {
	b.Helper()
	t := new(testing.T)
	p := newDriver(t, func(c *Config) { c.Member, c.Parameters = "m-000", ring.DefaultParameters() })
	names := []string{"m-000"}
	for i := 1; i < members; i++ {
		names = append(names, fmt.Sprintf("m-%03d", i))
	}
	var others []Lease
	for _, name := range names[1:] {
		others = append(others, p.put("lease-"+name, p.peerRecord(name, PhaseActive, p.owned(name, names...)...)))
	}
	p.step(Tick{})
	for _, l := range others {
		p.show(l.Name)
	}
	p.join()
	if t.Failed() {
		b.Fatal("the fleet does not form")
	}
	return p, others
}

// BenchmarkStep measures the most frequent events, with the default ring of 509 partitions:
// another member's renewal, and a tick.
func BenchmarkStep(b *testing.B) {
	for _, members := range []int{3, 10, 100} {
		b.Run(fmt.Sprintf("renewal/members=%d", members), func(b *testing.B) {
			p, others := busyFleet(b, members)
			version := p.server.Revision
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				version++
				l := others[i%len(others)]
				l.Version = strconv.FormatUint(version, 10)
				p.m.Step(p.now, LeaseObserved{Lease: l})
				i++
			}
		})
		b.Run(fmt.Sprintf("tick/members=%d", members), func(b *testing.B) {
			p, _ := busyFleet(b, members)
			b.ReportAllocs()
			for b.Loop() {
				p.m.Step(p.now, Tick{})
			}
		})
		b.Run(fmt.Sprintf("next/members=%d", members), func(b *testing.B) {
			p, _ := busyFleet(b, members)
			b.ReportAllocs()
			for b.Loop() {
				p.m.Next()
			}
		})
		b.Run(fmt.Sprintf("leave-and-join/members=%d", members), func(b *testing.B) {
			p, others := busyFleet(b, members)
			l, void := others[0], others[0]
			void.Record.Holder, void.Record.Claims = "", Claims{}
			void.Version = "0"
			b.ReportAllocs()
			for b.Loop() {
				for _, shown := range []Lease{void, l} {
					p.m.building.next = Time{} // as if the last ring were old
					for _, a := range p.m.Step(p.now, LeaseObserved{Lease: shown}) {
						if a, ok := a.(BuildRing); ok {
							p.m.Step(p.now, a.Build())
							break // the actions are no longer valid
						}
					}
				}
			}
		})
	}
}
