// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claimsim

import (
	"sort"
	"strconv"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// cacheWait is the CacheSyncTimeout of the simulated members.
const cacheWait = time.Second

// kindOfObjects is the kind of the objects whose work is checked.
const kindOfObjects = "Object"

// object is the last write to the object at a point.
type object struct {
	version  uint64
	at       time.Duration
	by       string // holder
	released bool   // the writer itself withdrew its claim after that
	when     time.Duration
}

type write struct {
	version uint64
	at      time.Duration
}

// cache is a process's cache of the objects. It shows each write a certain time after it was
// made.
type cache struct {
	lag        time.Duration
	since      time.Duration    // when the machine was created: it has not seen Leases that were gone by then
	written    uint64           // highest version that the process has written
	watermarks claim.Watermarks // as of the last release
	lookAt     time.Duration
}

// cacheLag is mostly short, sometimes long, and sometimes longer than members wait.
func (w *sim) cacheLag() time.Duration {
	switch x := w.rand.Float64(); {
	case x >= w.profile.slowCaches:
		return w.between(0, 3*time.Millisecond)
	case x < w.profile.slowCaches*5/6:
		return w.between(0, cacheWait*7/10) // shorter than the wait on the fastest clock
	}
	return w.between(cacheWait, 10*cacheWait)
}

// writeLast writes to each object of the partitions that the process works on, at the last
// possible moment.
func (p *process) writeLast(partitions ring.Set) {
	w, k := p.w, &p.work
	for i := range w.points {
		if k.active&(1<<i) == 0 || !partitions.HasPoint(k.pointOf(i)) || k.past() {
			continue
		}
		w.server.Revision += 1 + w.rand.Uint64N(3)
		p.cache.written = w.server.Revision
		w.objects[i] = object{version: w.server.Revision, at: w.now, by: p.holder}
		w.writes = append(w.writes, write{w.server.Revision, w.now})
	}
}

// noteReleased records the partitions that the process releases properly, and publishes the
// watermark of its writes with the release.
func (p *process) noteReleased(partitions ring.Set) {
	w := p.w
	if p.cache.written > 0 {
		p.cache.watermarks = claim.Watermarks{kindOfObjects: strconv.FormatUint(p.cache.written, 10)}
	}
	for i := range w.points {
		if o := &w.objects[i]; o.by == p.holder && partitions.HasPoint(p.work.pointOf(i)) {
			o.released, o.when = true, w.now
		}
	}
}

// catchUp reports to the machine when the cache has reached the pending watermarks.
func (p *process) catchUp() {
	w, m := p.w, p.machine
	pending := m.PendingWatermarks()
	if pending == nil {
		return
	}
	mark, _ := strconv.ParseUint(pending[kindOfObjects], 10, 64)
	n := sort.Search(len(w.writes), func(i int) bool { return w.writes[i].version >= mark })
	if n == len(w.writes) {
		return // a version from before a restore
	}
	at := w.writes[n].at + p.cache.lag
	if at <= w.now {
		p.step(claim.WatermarksReached{Watermarks: pending})
		return
	}
	if p.cache.lookAt == at {
		return // already scheduled
	}
	p.cache.lookAt = at
	w.after(at-w.now, func() { p.own(m, p.catchUp) })
}

// checkCache is C8: the cache with which work on a partition begins contains the writes of the
// former owner before its release. There is no guarantee for a machine that was created after
// the release, nor if another client has written the former owner's Lease, nor with a cache
// that is too far behind.
func (p *process) checkCache(gained ring.Set) {
	w := p.w
	if p.cache.lag >= cacheWait || w.counts.Restores > 0 {
		return
	}
	for i := range w.points {
		o := w.objects[i]
		if !o.released || o.by == p.holder || o.when <= p.cache.since || w.server.foreign[o.by] || !gained.HasPoint(p.work.pointOf(i)) {
			continue
		}
		if behind := o.at + p.cache.lag - w.now; behind > 0 {
			w.fail("C8: %s begins on point %x with a cache that shows version %d, written by %s %v ago, in %v only", p.holder, w.points[i], o.version, o.by, w.now-o.at, behind)
			return
		}
	}
}
