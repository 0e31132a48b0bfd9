// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"sort"
	"strconv"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// cacheWait is what the members of the simulation are configured with.
const cacheWait = time.Second

// kindOfObjects is what lies at the points on which work is watched.
const kindOfObjects = "Object"

// object is what was written last to the object at a point.
type object struct {
	version  uint64
	at       time.Duration
	by       string // holder
	released bool   // its claim was withdrawn after that, by itself
	when     time.Duration
}

type write struct {
	version uint64
	at      time.Duration
}

// cache is a process's copy of the objects. It shows each write a certain time
// after it was made.
type cache struct {
	lag     time.Duration
	since   time.Duration // when the machine was made: it has not seen what was on Leases that were gone by then
	written uint64        // highest version that the process has written
	marks   Watermarks    // as of the last release
	lookAt  time.Duration
}

// cacheLag is mostly short, sometimes long, and sometimes longer than anybody waits.
func (w *sim) cacheLag() time.Duration {
	switch x := w.rand.Float64(); {
	case x >= w.profile.slowCaches:
		return w.between(0, 3*time.Millisecond)
	case x < w.profile.slowCaches*5/6:
		return w.between(0, cacheWait*7/10) // on the fastest clock less than the wait
	}
	return w.between(cacheWait, 10*cacheWait)
}

// writeLast writes to each object of the partitions that is worked on, at the last
// moment at which that is possible.
func (p *process) writeLast(partitions ring.Set) {
	w, k := p.w, &p.work
	for i := range w.points {
		if k.active&(1<<i) == 0 || !partitions.HasPoint(k.pointOf(i)) || k.past() {
			continue
		}
		w.server.revision += 1 + w.rand.Uint64N(3)
		p.cache.written = w.server.revision
		w.objects[i] = object{version: w.server.revision, at: w.now, by: p.holder}
		w.writes = append(w.writes, write{w.server.revision, w.now})
	}
}

// noteReleased remembers what is given up in good order, and with it publishes how
// far this process has written.
func (p *process) noteReleased(partitions ring.Set) {
	w := p.w
	if p.cache.written > 0 {
		p.cache.marks = Watermarks{kindOfObjects: strconv.FormatUint(p.cache.written, 10)}
	}
	for i := range w.points {
		if o := &w.objects[i]; o.by == p.holder && partitions.HasPoint(p.work.pointOf(i)) {
			o.released, o.when = true, w.now
		}
	}
}

// catchUp tells the machine when the cache has come as far as it awaits.
func (p *process) catchUp() {
	w, m := p.w, p.machine
	awaited := m.PendingWatermarks()
	if awaited == nil {
		return
	}
	mark, _ := strconv.ParseUint(awaited[kindOfObjects], 10, 64)
	n := sort.Search(len(w.writes), func(i int) bool { return w.writes[i].version >= mark })
	if n == len(w.writes) {
		return // a version of before a restore
	}
	at := w.writes[n].at + p.cache.lag
	if at <= w.now {
		p.step(WatermarksReached{Watermarks: awaited})
		return
	}
	if p.cache.lookAt == at {
		return // planned
	}
	p.cache.lookAt = at
	w.after(at-w.now, func() { p.own(m, p.catchUp) })
}

// checkCache is C8: what the former owner wrote before it released a partition is
// in the copy with which work on the partition begins. Nothing is promised to a
// machine that came after the release, nor if somebody else has written the former
// owner's Lease, nor with a copy that is too far behind.
func (p *process) checkCache(gained ring.Set) {
	w := p.w
	if p.cache.lag >= cacheWait || w.tally.Restores > 0 {
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
