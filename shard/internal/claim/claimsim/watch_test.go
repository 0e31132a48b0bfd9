// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claimsim

import (
	"maps"
	"slices"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

// watch is a process's watch of all Leases: it lists, then shows the writes in order, with
// some lag. Its stream may stall: it shows nothing any more, without an error, while requests
// succeed.
type watch struct {
	p     *process
	shown map[string]claim.Lease // the content of the watch's store

	stream int // counts connections: events of an earlier one are dropped
	live   bool
	next   int           // index of the next write in the server's log
	lastAt time.Duration // the time of the last scheduled delivery
	lag    time.Duration // at most

	stalled bool
	sticky  bool // a new connection stalls too
}

func newWatch(p *process) *watch {
	v := &watch{p: p, shown: map[string]claim.Lease{}, lag: 2 * time.Millisecond}
	p.w.server.watches = append(p.w.server.watches, v)
	return v
}

// close ends the watch with its process.
func (v *watch) close() {
	s := v.p.w.server
	s.watches = slices.DeleteFunc(s.watches, func(o *watch) bool { return o == v })
	v.stream++
	v.live = false
}

// disconnect breaks the stream with an error.
func (v *watch) disconnect() {
	v.stream++
	v.live, v.stalled = false, false
}

// connect starts a new stream with a list, now or when that becomes possible.
func (v *watch) connect() {
	w := v.p.w
	v.stream++
	v.live = false
	stream := v.stream
	if w.server.down || v.p.link.out || v.p.link.in || v.stalled && v.sticky {
		w.after(w.between(500*time.Millisecond, 2*time.Second), func() {
			if v.stream == stream && v.p.alive {
				v.connect()
			}
		})
		return
	}
	v.stalled = false
	w.after(v.p.link.delay(w), func() {
		if v.stream != stream || !v.p.alive {
			return
		}
		if w.server.down {
			v.connect()
			return
		}
		leases := w.server.leases
		v.next = len(w.server.log)
		if len(v.shown) == 0 && w.chance(0.2) {
			// The first list may come from a watch cache that is behind.
			v.next = max(0, v.next-w.rand.IntN(12))
			leases = w.server.past(v.next)
		}
		leases = maps.Clone(leases)
		v.live = true
		v.lastAt = w.now + w.between(0, v.lag)
		w.after(v.lastAt-w.now, func() {
			if v.stream == stream {
				v.replace(leases)
			}
		})
		for range len(w.server.log) - v.next {
			v.changed()
		}
	})
}

// replace shows a list: first the Leases that are gone, then those that exist.
func (v *watch) replace(leases map[string]claim.Lease) {
	for _, name := range slices.Sorted(maps.Keys(v.shown)) {
		if _, exists := leases[name]; !exists {
			v.show(change{name: name, before: new(v.shown[name]), listed: true})
		}
	}
	for _, l := range inOrder(leases) {
		if last, exists := v.shown[l.Name]; exists && last.UID != l.UID {
			v.show(change{name: l.Name, before: &last, listed: true})
		}
		v.show(change{name: l.Name, after: &l})
	}
}

// changed schedules the delivery of one more write.
func (v *watch) changed() {
	if !v.live {
		return
	}
	w, stream := v.p.w, v.stream
	v.lastAt = max(v.lastAt, w.now+w.between(50*time.Microsecond, v.lag))
	w.after(v.lastAt-w.now, func() {
		if v.stream == stream {
			v.deliver()
		}
	})
}

func (v *watch) deliver() {
	if s := v.p.w.server; !v.stalled && v.next < len(s.log) {
		v.next++
		v.show(s.log[v.next-1])
	}
}

// show updates the store and hands the event to the process.
func (v *watch) show(c change) {
	if c.after == nil {
		last := *c.before
		delete(v.shown, c.name)
		v.p.receive(func() { v.p.step(claim.LeaseDeleted{Last: last, Final: !c.listed}) })
		return
	}
	l := *c.after
	v.shown[c.name] = l
	v.p.receive(func() { v.p.step(claim.LeaseObserved{Lease: l}) })
	if v.p.w.chance(0.01) {
		v.p.receive(func() { v.p.step(claim.LeaseObserved{Lease: l}) })
	}
}

// stall makes the current stream a black hole.
func (v *watch) stall(sticky bool) {
	v.stalled, v.sticky = true, sticky
	v.p.w.logf("%s: its watch stalls (a new one too: %v)", v.p.name, sticky)
}

// flush ends a stall: everything that was delayed is delivered now.
func (v *watch) flush() {
	if !v.stalled {
		return
	}
	v.stalled = false
	v.p.w.logf("%s: its watch resumes", v.p.name)
	for range len(v.p.w.server.log) - v.next {
		v.changed()
	}
}

// thaw ends a stall for new connections only: the current stream stays dead until the process
// requests a new one.
func (v *watch) thaw() { v.sticky = false }
