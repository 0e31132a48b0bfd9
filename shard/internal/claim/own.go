// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"cmp"
	"slices"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// own is what the machine knows of its own Lease.
type own struct {
	op   *request // in flight; at most one (R7), so that no two writes can overtake each other
	read *request // a read alongside op, which is a write without a response (R41)
	// unconfirmed are the writes that no response and no read has confirmed, in the order in
	// which they were sent. A read may still confirm one of them (R40).
	unconfirmed []*request

	gone bool // the watch has shown the end of the Lease, and it was not read since
	// ends has the UIDs of the Leases of this name of which the watch has shown the end since
	// the last read was sent.
	ends map[string]bool

	uid     string // "" until the Lease was created
	created time.Time
	version string // "" if unknown: the Lease must be read before it is written again (R4)

	// Of the last confirmed write. The server must never show lower ones.
	confirmedVersion string
	confirmedSeq     uint64
	seq              uint64 // of the last write that was sent

	fence       Time // no work at this moment or later; counts only while not fenced
	fenced      bool // also before the first confirmed write
	confirmedAt Time // when the last confirmation came; zero before the first
	phase       Phase
	heirSince   string   // the version of the first write, confirmed while draining, that had all tombstones; "" if none
	watched     string   // in the last write that was sent
	newcomer    Newcomer // likewise

	extra    Extra // what other clients have put on the Lease at version
	shown    Lease // the last version that the watch has shown
	answer   bool  // another client has changed what this member must write again
	answerAt Time  // when it may do so before its next renewal

	renewAt  Time // when the next renewal is due
	retryAt  Time // after a failure, nothing is sent before it
	failures int  // in a row
}

// request is a request in flight to the Lease of this member's name.
type request struct {
	id         uint64
	kind       kind
	sent       Time
	seq        uint64
	phase      Phase
	claiming   ring.Set // becomes claimed if the write is confirmed
	released   ring.Set // given up with it, whether the write succeeds or not
	record     Record   // of an opUpdate
	tombstones uint64   // Machine.tombstonesPut when an opUpdate was sent
	hasRead    bool     // a read was sent alongside it
}

type kind uint8

const (
	opGet kind = iota
	opCreate
	opUpdate
	opVoid   // the last write of a stopping member
	opDelete // of this member's void Lease, or of an earlier void Lease of its name
	opEvict  // of another holder of this name's Lease that is dead or silent
)

// Fence returns the moment from which on this member must not act (R35). It returns
// false while the member is fenced. The caller must compare the moment with both clocks
// each time it hands out work: a process that was paused may resume there, before the
// machine gets an event.
func (m *Machine) Fence() (Time, bool) { return m.own.fence, !m.own.fenced }

// timeout bounds one request (R41, R63): a server may need longer than RenewPeriod for each
// of them, and a second attempt must be possible before the fence.
func (m *Machine) timeout() time.Duration { return m.cfg.RenewDeadline / 2 }

// begin records a request as in flight.
func (m *Machine) begin(k kind) *request {
	m.own.op = &request{id: m.op(), kind: k, sent: m.now}
	return m.own.op
}

// finish returns the request that a response belongs to, or nil if it does not belong to
// the request in flight.
func (m *Machine) finish(id uint64) *request {
	r := m.own.op
	if r == nil || r.id != id {
		return nil
	}
	m.own.op, m.own.read = nil, nil
	return r
}

// writeOwn sends the next request to this member's Lease if one is due and none is in
// flight (R7). Every write replaces the whole record, on the condition of the known
// version, and counts as a renewal.
func (m *Machine) writeOwn() {
	if m.own.op != nil {
		m.readAlongside()
		return
	}
	if !m.now.Reached(m.own.retryAt) {
		return
	}
	switch {
	case m.stage == acquiring:
		m.acquire()
	case m.stage == leaving && m.seesHeldLease():
		// Of members that stop together, the one that voids its Lease last has seen the others'
		// void Leases when its watch has come to its own.
		if CompareVersions(m.watched, m.own.version) >= 0 || m.now.since(m.leftAt) >= m.cfg.Coalesce {
			m.end(ErrStopped) // peers see the void Lease, and one of them deletes it (R39)
		}
	case m.stage == leaving && (len(m.tombstones) > 0 || m.knowledge.witness && !m.knowledge.settled):
		// Its void Lease may be the only place where the tombstones are, or the only sign that
		// members were at work: the next newcomer must wait, too (R39, R49).
		m.end(ErrStopped)
	case m.stage == leaving:
		if m.sweepAll() {
			return
		}
		r := m.begin(opDelete)
		m.do(DeleteLease{Op: r.id, Name: m.cfg.Lease, UID: m.own.uid, Version: m.own.version, Timeout: m.timeout()})
	case m.own.version == "":
		r := m.begin(opGet)
		m.do(m.get(r))
	case m.stage == stopping && m.parts.quiescent() && m.StaysFor() == 0:
		m.sendVoid()
	case m.updateDue():
		m.sendUpdate()
	}
}

// updateDue reports whether a write is due. After a read that followed a failure, and
// while fenced, it always is: only a confirmed write makes the contents of the Lease
// certain and lifts the fence. A member that stops waits for Config.Coalesce before it
// publishes that it drains: without work in flight, its next write voids the Lease instead.
// It answers other clients that write its Lease at most once per renew period (R42).
func (m *Machine) updateDue() bool {
	return m.own.failures > 0 || m.own.fenced ||
		m.own.answer && m.now.Reached(m.own.answerAt) ||
		m.now.Reached(m.own.renewAt) ||
		m.own.phase != m.phase() && (m.stage != stopping || m.now.Reached(m.stoppedAt.Add(m.cfg.Coalesce))) ||
		m.tombstonesDue || m.newcomerDue() ||
		m.parts.waiting && m.now.Reached(m.parts.waitUntil)
}

// phase returns the phase that the next write publishes.
func (m *Machine) phase() Phase {
	switch m.stage {
	case serving:
		return PhaseActive
	case stopping, leaving:
		return PhaseDraining
	}
	return PhaseJoining
}

// get returns the request that reads this member's Lease.
func (m *Machine) get(r *request) GetLease {
	clear(m.own.ends)
	return GetLease{Op: r.id, UID: cmp.Or(m.own.uid, m.knowledge.lease), Timeout: m.timeout()}
}

func (m *Machine) sendUpdate() {
	r := m.begin(opUpdate)
	r.phase, r.tombstones, m.tombstonesDue = m.phase(), m.tombstonesPut, false
	if m.own.answer {
		m.own.answer, m.own.answerAt = false, m.now.Add(m.cfg.RenewPeriod)
	}
	// The released partitions are given up before the request is sent (R13, R20): it may
	// be committed although no response arrives, and another member may start at that
	// moment.
	if r.released = m.parts.release(); !r.released.Empty() {
		m.do(Released{Partitions: r.released})
	}
	r.claiming = m.parts.claimable.Clone()
	claims := m.parts.claims()
	for p := range r.claiming.All() {
		claims.Set.Add(p)
	}
	m.parts.waiting = false
	m.own.seq++
	r.seq = m.own.seq
	r.record = m.record(r.phase, claims)
	m.own.unconfirmed = append(slices.DeleteFunc(m.own.unconfirmed, m.expired), r)
	m.do(WriteLease{Op: r.id, UID: m.own.uid, Version: m.own.version, Record: r.record, Timeout: m.timeout()})
}

// sendVoid releases the remaining partitions and voids the Lease (R39).
func (m *Machine) sendVoid() {
	r := m.begin(opVoid)
	if released := m.parts.releaseAll(); !released.Empty() {
		m.do(Released{Partitions: released})
	}
	m.own.seq++
	r.seq = m.own.seq
	record := m.record(PhaseDraining, m.parts.claims())
	record.Holder = ""
	m.do(WriteLease{Op: r.id, UID: m.own.uid, Version: m.own.version, Record: record, Timeout: m.timeout()})
}

func (m *Machine) record(phase Phase, claims Claims) Record {
	m.own.watched, m.own.newcomer = m.watched, m.newcomer()
	return Record{
		Member:      m.cfg.Member,
		Holder:      m.cfg.Holder,
		PodUID:      m.cfg.PodUID,
		Duration:    m.cfg.LeaseDuration,
		Phase:       phase,
		Seq:         m.own.seq,
		Fingerprint: m.cfg.Parameters.Fingerprint(),
		Parameters:  m.cfg.Parameters,
		Claims:      claims,
		Tombstones:  m.tombstonesToPublish(),
		Watched:     m.watched,
		Newcomer:    m.newcomer(),
		Longest:     m.longest(),
		Extra:       m.own.extra,
	}
}

// wrote handles the response to CreateLease and WriteLease (R6, R8, R15). A response to a
// write that a read has confirmed comes too late: the request is no longer in flight.
func (m *Machine) wrote(e WriteResult) {
	r := m.finish(e.Op)
	if r == nil {
		return
	}
	if e.Outcome != OK {
		m.stats.HeartbeatFailures++
		if e.Outcome == Conflict {
			m.stats.Conflicts++
		}
		m.failed(e.Outcome, e.RetryAfter)
		return
	}
	if r.kind == opCreate {
		m.acquired(e.Lease)
	}
	m.confirmed(r, e.Lease)
}

// confirmed handles the confirmation of the last write that was sent, by its response or by
// a read (R40). The Lease has, or had, the record of that write.
func (m *Machine) confirmed(r *request, l Lease) {
	m.renewed(r, l)
	m.own.failures, m.own.retryAt = 0, Time{}
	m.own.renewAt = r.sent.Add(m.jitter(m.cfg.RenewPeriod))
	if m.own.phase != r.phase {
		m.own.phase = r.phase
		m.viewDirty = true
	}
	if r.phase == PhaseDraining && r.tombstones == m.tombstonesPut && m.own.heirSince == "" {
		m.own.heirSince = l.Version
	}
	if r.kind == opVoid {
		m.stage, m.leftAt = leaving, m.now
		return
	}
	m.watchProbe.expect(m.own.uid, r.seq, m.now)
	m.parts.reclaim(l.Version)
	if claimed := m.parts.confirm(r.claiming, l.Version); !claimed.Empty() {
		m.do(Claimed{Partitions: claimed})
	}
	m.followOwn()
}

// renewed handles the confirmation of a write as a renewal. Writes are confirmed in the order
// in which they were sent, so each of them moves the fence to a later time.
func (m *Machine) renewed(r *request, l Lease) {
	m.stats.Heartbeats++
	if m.now.since(m.own.confirmedAt) > 2*m.cfg.RenewPeriod || m.own.confirmedVersion == "" {
		// While its own renewals failed, this member may have missed the renewals of its
		// peers, too (R26). Otherwise the first member to recover would evict every peer.
		m.restartTimers()
		m.watchProbe.reset()
	}
	m.own.at(l)
	m.own.confirmedVersion, m.own.confirmedSeq = l.Version, r.seq
	m.own.confirmedAt = m.now
	m.own.unconfirmed = slices.DeleteFunc(m.own.unconfirmed, func(u *request) bool { return u.seq <= r.seq })
	if r.kind == opVoid {
		return
	}
	// Counted from the send time (R6): the server, and so the peers, may have seen the
	// write that early.
	m.own.fence = r.sent.Add(m.cfg.RenewDeadline)
	switch {
	case m.now.Reached(m.own.fence):
		// The response took longer than the renewal is valid: read first (R4).
		m.own.version = ""
	case m.own.fenced:
		m.own.fenced = false
		m.do(Unfenced{})
	}
}

// at records the version of this member's Lease from which its next write continues.
func (o *own) at(l Lease) { o.version, o.extra = l.Version, l.Record.Extra }

// failed schedules the next attempt. The machine concludes nothing from the failed request
// (R8): it may or may not have been committed. Only a request that was refused has changed
// nothing, and needs no read. After a conflict the next attempt follows at once, unless there
// were several failures in a row. The server may ask for a longer wait; but others, which are
// not busy, may serve the next attempt.
func (m *Machine) failed(o Outcome, retryAfter time.Duration) {
	if o != Refused || m.own.fenced {
		m.own.version = ""
	}
	m.own.failures++
	wait := time.Duration(0)
	if o == Unknown || o == Refused || m.own.failures > 2 {
		wait = m.jitter(min(50*time.Millisecond<<min(m.own.failures, 10), m.cfg.RenewPeriod/2))
		wait = max(wait, min(retryAfter, m.cfg.RenewPeriod/4))
	}
	m.own.retryAt = m.now.Add(wait)
}

// got handles the response to GetLease. It checks whether this machine still holds the
// Lease, and ends the machine if not (R4, R5).
func (m *Machine) got(e GetResult) {
	alongside := m.own.read != nil && m.own.read.id == e.Op
	if alongside {
		m.own.read = nil
	} else if m.finish(e.Op) == nil {
		return
	}
	if e.Outcome == Unknown || e.Outcome == Refused {
		if !alongside {
			m.failed(e.Outcome, e.RetryAfter)
		}
		return
	}
	if m.stage == acquiring {
		m.found(e)
		return
	}
	l := e.Lease
	if e.Outcome == OK && !m.own.ends[l.UID] {
		m.observeSameName(l)
	}
	switch {
	case e.Outcome != OK:
		m.lost(ErrVanished)
	case CompareVersions(l.Version, m.own.confirmedVersion) < 0:
		m.wentBack = true
		m.lost(ErrWentBack) // also if the holder is another one (R51)
	case l.UID == m.own.uid && l.Record.EvictedBy != "":
		m.lost(ErrEvicted)
	case l.UID != m.own.uid || l.Record.Holder != m.cfg.Holder || l.Record.Seq < m.own.confirmedSeq && !l.Record.Edited:
		m.lost(ErrTakenOver)
	case !e.Unselected && m.confirmByRead(l):
	case alongside:
		// The write without a response is conditional on the version that the member knew. Its
		// outcome decides.
	case m.own.failures == 0 && m.adopt(l): // no write of this member is in doubt
	default:
		// If the record was edited (R32), the next write restores it.
		// Only the version is adopted, never the claims (R8): a release that timed out may
		// still be in flight (R20).
		m.own.at(l)
		m.own.failures = max(m.own.failures, 1)
		if m.own.fenced {
			m.recheck()
		}
	}
}

// recheck makes what was active wait for a list before work on it continues (R52): a peer
// may have evicted this member, and someone may then have applied its old record again, which
// looks like its own.
func (m *Machine) recheck() {
	checking := m.parts.recheck(m.now)
	m.list.discard(m.parts.oldToken)
	if !checking.Empty() {
		m.do(Drain{Partitions: checking})
	}
}

// lost ends the machine because it no longer holds its Lease. If it was about to leave
// anyway, it has stopped as requested.
func (m *Machine) lost(reason error) {
	if m.stage == stopping && m.parts.quiescent() {
		reason = ErrStopped
	}
	m.end(reason)
}

// deleted handles the response to DeleteLease.
func (m *Machine) deleted(e DeleteResult) {
	if r := m.finish(e.Op); r != nil {
		switch {
		case m.stage == leaving:
			// Whatever the outcome: a void Lease claims nothing, and peers delete it.
			m.end(ErrStopped)
		case e.Outcome == Unknown || e.Outcome == Refused:
			m.failed(e.Outcome, e.RetryAfter)
		}
		return
	}
	m.swept(e)
}
