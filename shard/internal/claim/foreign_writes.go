// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

// followOwn continues from the version of this member's Lease that the watch has shown, if
// another client has written it. If that client may have changed more than it should, the
// member reads the Lease.
func (m *Machine) followOwn() {
	l := m.own.shown
	switch {
	case m.own.op == nil && m.own.gone:
		m.own.version, m.own.answer, m.own.gone = "", true, false
	case m.own.op != nil || m.own.version == "" || CompareVersions(l.Version, m.own.version) <= 0:
	case m.stage == leaving && l.UID == m.own.uid:
		m.own.at(l) // it is void; all that is left is to delete it
	case !m.adopt(l):
		m.own.version = ""
	}
}

// adopt continues from a version of this member's Lease that another client has written, without
// a write (R42): the member's record on it is the last one that was confirmed, or its checksum
// shows to every peer that it was edited. No earlier write of this member can be committed after
// that one. A peer that has evicted this member since then makes its next write conflict.
func (m *Machine) adopt(l Lease) bool {
	r := l.Record
	intact := r.Seq == m.own.confirmedSeq && r.Claims.equal(m.parts.claims())
	if m.own.fenced || l.UID != m.own.uid || r.Holder != m.cfg.Holder || !intact && !r.Edited {
		return false
	}
	m.own.at(l)
	m.own.answer = m.own.answer || r.Edited
	return true
}
