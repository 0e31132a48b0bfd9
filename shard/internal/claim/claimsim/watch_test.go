// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claimsim

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/leaseserver"
)

// watch is a process's watch of all Leases: it lists, then shows the writes in order, with
// some lag. Its stream may stall: it shows nothing any more, without an error, while requests
// succeed.
type watch struct {
	p     *process
	shown map[string]claim.Lease // the content of the watch's store

	stream  int // counts connections: events of an earlier one are dropped
	live    bool
	next    int           // number of the next write to show
	planned int           // number of the next write whose delivery is not scheduled
	lastAt  time.Duration // the time of the last scheduled delivery
	lag     time.Duration // at most

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
		v.next = w.server.End()
		version := w.server.Revision
		if len(v.shown) == 0 && w.chance(0.2) {
			// The first list may come from a watch cache that is behind.
			v.next = max(w.server.First(), v.next-w.rand.IntN(12))
			version = w.server.revisionBefore(v.next)
		}
		leases := toLeases(w.server.Past(v.next))
		v.planned = v.next
		v.live = true
		v.lastAt = w.now + w.between(0, v.lag)
		if len(v.shown) == 0 && w.chance(0.1) {
			v.lastAt += w.between(0, 5*time.Second) // the response is slow; a quorum list overtakes it
		}
		w.after(v.lastAt-w.now, func() {
			if v.stream == stream {
				v.replace(leases, version)
			}
		})
		v.catchUp()
	})
}

// replace shows a list: first the Leases that are gone, then those that exist.
func (v *watch) replace(leases []claim.Lease, version uint64) {
	for _, name := range slices.Sorted(maps.Keys(v.shown)) {
		if !slices.ContainsFunc(leases, func(l claim.Lease) bool { return l.Name == name }) {
			v.showDeleted(v.shown[name], false)
		}
	}
	for _, l := range leases {
		if last, exists := v.shown[l.Name]; exists && last.UID != l.UID {
			v.showDeleted(last, false)
		}
		v.show(l, true)
	}
	v.p.receive(func() { v.p.step(claim.WatchProgress{Version: strconv.FormatUint(version, 10), Listed: true}) })
}

// catchUp schedules the delivery of the writes for which this was not yet done.
func (v *watch) catchUp() {
	if !v.live {
		return
	}
	w, stream := v.p.w, v.stream
	for ; v.planned < w.server.End(); v.planned++ {
		v.lastAt = max(v.lastAt, w.now+w.between(50*time.Microsecond, v.lag))
		w.after(v.lastAt-w.now, func() {
			if v.stream == stream {
				v.deliver()
			}
		})
	}
}

func (v *watch) deliver() {
	s := v.p.w.server
	if v.stalled || v.next == s.End() {
		return
	}
	v.next++
	switch event, o, _ := s.Change(v.next - 1).Event(hasLabel); event {
	case "":
	case leaseserver.Deleted:
		v.showDeleted(toLease(o), true)
	default:
		v.show(toLease(o), false)
	}
}

func (v *watch) showDeleted(last claim.Lease, final bool) {
	delete(v.shown, last.Name)
	v.p.receive(func() { v.p.step(claim.LeaseDeleted{Last: last, Final: final}) })
}

// show updates the store and hands the event to the process.
func (v *watch) show(l claim.Lease, listed bool) {
	v.shown[l.Name] = l
	v.p.receive(func() { v.p.step(claim.LeaseObserved{Lease: l, Listed: listed}) })
	if v.p.w.chance(0.01) {
		v.p.receive(func() { v.p.step(claim.LeaseObserved{Lease: l, Listed: listed}) })
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
	v.planned = v.next
	v.catchUp()
}

// thaw ends a stall for new connections only: the current stream stays dead until the process
// requests a new one.
func (v *watch) thaw() { v.sticky = false }
