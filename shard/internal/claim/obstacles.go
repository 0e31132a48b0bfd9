// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"cmp"
	"slices"
	"time"
)

// Obstacle is what keeps partitions that this member wants from it although no live member
// claims them, as far as it knows (R89).
type Obstacle struct {
	Lease     string // its name; "" if there is none any more
	Holder    string // "" if unknown
	Edited    bool   // its record was edited; otherwise the Lease was deleted or its member is silent
	Remaining time.Duration
}

// OwnsNothing reports whether this member is on the ring and wants partitions, but has none, and
// no live member has those that it wants.
func (m *Machine) OwnsNothing() bool {
	if m.stage != serving || m.parts.want.Empty() {
		return false
	}
	for _, s := range m.parts.state {
		if s != free && s != claimed {
			return false
		}
	}
	for _, p := range m.peers {
		if r := &p.lease.Record; !r.Void() && !m.isObstacle(p) && m.keepsFromMe(r.Claims) {
			return false // that member drains it
		}
	}
	return true
}

// keepsFromMe reports whether claims overlap a partition that this member wants and does not have.
func (m *Machine) keepsFromMe(c Claims) bool {
	for partition := range m.parts.want.All() {
		if s := m.parts.state[partition]; (s == free || s == claimed) && c.overlaps(partition, m.parts.parameters) {
			return true
		}
	}
	return false
}

// isObstacle reports whether a Lease is held, but perhaps not by a live member, or may claim more
// than its member does.
func (m *Machine) isObstacle(p *peer) bool {
	r := &p.lease.Record
	return !r.Void() && (r.Edited || r.Claims.Everything || m.now.since(p.changedAt) > m.cfg.LeaseDuration)
}

// Obstacles returns what keeps partitions from this member that it wants, those first that do so
// for the longest time. A newcomer that waits until it is settled (R49)
// has an obstacle without a name.
func (m *Machine) Obstacles() (list []Obstacle) {
	if m.stage != serving {
		return nil
	}
	for _, p := range m.peers {
		if r := p.lease.Record; m.isObstacle(p) && m.keepsFromMe(r.Claims) {
			remaining := p.changedAt.Add(m.counting(r.Duration)).since(m.now)
			list = append(list, Obstacle{p.lease.Name, r.Holder, r.Edited, max(remaining, 0)})
		}
	}
	for _, t := range m.tombstones {
		if m.keepsFromMe(t.Claims) {
			list = append(list, Obstacle{Holder: t.Holder, Remaining: max(t.until.since(m.now), 0)})
		}
	}
	if k := m.knowledge; len(list) == 0 && !k.settled && k.listed != "" {
		list = append(list, Obstacle{Remaining: max(k.at.Add(m.longest()).since(m.now), 0)})
	}
	slices.SortFunc(list, func(a, b Obstacle) int {
		return cmp.Or(cmp.Compare(b.Remaining, a.Remaining), cmp.Compare(a.Lease, b.Lease), cmp.Compare(a.Holder, b.Holder))
	})
	return list
}
