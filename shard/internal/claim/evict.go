// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/zeebo/xxh3"
)

// restartTimers restarts every peer's timer with its full duration (R26).
func (m *Machine) restartTimers() {
	for _, p := range m.peers {
		p.changedAt = m.now
	}
	m.restartCacheWaits()
}

// maxRemovals is how many evictions and deletions of peers' Leases may be in flight
// (R27). Many members may have died at once: a rate limiter, a proxy or a busy server
// that serves such requests slowly must not delay the member's renewals for long.
const maxRemovals = 4

// startRemoval records that a peer's Lease is being evicted or deleted.
func (m *Machine) startRemoval(p *peer) uint64 {
	p.op, p.opVersion = m.op(), p.lease.Version
	m.removals[p.op] = struct{}{}
	return p.op
}

// mayRemove reports whether one more eviction or deletion may be sent.
func (m *Machine) mayRemove() bool { return len(m.removals) < maxRemovals }

// evictSilent evicts the peers whose Leases have not changed for the duration that they
// declare (R25).
func (m *Machine) evictSilent() {
	if !m.mayRemove() || !m.canTrustView() {
		return
	}
	alive := m.alive()
	silent := m.peersWhere(func(p *peer) bool {
		return !p.lease.Record.Void() && p.op == 0 && m.now.Mono >= p.retryAt.Mono && m.now.Mono >= m.evictAt(p, alive).Mono
	})
	turns := make(map[*peer]time.Duration, len(silent))
	for _, p := range silent {
		turns[p] = turn(m.cfg.Lease, p.lease.Name, alive())
	}
	// Peers whose eviction has failed come last, so that they do not delay the others.
	// Among the rest, those come first whose turn this member has first: once all turns
	// have come, all members would otherwise send the same requests at the same time.
	slices.SortStableFunc(silent, func(a, b *peer) int {
		return cmp.Or(cmp.Compare(a.failures, b.failures), cmp.Compare(turns[a], turns[b]))
	})
	for _, p := range silent {
		if !m.mayRemove() {
			return
		}
		m.do(m.eviction(m.startRemoval(p), p.lease))
	}
}

// eviction returns the request that voids a Lease (R23).
func (m *Machine) eviction(op uint64, l Lease) EvictLease {
	return EvictLease{
		Op: op, Name: l.Name, UID: l.UID, Version: l.Version,
		Member: l.Record.Member, PodUID: l.Record.PodUID, Finalizers: l.Finalizers, Timeout: m.timeout(),
	}
}

// evictAt returns when this member evicts the peer if it stays silent. alive is that of the
// function with this name.
func (m *Machine) evictAt(p *peer, alive func() []string) Time {
	at := p.changedAt.Add(m.counting(p.lease.Record.Duration))
	if m.now.Mono < at.Mono {
		return at // the turn is computed when that time has come
	}
	return at.Add(turn(m.cfg.Lease, p.lease.Name, alive()))
}

// alive returns a function that returns the Leases of the peers that are alive. It looks for
// them once, when it is first called: there may be as many silent peers as others, and each
// step asks for each of them.
func (m *Machine) alive() func() []string {
	return sync.OnceValue(func() (names []string) {
		for _, p := range m.peers {
			r := &p.lease.Record
			if !r.Void() && r.Phase == PhaseActive && m.now.since(p.changeSeenAt) < m.counting(r.Duration)/2 {
				names = append(names, p.lease.Name)
			}
		}
		return names
	})
}

// turn returns how long the member with the Lease own waits for the other live members to
// evict a peer first. Members take turns so that they do not all send the same request, of
// which all but one end in a conflict. A hash gives each peer its own order of members, so that
// when many members have died their evictions are spread over all live members. Members may
// compute different orders: that only costs a conflict.
func turn(own, peer string, alive []string) time.Duration {
	const step, most = 50 * time.Millisecond, time.Second
	seed := xxh3.HashString(peer)
	mine := xxh3.HashStringSeed(own, seed)
	wait := time.Duration(0)
	for _, other := range alive {
		if xxh3.HashStringSeed(other, seed) < mine {
			if wait += step; wait >= most {
				break
			}
		}
	}
	return wait
}

// refusedPeer reports whether there is a peer for which a list must show whether its Lease
// still exists.
func (m *Machine) refusedPeer() bool {
	for _, p := range m.peers {
		if p.refusedOp != 0 {
			return true
		}
	}
	return false
}

// findDeleted handles a quorum list that was sent as the given op. A peer whose eviction
// was refused at least a second before the list, and whose Lease is not in the list, is
// gone although the watch did not show its end: the watch never shows the end of a Lease
// that it has not shown, but the first list may have contained that Lease. The member may
// have claimed anything since it was last seen.
func (m *Machine) findDeleted(op uint64, inList map[string]bool) {
	for _, p := range m.peersWhere(func(p *peer) bool { return p.refusedOp != 0 && p.refusedOp < op }) {
		p.refusedOp = 0
		if !inList[p.lease.UID] {
			m.removePeer(p.lease, false)
		}
	}
}

// backoff returns the delay after the given number of failures. It grows, and it is
// jittered so that members whose requests failed together do not retry together (R27).
func (m *Machine) backoff(failures int) time.Duration {
	d := min(m.cfg.RenewPeriod/8<<min(failures-1, 10), 2*m.cfg.RenewPeriod)
	return d - time.Duration(m.rand.Int64N(int64(d)/2+1))
}

// evicted handles the response to EvictLease.
func (m *Machine) evicted(e EvictResult) {
	delete(m.removals, e.Op)
	if e.Outcome == OK {
		m.stats.Evictions++
	} else if e.Outcome == Conflict {
		m.stats.EvictionsRefused++
	}
	if r := m.finish(e.Op); r != nil {
		if e.Outcome == Unknown || e.Outcome == Refused {
			m.failed(e.Outcome, e.RetryAfter)
		}
		return
	}
	for _, p := range m.peers {
		if p.op != e.Op {
			continue
		}
		p.op = 0
		switch e.Outcome {
		case OK:
			if p.lease.Version == p.opVersion { // otherwise the watch was faster
				m.observe(e.Lease, false)
			}
		case NotFound:
			// The watch never shows the end of a Lease that only a list has shown.
			m.removePeer(p.lease, false)
		case Conflict:
			// Another client has written the Lease: the next version that the watch shows
			// decides (R24). Another holder or seq shows that the peer is alive. Otherwise the
			// eviction is repeated with that version. If the watch shows no newer version, it
			// is stale, and the eviction is not repeated with the refused version.
			if p.lease.Version == p.opVersion {
				p.retryAt = m.now.Add(m.cfg.LeaseDuration)
				p.suspectAt, p.suspectVersion = m.now.Add(time.Second), p.lease.Version
			}
		default:
			p.failures++
			p.retryAt = m.now.Add(max(m.backoff(p.failures), min(e.RetryAfter, 2*m.cfg.RenewPeriod)))
		}
		return
	}
}

// sweepVoid deletes void Leases that still exist one lease duration after they became void
// (R39). Until then an evicted member can read that it was evicted. Only one member, the
// first of the view, does so.
func (m *Machine) sweepVoid() {
	if m.rank != 0 || !m.mayRemove() || !m.canTrustView() {
		return
	}
	void := m.peersWhere(func(p *peer) bool {
		return p.lease.Record.Void() && p.op == 0 && m.now.Mono >= p.sweepAt.Mono
	})
	for _, p := range void {
		if !m.mayRemove() {
			return
		}
		m.do(m.deletion(p))
	}
}

// seesHeldLease reports whether another member is left, as far as this one knows.
func (m *Machine) seesHeldLease() bool {
	for _, p := range m.peers {
		if !p.lease.Record.Void() {
			return true
		}
	}
	return false
}

// sweepAll deletes the void Leases that are left when the last member leaves (R39), once
// each, except those that may be the only ones with a tombstone. It returns false when that has
// ended, or when the server does not answer.
func (m *Machine) sweepAll() (sweeping bool) {
	for _, p := range m.peersWhere(func(p *peer) bool {
		return p.lease.Record.Void() && p.op == 0 && !p.sweptLast && !m.sweepFailed && !m.hasLastTombstone(p)
	}) {
		if !m.mayRemove() {
			break
		}
		p.sweptLast = true
		m.do(m.deletion(p))
	}
	return len(m.removals) > 0
}

// hasLastTombstone reports whether the void Lease of a peer has a tombstone that has not expired
// yet. It is asked only while this member has none itself.
func (m *Machine) hasLastTombstone(p *peer) bool {
	return slices.ContainsFunc(p.lease.Record.Tombstones, func(t Tombstone) bool {
		return m.now.Mono < p.changeSeenAt.Add(t.Remaining).Mono
	})
}

// StaysFor returns for how long a member that stops keeps its Lease at most, although nothing is
// in flight, because it has tombstones that no other member may know (R39): the garbage
// collector deletes its Lease soon after its Pod is gone, and a member that starts then would
// find no trace of them. It is 0 for a member that need not wait.
func (m *Machine) StaysFor() time.Duration {
	if m.stage != stopping || len(m.tombstones) == 0 || m.hasHeir() {
		return 0
	}
	last := time.Duration(0)
	for _, t := range m.tombstones {
		last = max(last, t.until.since(m.now))
	}
	return max(0, min(last, m.stoppedAt.Add(m.cfg.LeaseDuration).since(m.now)))
}

// hasHeir reports whether another member knows the tombstones, and stays: it is settled, and
// has written, not as one that stops, after its watch has shown that this one stops. If it stops
// later, this member is no heir to it.
func (m *Machine) hasHeir() bool {
	for _, p := range m.peers {
		r := &p.lease.Record
		if !r.Void() && !r.Edited && r.Phase != PhaseDraining && r.Newcomer.IsSettled() && m.own.heirSince != "" &&
			CompareVersions(r.Watched, m.own.heirSince) >= 0 && CompareVersions(r.Watched, p.lease.Version) <= 0 {
			return true
		}
	}
	return false
}

func (m *Machine) deletion(p *peer) DeleteLease {
	return DeleteLease{Op: m.startRemoval(p), Name: p.lease.Name, UID: p.lease.UID, Version: p.lease.Version, Timeout: m.timeout()}
}

// swept handles the response to the DeleteLease of a peer's void Lease.
func (m *Machine) swept(e DeleteResult) {
	delete(m.removals, e.Op)
	m.sweepFailed = m.sweepFailed || m.stage == leaving && e.Outcome == Unknown
	for _, p := range m.peers {
		if p.op != e.Op {
			continue
		}
		p.op = 0
		p.sweepAt = m.now.Add(m.jitter(m.cfg.LeaseDuration))
		if e.Outcome == NotFound && p.lease.Version == p.opVersion {
			m.removePeer(p.lease, false)
		}
		return
	}
}
