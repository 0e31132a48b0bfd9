// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"maps"
	"slices"
)

// Watermarks are, by kind, the resourceVersions that a cache of the API server's objects
// must have reached. A member publishes the watermarks of its own writes, so that the
// next owner of its partitions does not start from an older cache.
type Watermarks map[string]string

// maxWatermarks bounds the kinds that a machine remembers: the contents of Leases must
// not be able to exhaust its memory.
const maxWatermarks = 64

// caches is what the machine knows about the caller's caches. It can only delay an
// activation, and only for a bounded time: no guarantee about claims depends on it.
type caches struct {
	published map[string]watermark // the highest of each kind that was on any Lease
	reached   Watermarks           // what the caller has reported
}

type watermark struct {
	version string
	seen    Time // when it was first seen
}

// noteWatermarks records the watermarks on a Lease.
func (m *Machine) noteWatermarks(watermarks Watermarks) {
	for _, kind := range slices.Sorted(maps.Keys(watermarks)) {
		version := watermarks[kind]
		known, ok := m.caches.published[kind]
		switch {
		case !ok && len(m.caches.published) >= maxWatermarks:
		case !ok || CompareVersions(version, known.version) > 0:
			m.caches.published[kind] = watermark{version, m.now}
		}
	}
}

// watermarksReached records the caller's report that its caches have reached the
// watermarks.
func (m *Machine) watermarksReached(watermarks Watermarks) {
	for _, kind := range slices.Sorted(maps.Keys(watermarks)) {
		known, ok := m.caches.reached[kind]
		if ok && CompareVersions(watermarks[kind], known) > 0 || !ok && len(m.caches.reached) < maxWatermarks {
			m.caches.reached[kind] = watermarks[kind]
		}
	}
}

// PendingWatermarks returns the watermarks that partitions would wait for, nil if there
// are none. The caller should report with [WatermarksReached] as soon as its caches have
// reached them: a watermark counts for [Config.CacheSyncTimeout] after it was first seen.
func (m *Machine) PendingWatermarks() Watermarks {
	if m.stage != joining && m.stage != serving {
		return nil
	}
	return m.missing(func(k watermark) bool { return m.now.since(k.seen) < m.cfg.CacheSyncTimeout })
}

// missing returns the watermarks that count and that the caches have not reached.
func (m *Machine) missing(counts func(watermark) bool) (missing Watermarks) {
	for kind, k := range m.caches.published {
		if reached, ok := m.caches.reached[kind]; (!ok || CompareVersions(k.version, reached) > 0) && counts(k) {
			if missing == nil {
				missing = Watermarks{}
			}
			missing[kind] = k.version
		}
	}
	return missing
}

// mustWaitForCache reports whether a claimed partition has to wait for the caches, given
// the present result of PendingWatermarks. A partition waits for CacheSyncTimeout at
// most, however many watermarks are published meanwhile.
func (m *Machine) mustWaitForCache(partition int, pending Watermarks) bool {
	since := &m.parts.heldSince[partition]
	switch {
	case pending == nil:
		return false
	case *since == Time{}:
		*since = m.now
	}
	return m.now.since(*since) < m.cfg.CacheSyncTimeout
}

// countCacheWait counts an activation that had to wait for the caches.
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

// UnreachedWatermarks returns the watermarks that the caches have not reached, including
// those that partitions no longer wait for.
func (m *Machine) UnreachedWatermarks() Watermarks {
	return m.missing(func(watermark) bool { return true })
}

// restartCacheWaits gives the caches the full CacheSyncTimeout again, after a gap in which
// this member may not have run.
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
