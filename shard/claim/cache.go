// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"maps"
	"slices"
)

// Marks say how far a copy of the API server's objects must have come: by kind, a
// resourceVersion. A member publishes those of what it has written, so that who
// gets its partitions does not begin with a copy that is older.
type Marks map[string]string

// maxMarks bounds the kinds that a machine remembers: what stands on Leases is not
// to be trusted with its memory.
const maxMarks = 64

// caches is what the machine knows of the caller's copies of objects. It only ever
// delays an activation, and for a bounded time: nothing that is promised about
// claims rests on it.
type caches struct {
	published map[string]mark // the highest of each kind that was on any Lease
	reached   Marks           // what the caller has said
}

type mark struct {
	version string
	seen    Time // when it was first seen
}

// publish takes the marks of a Lease.
func (m *Machine) publish(marks Marks) {
	for _, kind := range slices.Sorted(maps.Keys(marks)) {
		version := marks[kind]
		known, is := m.caches.published[kind]
		switch {
		case !is && len(m.caches.published) >= maxMarks:
		case !is || CompareVersions(version, known.version) > 0:
			m.caches.published[kind] = mark{version, m.now}
		}
	}
}

// caughtUp takes the caller's word that its copies have come that far.
func (m *Machine) caughtUp(marks Marks) {
	for _, kind := range slices.Sorted(maps.Keys(marks)) {
		known, is := m.caches.reached[kind]
		if is && CompareVersions(marks[kind], known) > 0 || !is && len(m.caches.reached) < maxMarks {
			m.caches.reached[kind] = marks[kind]
		}
	}
}

// Awaited returns the marks that partitions would wait for, nil if there are none.
// The caller says with [CaughtUp] when its copies have come that far, the sooner the
// better: a mark is good for [Config.CacheWait] after it was first seen.
func (m *Machine) Awaited() Marks {
	if m.stage != joining && m.stage != serving {
		return nil
	}
	return m.missing(func(k mark) bool { return m.now.since(k.seen) < m.cfg.CacheWait })
}

// missing returns the marks that were not reached, of those that count.
func (m *Machine) missing(counts func(mark) bool) (missing Marks) {
	for kind, k := range m.caches.published {
		if reached, is := m.caches.reached[kind]; (!is || CompareVersions(k.version, reached) > 0) && counts(k) {
			if missing == nil {
				missing = Marks{}
			}
			missing[kind] = k.version
		}
	}
	return missing
}

// holdBack reports whether a claimed partition has to wait for the caches, given what
// Awaited returns now. It does
// so for CacheWait at most, however many marks are published meanwhile.
func (m *Machine) holdBack(partition int, awaited Marks) bool {
	since := &m.parts.heldSince[partition]
	switch {
	case awaited == nil:
		return false
	case *since == Time{}:
		*since = m.now
	}
	return m.now.since(*since) < m.cfg.CacheWait
}

// goOn counts an activation that had to wait for the caches.
func (m *Machine) goOn(partition int) {
	if m.parts.heldSince[partition] == (Time{}) {
		return
	}
	m.parts.heldSince[partition] = Time{}
	if m.Lagging() == nil {
		m.stats.CacheWaits++
	} else {
		m.stats.CacheWaitsGivenUp++
	}
}

// cacheTimes calls at with the moments at which a wait for the caches ends.
func (m *Machine) cacheTimes(at func(Time)) {
	waits := false
	for p, s := range m.parts.state {
		if s == claimed && m.parts.heldSince[p] != (Time{}) {
			waits = true
			at(m.parts.heldSince[p].Add(m.cfg.CacheWait))
		}
	}
	if waits {
		for _, k := range m.caches.published {
			at(k.seen.Add(m.cfg.CacheWait))
		}
	}
}

// Lagging returns the marks that the caches have not reached, whether they are
// still waited for or not.
func (m *Machine) Lagging() Marks { return m.missing(func(mark) bool { return true }) }

// restartCacheWaits gives the caches their whole time again, after a gap in which this
// member may not have run.
func (m *Machine) restartCacheWaits() {
	for p, since := range m.parts.heldSince {
		if since != (Time{}) {
			m.parts.heldSince[p] = m.now
		}
	}
	for kind, k := range m.caches.published {
		k.seen = m.now
		m.caches.published[kind] = k
	}
}
