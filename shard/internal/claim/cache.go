// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"maps"
	"slices"
)

// Watermarks are the resourceVersions that caches of the API server's objects must have
// reached, by the name of the cache. A member publishes the watermarks of its own writes, so
// that the next owner of its partitions does not start from an older cache.
type Watermarks map[string]string

const (
	// MaxWatermarks bounds the watermarks of one member.
	MaxWatermarks = 16
	// WatermarkName is a regular expression for the names.
	WatermarkName = `[A-Za-z][A-Za-z0-9._-]{0,99}`
)

// caches is what the machine knows about the caller's caches. It can only delay an
// activation, and only for a bounded time: no guarantee about claims depends on it.
//
// Each Lease has its own watermarks, so that one that no cache will ever reach hides no other.
type caches struct {
	published map[string]map[string]watermark // by the UID of the Lease, and by name
}

type watermark struct {
	version string
	seen    Time // when it was first seen
	reached bool // the caller has reported it
}

// recent reports whether the watermark counts: for CacheSyncTimeout after it was first seen.
func (m *Machine) recent(k watermark) bool { return m.now.since(k.seen) < m.cfg.CacheSyncTimeout }

// noteWatermarks records the watermarks on a Lease.
func (m *Machine) noteWatermarks(l Lease) {
	of := m.caches.published[l.UID]
	for _, name := range slices.Sorted(maps.Keys(l.Record.Watermarks)) {
		version := l.Record.Watermarks[name]
		known, ok := of[name]
		switch {
		case !ok && len(of) >= MaxWatermarks:
			continue
		case ok && (version == known.version || CompareVersions(version, known.version) < 0 && m.recent(known)):
			continue // repeated, or an old message
		case of == nil:
			m.dropWatermarks()
			of = map[string]watermark{}
			m.caches.published[l.UID] = of
		}
		of[name] = watermark{version, m.now, m.hasReached(name, version)}
	}
}

// hasReached reports whether the caches are known to have reached a watermark.
func (m *Machine) hasReached(name, version string) bool {
	for _, of := range m.caches.published {
		if k := of[name]; k.reached && CompareVersions(version, k.version) <= 0 {
			return true
		}
	}
	return false
}

// dropWatermarks forgets the watermarks that have expired on Leases that exist no more. On
// others they are remembered, so that each counts only once.
func (m *Machine) dropWatermarks() {
	exists := map[string]bool{m.own.uid: true}
	for _, p := range m.peers {
		exists[p.lease.UID] = true
	}
	maps.DeleteFunc(m.caches.published, func(uid string, of map[string]watermark) bool {
		return !exists[uid] && !slices.ContainsFunc(slices.Collect(maps.Values(of)), m.recent)
	})
}

// watermarksReached records the caller's report that its caches have reached the
// watermarks.
func (m *Machine) watermarksReached(watermarks Watermarks) {
	for _, of := range m.caches.published {
		for name, k := range of {
			if version, ok := watermarks[name]; ok && CompareVersions(k.version, version) <= 0 {
				k.reached = true
				of[name] = k
			}
		}
	}
}

// PendingWatermarks returns the watermarks that partitions would wait for, nil if there
// are none. The caller should report with [WatermarksReached] as soon as its caches have
// reached them.
func (m *Machine) PendingWatermarks() Watermarks {
	if m.stage != joining && m.stage != serving {
		return nil
	}
	return m.missing(m.recent)
}

// missing returns the highest watermarks of those that count and that the caches have not
// reached.
func (m *Machine) missing(counts func(watermark) bool) (missing Watermarks) {
	for _, of := range m.caches.published {
		for name, k := range of {
			if known, ok := missing[name]; k.reached || !counts(k) || ok && CompareVersions(k.version, known) <= 0 {
				continue
			}
			if missing == nil {
				missing = Watermarks{}
			}
			missing[name] = k.version
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
	if !waits {
		return
	}
	for _, of := range m.caches.published {
		for _, k := range of {
			at(k.seen.Add(m.cfg.CacheSyncTimeout))
		}
	}
}

// UnreachedWatermarks returns the watermarks that the caches have not reached, including
// those that a partition that becomes active now has ceased to wait for.
func (m *Machine) UnreachedWatermarks() Watermarks {
	return m.missing(func(k watermark) bool { return m.now.since(k.seen) < 2*m.cfg.CacheSyncTimeout })
}

// restartCacheWaits gives the caches the full CacheSyncTimeout again, after a gap in which
// this member may not have run.
func (m *Machine) restartCacheWaits() {
	for p, since := range m.parts.heldSince {
		if since != (Time{}) {
			m.parts.heldSince[p] = m.now
		}
	}
	for _, of := range m.caches.published {
		for name, k := range of {
			k.seen = m.now
			of[name] = k
		}
	}
}
