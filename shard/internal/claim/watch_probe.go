// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import "time"

// staleRelists is how many times the watch is restarted before the machine gives up
// (R34).
const staleRelists = 4

// watchProbe determines whether the watch is fresh (R33): each confirmed write of this
// member must come back through it. A watch connection can be dead for a long time
// without an error while every write succeeds.
type watchProbe struct {
	waiting  []unseenWrite // in the order in which they were confirmed
	returned bool          // at least one write came back
	uid      string        // of this member's Lease as the watch last showed it
	seq      uint64
	relists  int  // in a row, without a write that came back
	relist   Time // when the last one was requested
}

// unseenWrite is a confirmed write that has not come back through the watch.
type unseenWrite struct {
	seq uint64
	at  Time
}

// expect records a confirmed write. The watch often shows it before the response arrives.
func (e *watchProbe) expect(uid string, seq uint64, now Time) {
	if e.uid == uid && seq <= e.seq {
		e.returned, e.relists = true, 0
		return
	}
	e.waiting = append(e.waiting, unseenWrite{seq, now})
}

// reset restarts the probe: after a time in which writes did not succeed, the watch must
// show a new write before it counts as fresh.
func (e *watchProbe) reset() { *e = watchProbe{uid: e.uid, seq: e.seq, relist: e.relist} }

// seen handles the seq of this member's record that the watch shows; all writes up to it have
// come back.
func (e *watchProbe) seen(uid string, seq uint64) {
	e.uid, e.seq = uid, seq
	n := 0
	for n < len(e.waiting) && e.waiting[n].seq <= seq {
		n++
	}
	if n > 0 {
		e.waiting = append(e.waiting[:0], e.waiting[n:]...)
		e.returned, e.relists = true, 0
	}
}

// fresh reports whether at least one write has come back, and so have all writes that were
// confirmed longer than limit ago.
func (e *watchProbe) fresh(now Time, limit time.Duration) bool {
	return e.returned && (len(e.waiting) == 0 || now.since(e.waiting[0].at) < limit)
}

// guardWatch restarts the watch if it is stale (R24, R34).
func (m *Machine) guardWatch() {
	behind := false
	for _, p := range m.peers {
		if p.suspectVersion != "" && (p.suspectVersion != p.lease.Version || m.now.Mono >= p.suspectAt.Mono) {
			if p.suspectVersion == p.lease.Version {
				behind = true
				p.refusedOp = m.lastOp // or the Lease is gone: the server answers that with a conflict, too
			}
			p.suspectVersion = ""
		}
	}
	if behind {
		m.relist()
	}
	e := &m.watchProbe
	if m.own.fenced || len(e.waiting) == 0 || m.now.since(e.waiting[0].at) < m.cfg.WatchLagLimit ||
		e.relists > 0 && m.now.since(e.relist) < m.cfg.WatchLagLimit {
		return // while no write succeeds, the server and not the watch is at fault
	}
	if e.relists >= staleRelists {
		m.end(ErrStaleWatch)
		return
	}
	e.relists++
	m.relist()
}

func (m *Machine) relist() {
	m.stats.Relists++
	m.watchProbe.relist = m.now
	m.do(Relist{})
}
