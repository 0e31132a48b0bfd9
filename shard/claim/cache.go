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
type Watermarks map[string]string

// maxMarks bounds the kinds that a machine remembers: what stands on Leases is not
// to be trusted with its memory.
const maxWatermarks = 64

// caches is what the machine knows of the caller's copies of objects. It only ever
// delays an activation, and for a bounded time: nothing that is promised about
// claims rests on it.
type caches struct {
	published map[string]watermark // the highest of each kind that was on any Lease
	reached   Watermarks           // what the caller has said
}

type watermark struct {
	version string
	seen    Time // when it was first seen
}

// publish takes the marks of a Lease.
func (m *Machine) noteWatermarks(marks Watermarks) {
	for _, kind := range slices.Sorted(maps.Keys(marks)) {
		version := marks[kind]
		known, is := m.caches.published[kind]
		switch {
		case !is && len(m.caches.published) >= maxWatermarks:
		case !is || CompareVersions(version, known.version) > 0:
			m.caches.published[kind] = watermark{version, m.now}
		}
	}
}

// caughtUp takes the caller's word that its copies have come that far.
func (m *Machine) watermarksReached(marks Watermarks) {
	for _, kind := range slices.Sorted(maps.Keys(marks)) {
		known, is := m.caches.reached[kind]
		if is && CompareVersions(marks[kind], known) > 0 || !is && len(m.caches.reached) < maxWatermarks {
			m.caches.reached[kind] = marks[kind]
		}
	}
}

// Awaited returns the marks that partitions would wait for, nil if there are none.
// The caller says with [CaughtUp] when its copies have come that far, the sooner the
// better: a mark is good for [Config.CacheSyncTimeout] after it was first seen.
func (m *Machine) PendingWatermarks() Watermarks {
	if m.stage != joining && m.stage != serving {
		return nil
	}
	return m.missing(func(k watermark) bool { return m.now.since(k.seen) < m.cfg.CacheSyncTimeout })
}

// missing returns the marks that were not reached, of those that count.
func (m *Machine) missing(counts func(watermark) bool) (missing Watermarks) {
	for kind, k := range m.caches.published {
		if reached, is := m.caches.reached[kind]; (!is || CompareVersions(k.version, reached) > 0) && counts(k) {
			if missing == nil {
				missing = Watermarks{}
			}
			missing[kind] = k.version
		}
	}
	return missing
}

// holdBack reports whether a claimed partition has to wait for the caches, given what
// Awaited returns now. It does
// so for CacheSyncTimeout at most, however many marks are published meanwhile.
func (m *Machine) mustWaitForCache(partition int, awaited Watermarks) bool {
	since := &m.parts.heldSince[partition]
	switch {
	case awaited == nil:
		return false
	case *since == Time{}:
		*since = m.now
	}
	return m.now.since(*since) < m.cfg.CacheSyncTimeout
}

// goOn counts an activation that had to wait for the caches.
func (m *Machine) countCacheWait(partition int) {
	if m.parts.heldSince[partition] == (Time{}) {
		return
	}
	m.parts.heldSince[partition] = Time{}
	if m.UnreachedWatermarks() == nil {
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
			at(m.parts.heldSince[p].Add(m.cfg.CacheSyncTimeout))
		}
	}
	if waits {
		for _, k := range m.caches.published {
			at(k.seen.Add(m.cfg.CacheSyncTimeout))
		}
	}
}

// Lagging returns the marks that the caches have not reached, whether they are
// still waited for or not.
func (m *Machine) UnreachedWatermarks() Watermarks {
	return m.missing(func(watermark) bool { return true })
}

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
