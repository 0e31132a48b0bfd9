// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import "time"

// staleRelists is how many times the watch is started again before the machine
// gives up.
const staleRelists = 4

// echo is the proof of a fresh watch: each own confirmed write must come back
// through it. A watch connection can be dead for a long time without an error
// while every write succeeds.
type watchProbe struct {
	waiting []awaited // in the order in which they were confirmed
	heard   bool      // at least one write came back
	uid     string    // of the own Lease as the watch showed it last
	version string
	relists int  // in a row, without an echo
	relist  Time // when the last one was asked for
}

type awaited struct {
	version string
	at      Time
}

// expect waits for a confirmed write. The watch is often faster than the answer.
func (e *watchProbe) expect(uid, version string, now Time) {
	if e.uid == uid && CompareVersions(version, e.version) <= 0 {
		e.heard, e.relists = true, 0
		return
	}
	e.waiting = append(e.waiting, awaited{version, now})
}

// again starts the proof afresh: after a time in which writes did not succeed, the
// watch has to show that it works before it counts as fresh.
func (e *watchProbe) reset() { *e = watchProbe{uid: e.uid, version: e.version, relist: e.relist} }

// seen takes the version of the own Lease in the watch; everything up to it has
// come back.
func (e *watchProbe) seen(uid, version string) {
	e.uid, e.version = uid, version
	n := 0
	for n < len(e.waiting) && CompareVersions(e.waiting[n].version, version) <= 0 {
		n++
	}
	if n > 0 {
		e.waiting = append(e.waiting[:0], e.waiting[n:]...)
		e.heard, e.relists = true, 0
	}
}

// fresh reports whether everything that was written longer than limit ago has
// come back.
func (e *watchProbe) fresh(now Time, limit time.Duration) bool {
	return e.heard && (len(e.waiting) == 0 || now.since(e.waiting[0].at) < limit)
}

// guardWatch starts a watch again that shows nothing new.
func (m *Machine) guardWatch() {
	behind := false
	for _, p := range m.peers {
		if p.suspectVersion != "" && (p.suspectVersion != p.lease.Version || m.now.Mono >= p.suspectAt.Mono) {
			if p.suspectVersion == p.lease.Version {
				behind = true
				p.refusedOp = m.lastOp // or the Lease is gone: that is answered as a conflict, too
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
