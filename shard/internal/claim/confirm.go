// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import "slices"

// readAlongside sends a read alongside a write that has had no response for RenewPeriod
// (R41), once for each write: the response may be lost.
func (m *Machine) readAlongside() {
	r := m.own.op
	if r.kind != opUpdate || r.hasRead || !m.now.Reached(r.sent.Add(m.cfg.RenewPeriod)) {
		return
	}
	r.hasRead = true
	m.own.read = &request{id: m.op(), kind: opGet, sent: m.now}
	m.do(m.get(m.own.read))
}

// expired reports whether a write is too old to be a renewal.
func (m *Machine) expired(r *request) bool { return m.now.Reached(r.sent.Add(m.cfg.RenewDeadline)) }

// confirmByRead confirms the write that a quorum read of this member's Lease shows (R40). The
// read must show exactly the record that was sent. If that is not the last write that was
// sent, the read shows only that the member has renewed its Lease then: a later write may have
// withdrawn the claims of the record, and may still be committed. It reports whether it is the
// last one.
func (m *Machine) confirmByRead(l Lease) (last bool) {
	n := slices.IndexFunc(m.own.unconfirmed, func(r *request) bool { return r.record.ReadsAs(l.Record) && !m.expired(r) })
	if n < 0 {
		return false
	}
	r := m.own.unconfirmed[n]
	if r.seq < m.own.seq {
		m.renewed(r, l)
		return false
	}
	m.own.op = nil // its response may still arrive, and is ignored
	m.confirmed(r, l)
	return true
}
