// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claimsim

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

// populate starts the first members, at slightly different times.
func (w *sim) populate() {
	for range w.profile.members {
		w.after(w.between(0, 3*time.Second), func() { w.startFresh() })
	}
}

func (w *sim) startFresh() {
	w.whenNewcomersMay(func() {
		w.born++
		name := fmt.Sprintf("op-%d", w.born)
		w.start(name, "uid-"+name, w.chance(0.5))
	})
}

// whenNewcomersMay starts a process, after the end of a time in which none may start.
func (w *sim) whenNewcomersMay(start func()) {
	if w.now < w.closed {
		w.waiting++
		w.after(w.between(0, time.Second), func() {
			w.waiting--
			w.whenNewcomersMay(start)
		})
		return
	}
	start()
}

// scheduleFaults lets each kind of fault happen again and again.
func (w *sim) scheduleFaults() {
	calm := 3 * time.Second
	if w.profile.kind == outages || w.profile.kind == oneWay {
		calm = 25 * time.Second // until every partition is at its owner
	}
	w.after(calm, func() { w.formed = w.counts.Handovers })
	if w.profile.kind == crowd {
		w.after(w.between(20*time.Second, 25*time.Second), func() { massDeath(w) })
	}
	if w.profile.pair != (pair{}) {
		w.after(calm+w.between(0, 10*time.Second), w.insist)
	}
	for _, f := range w.profile.faults {
		var again func()
		again = func() {
			wait := time.Duration(w.rand.ExpFloat64() * float64(f.every))
			w.after(wait, func() {
				if !w.faultsCleared {
					w.counts.Faults++
					f.do(w)
					again()
				}
			})
		}
		w.after(calm, again)
	}
}

// clearFaults ends all faults. Some stalled streams stay stalled: the member has to detect
// that.
func (w *sim) clearFaults() {
	w.faultsCleared = true
	w.logf("the faults are over")
	w.server.storm = 0
	if w.server.down {
		w.server.rise(false)
	}
	for _, p := range append([]*process(nil), w.procs...) {
		p.link = w.newLink()
		p.watch.lag = 3 * time.Millisecond
		switch {
		case !p.watch.stalled:
		case w.chance(0.3):
			p.watch.flush()
		default:
			p.watch.thaw()
		}
		p.resume()
	}
	w.after(6*time.Second, func() { // when containers have restarted
		if w.find(stays) == nil {
			w.startFresh()
		}
	})
}

func stays(p *process) bool     { return !p.stopping }
func isAwake(p *process) bool   { return !p.paused && p.machine != nil }
func isServing(p *process) bool { return isAwake(p) && p.machine.Serving() && !p.stopping }

func crash(w *sim) {
	if p := w.some(func(*process) bool { return true }); p != nil {
		p.crash()
	}
}

// crash is SIGKILL. The container may be restarted, or the Pod replaced by one of the same
// name or of another.
func (p *process) crash() {
	w := p.w
	w.note("crash", 0)
	p.die("is killed")
	w.after(w.between(100*time.Millisecond, 8*time.Second), func() {
		if w.faultsCleared || len(w.procs) >= w.profile.most {
			return
		}
		switch x := w.rand.Float64(); {
		case x < 0.5:
			w.startUnlessTaken(p.name, p.podUID, true)
		case x < 0.7:
			w.born++
			w.startUnlessTaken(p.name, fmt.Sprintf("uid-%d", w.born), true)
		case x < 0.9:
			w.startFresh()
		}
	})
}

// collectDead is a crash whose Pod is deleted for good: the garbage collector deletes the Lease,
// before or after it has expired, and another Pod starts.
func collectDead(w *sim) {
	p := w.some(func(*process) bool { return true })
	if p == nil || w.now < w.closed {
		return
	}
	w.note("collect", 0)
	p.die("is killed with its Pod")
	w.after(w.between(0, w.timing.duration+5*time.Second), func() {
		if l := w.server.lease(p.lease); l.Name != "" && l.Record.Holder == p.holder && !w.server.down && !w.faultsCleared {
			w.note("collect", 0)
			w.logf("the Lease of %s is deleted with its Pod", p.holder)
			w.server.deleteByHand(p.lease)
		}
	})
	w.after(w.between(0, w.timing.duration), func() {
		if !w.faultsCleared {
			join(w)
		}
	})
}

// massDeath kills all but a few members at one moment, permanently, and checks the bound of
// the others: within a lease duration and two seconds they have taken over everything. Drains
// do not count. A rate limiter adds its delays: each eviction costs its sender a request, and
// the partitions that it frees cost a claim and a list.
func massDeath(w *sim) {
	if len(w.procs) < 2 {
		return
	}
	w.counts.MassDeaths++
	survivors := 1 + w.rand.IntN(min(4, len(w.procs)-1))
	dead := len(w.procs) - survivors
	w.note("mass death", 0)
	for range dead {
		w.counts.Faults++
		w.some(func(*process) bool { return true }).die("dies with many others")
	}
	bound := w.timing.duration + 2*time.Second
	if w.profile.limited {
		bound += time.Duration(max(0, 3*dead/survivors-limiterBurst)) * time.Second / limiterQPS
	}
	if w.find(func(p *process) bool { return p.slowRings }) != nil {
		// The ring without the last of the dead: the one before it may just have been requested, and
		// the next request waits as long as that took (R73).
		bound += 3 * slowestRing
	}
	start := w.now
	var check func()
	check = func() {
		switch err := w.takenOver(); {
		case err == nil:
			w.logf("everything has been taken over %v after %d of %d members have died", w.now-start, dead, dead+survivors)
		case w.now-start >= bound && w.disturbed(start):
			w.logf("%v after %d of %d members have died, with other faults: %v", bound, dead, dead+survivors, err)
		case w.now-start >= bound:
			w.fail("L1: %v after %d of %d members have died: %v", bound, dead, dead+survivors, err)
		default:
			w.after(50*time.Millisecond, check)
		}
	}
	check()
}

func pause(w *sim) {
	if p := w.some(isAwake); p != nil {
		p.pause(w.pauseLength(), w.profile.freezes && w.chance(0.5))
	}
}

// pauseLength is very short, shorter than the fence, between fence and eviction, or longer than
// both.
func (w *sim) pauseLength() time.Duration {
	t := w.timing
	switch w.rand.IntN(4) {
	case 0:
		return w.between(0, 200*time.Millisecond)
	case 1:
		return w.between(0, t.deadline)
	case 2:
		return w.between(t.deadline/2, t.duration+2*time.Second)
	}
	return w.between(t.duration, 2*t.duration+5*time.Second)
}

func leave(w *sim) {
	if p := w.some(func(p *process) bool { return isAwake(p) && !p.stopping }); p != nil {
		p.leave()
	}
}

// terminate is SIGTERM, followed by SIGKILL after the termination grace period.
func (p *process) terminate() {
	p.w.logf("%s: gets SIGTERM", p.name)
	p.stopping = true
	p.step(claim.Stop{})
	p.w.after(40*time.Second, func() { p.die("did not stop in time") })
}

// leave terminates the process; sometimes a new one starts later.
func (p *process) leave() {
	w := p.w
	w.note("leave", 0)
	p.terminate()
	w.after(w.between(0, 10*time.Second), func() {
		if !w.faultsCleared && (len(w.procs) < 2 || w.chance(0.3) && len(w.procs) < w.profile.most) {
			w.startFresh()
		}
	})
}

func join(w *sim) {
	if len(w.procs) < w.profile.most && w.now >= w.closed {
		w.note("join", 0)
		w.startFresh()
	}
}

// roll replaces one member by one with the new parameters.
func roll(w *sim) {
	if w.now < w.profile.switchAt {
		return
	}
	if p := w.some(func(p *process) bool { return isServing(p) && p.params != w.profile.next }); p != nil {
		w.note("roll", 0)
		w.startFresh()
		p.leave()
	}
}

// badNetwork makes one member's network slow and lossy for a while.
func badNetwork(w *sim) {
	p := w.some(isAwake)
	if p == nil {
		return
	}
	p.link.slow = w.between(time.Millisecond, 4*time.Second)
	p.link.lose, p.link.loseResponse = w.rand.Float64()/3, w.rand.Float64()/3
	p.link.late, p.link.reset = w.rand.Float64()/4, w.rand.Float64()/4
	w.logf("%s: bad network %+v", p.name, p.link)
	d := w.between(2*time.Second, 20*time.Second)
	w.note("bad network", d)
	w.after(d, func() {
		p.link = w.newLink()
		w.logf("%s: good network", p.name)
	})
}

// loseResponses loses the responses of one member's writes, or of a share of them, for a long
// time: a bad link, or a proxy. Reads work.
func loseResponses(w *sim) {
	p := w.some(func(p *process) bool { return isAwake(p) && p.link.loseWrites == 0 })
	if p == nil {
		return
	}
	p.link.loseWrites = 1
	if w.chance(0.5) {
		p.link.loseWrites = w.rand.Float64()
	}
	w.logf("%s: the responses of %.0f%% of its writes are lost", p.name, 100*p.link.loseWrites)
	d := w.between(5*time.Second, 2*time.Minute)
	w.note("lose responses", d)
	w.after(d, func() { p.link.loseWrites = 0 })
}

// slowServer makes each request of one member, or of all, take seconds.
func slowServer(w *sim) {
	trip := w.between(time.Second, 6*time.Second)
	only := w.some(isAwake)
	if w.chance(0.5) {
		only = nil
	}
	w.logf("requests take %v (of all members: %v)", trip, only == nil)
	for _, p := range w.procs {
		if only != nil && p != only {
			continue
		}
		p.link.trip = trip
		d := w.between(5*time.Second, 40*time.Second)
		w.note("slow", d)
		w.after(d, func() { p.link.trip = w.profile.trip })
	}
}

func cut(w *sim) {
	if p := w.some(isAwake); p != nil {
		p.cut(w.between(2*time.Second, 30*time.Second), w.chance(0.7), w.chance(0.7))
	}
}

// cut separates a process from the API server, in one direction or both.
func (p *process) cut(d time.Duration, out, in bool) {
	w := p.w
	w.note("cut", d)
	w.logf("%s: is cut off for %v (requests %v, responses %v)", p.name, d, out, in)
	p.link.out, p.link.in = out, in
	if in {
		p.watch.stall(true)
	}
	w.after(d, func() {
		w.logf("%s: is no longer cut off", p.name)
		p.link.out, p.link.in = false, false
		p.watch.thaw()
		if w.chance(0.6) {
			p.watch.flush()
		}
	})
}

// disturbWrites makes the next writes lose their response or arrive late.
func disturbWrites(w *sim) {
	if p := w.some(isAwake); p != nil {
		w.note("disturb writes", 0)
		p.link.disturbedWrites = 1 + w.rand.IntN(2)
	}
}

func stall(w *sim) {
	p := w.some(isAwake)
	if p == nil || p.watch.stalled {
		return
	}
	d := w.between(time.Second, 50*time.Second)
	w.note("stall", d)
	p.watch.stall(w.chance(0.4))
	w.after(d, func() {
		if !p.watch.stalled {
			return
		}
		if p.watch.thaw(); w.chance(0.5) {
			p.watch.flush()
		}
	})
}

// rewatch breaks a watch, or makes it lag for a while.
func rewatch(w *sim) {
	p := w.some(isAwake)
	if p == nil {
		return
	}
	if w.chance(0.5) {
		w.note("rewatch", 0)
		w.logf("%s: its watch breaks", p.name)
		p.watch.disconnect()
		p.watch.connect()
		return
	}
	p.watch.lag = w.between(100*time.Millisecond, 5*time.Second)
	w.logf("%s: its watch lags by up to %v", p.name, p.watch.lag)
	d := w.between(2*time.Second, 20*time.Second)
	w.note("rewatch", d)
	w.after(d, func() { p.watch.lag = w.profile.lag })
}

func outage(w *sim) {
	if w.server.down {
		return
	}
	d := w.between(time.Second, 45*time.Second)
	w.note("outage", d)
	w.logf("the API server is down for %v", d)
	w.server.fall(w.chance(0.5))
	w.after(d, func() {
		if w.server.down && !w.faultsCleared {
			w.logf("the API server is up again")
			w.server.rise(false)
		}
	})
}

// restore restores the database to an earlier state, after an outage in which every member has
// stopped at its own fence.
func restore(w *sim) {
	join(w) // so that the backup is made while the fleet changes
	w.after(w.between(0, 3*time.Second), func() {
		w.logf("the database is backed up")
		w.server.backUp()
	})
	w.after(w.between(3*time.Second, 12*time.Second), w.fallAndRestore)
}

func (w *sim) fallAndRestore() {
	switch {
	case w.faultsCleared:
		return
	case w.server.down:
		w.after(time.Second, w.fallAndRestore)
		return
	}
	enough := time.Duration(float64(w.timing.deadline+w.timing.grace)/(1-w.drift)) + 100*time.Millisecond
	d := w.between(enough, enough+8*time.Second)
	w.note("restore", d)
	w.logf("the API server is down, to be restored")
	w.server.fall(w.chance(0.5))
	w.after(d, func() {
		if !w.server.down || w.faultsCleared {
			return
		}
		w.logf("the API server is up again, restored")
		w.server.rise(true)
		for _, p := range slices.Clone(w.procs) { // not all of them reconnect at the same time
			if w.chance(0.4) {
				p.cut(w.between(0, w.timing.duration), true, w.chance(0.5))
			}
		}
	})
}

func storm(w *sim) {
	w.server.storm = w.rand.Float64()
	w.logf("the API server refuses %.0f%% of the requests", 100*w.server.storm)
	d := w.between(time.Second, 20*time.Second)
	w.note("storm", d)
	w.after(d, func() { w.server.storm = 0 })
}

// edit is a user with kubectl. An edited record becomes what package lease decodes it to.
func edit(w *sim) {
	p := w.some(func(*process) bool { return true })
	if p == nil || w.server.down || w.server.lease(p.lease).Record.Void() {
		return
	}
	w.note("edit", 0)
	what := w.rand.IntN(5)
	if w.calmFor(p) && w.chance(0.4) {
		what = 5 + w.rand.IntN(4)
		w.closed = max(w.closed, w.now+2*w.timing.duration)
	}
	old := w.oldRecord(p.lease)
	if what != 8 && w.chance(0.4) {
		w.after(w.between(0, 12*time.Second), func() {
			if l := w.server.lease(p.lease); l.Name != "" && !l.Record.Void() && !w.faultsCleared && !w.server.down {
				w.logf("a user edits the Lease of %s again", p.name)
				w.server.edit(p.lease, func(r *claim.Record) {
					*r = claim.Record{Edited: true, Holder: r.Holder, Member: r.Member, PodUID: r.PodUID, Phase: claim.PhaseDraining, Claims: claim.Claims{Everything: true}}
				})
			}
		})
	}
	if isAwake(p) && w.chance(0.4) { // its member cannot restore it
		p.cut(w.between(3*time.Second, 15*time.Second), true, true)
	}
	w.logf("a user edits the Lease of %s (%d)", p.name, what)
	w.server.edit(p.lease, func(r *claim.Record) {
		if what == 0 { // a label or an annotation of another client
			return
		}
		switch what {
		case 5: // the record of an earlier Lease of this name
			*r = claim.Record{Member: r.Member, Phase: claim.PhaseDraining, Copied: true, Duration: r.Duration, Newcomer: claim.Settled, Seq: 1 << 20}
			return
		case 6:
			*r = claim.Record{Member: r.Member, Phase: claim.PhaseDraining, Copied: true, EvictedBy: "x_1"}
			return
		case 7: // an earlier record of this Lease
			*r = old
			return
		case 8: // the label of the ring is removed
			r.Fingerprint = withoutLabel
			return
		}
		*r = claim.Record{Edited: true, Holder: r.Holder, Member: r.Member, PodUID: r.PodUID, Phase: claim.PhaseDraining, Claims: claim.Claims{Everything: true}}
		switch what {
		case 1:
			r.Holder = ""
		case 2:
			r.Holder = "x_1"
		}
	})
}

// fighter is a client that writes a Lease after each write of its member.
type fighter struct {
	until time.Duration
	does  fightKind
}

type fightKind int

const (
	restores fightKind = iota // its label, if the member has removed it
	stamps                    // a label that changes each time
	breaks                    // the member's record
)

// startFight lets another client fight with a member for its Lease for a while.
func startFight(w *sim) {
	if p := w.some(isServing); p != nil {
		lasts := w.between(5*time.Second, 30*time.Second)
		w.note("fight", lasts)
		w.startFighter(p.lease, fightKind(w.rand.IntN(3)), lasts)
	}
}

func (w *sim) startFighter(lease string, does fightKind, lasts time.Duration) {
	if w.fighters == nil {
		w.fighters = map[string]fighter{}
	}
	w.fighters[lease] = fighter{w.now + lasts, does}
	w.fight(w.server.lease(lease))
}

// fight lets other clients answer a member's write to its Lease.
func (w *sim) fight(written claim.Lease) {
	f, ok := w.fighters[written.Name]
	if !ok || w.now > f.until {
		return
	}
	w.after(w.between(time.Millisecond, 20*time.Millisecond), func() {
		l := w.server.lease(written.Name)
		label := strconv.Itoa(w.counts.Fights)
		switch r := l.Record; {
		case r.Void() || l.UID != written.UID || w.server.down || w.faultsCleared && w.profile.kind != "calm":
			return
		case f.does == restores && r.Extra.Labels["team"] != "":
			return
		}
		w.counts.Fights++
		w.server.edit(l.Name, func(r *claim.Record) {
			r.Extra.Labels = map[string]string{"team": label}
			if f.does == breaks {
				*r = claim.Record{Edited: true, Holder: r.Holder, Member: r.Member, PodUID: r.PodUID, Phase: claim.PhaseDraining, Claims: claim.Claims{Everything: true}, Extra: r.Extra}
			}
		})
	})
}

// calmFor reports whether every other process knows the Lease of p and sees how it changes.
func (w *sim) calmFor(p *process) bool {
	if w.now < w.closed || !isServing(p) {
		return false
	}
	for _, q := range w.procs {
		if q != p && (!isServing(q) || q.watch.stalled || !q.watch.live || q.link.out || q.link.in || q.watch.shown[p.lease].Record.Holder != p.holder) {
			return false
		}
	}
	return true
}

// oldRecord returns one of the records that the holder of a Lease has written.
func (w *sim) oldRecord(name string) claim.Record {
	l := w.server.lease(name)
	var all []claim.Record
	for n := w.server.First(); n < w.server.End(); n++ {
		if c := w.server.Change(n); c.After != nil && c.Name == name && c.After.UID == l.UID && !c.After.Value.Edited && c.After.Value.Holder == l.Record.Holder {
			all = append(all, c.After.Value)
		}
	}
	if len(all) == 0 {
		return l.Record
	}
	return all[w.rand.IntN(len(all))]
}

// deleteLease is a user with kubectl who deletes the Lease of a working member that, mostly,
// cannot see the deletion. That is guaranteed to be safe only as long as a member that knew of
// the Lease can publish its tombstone to the others.
func deleteLease(w *sim) {
	if w.find(func(p *process) bool { return p.paused || p.link.out || p.link.in }) != nil {
		return
	}
	p := w.some(isServing)
	if p == nil || len(w.procs) < 3 {
		return
	}
	if !w.profile.quarantine && w.find(func(q *process) bool { return q.watch.shown[p.lease].Record.Holder != p.holder }) != nil {
		return
	}
	switch d := w.between(3*time.Second, 30*time.Second); w.rand.IntN(3) {
	case 0:
		p.pause(d, false)
	case 1:
		p.cut(d, true, true)
	}
	joins := w.profile.quarantine
	w.after(w.between(0, 2*time.Second), func() {
		if w.server.lease(p.lease).Record.Void() {
			return
		}
		w.note("delete", 0)
		w.logf("a user deletes the Lease of %s", p.name)
		w.counts.Deletions++
		w.server.foreign[p.holder] = true
		if w.chance(0.4) {
			if w.chance(0.5) { // the others may stop before they see the deletion
				for _, q := range w.procs {
					if q != p {
						q.watch.lag = w.timing.watchLag
					}
				}
			}
			w.server.deleteByHand(p.lease)
			w.after(w.between(0, time.Second), func() { w.replaceOthers(p) })
			return
		}
		w.server.deleteByHand(p.lease)
		w.after(w.between(500*time.Millisecond, w.timing.duration), func() { join(w) })
	})
	if joins {
		w.after(w.between(0, 2*time.Second), func() { join(w) })
	}
}

// replaceOthers stops all members but one, whose Lease was deleted, and then starts others. What
// they know of that is then only on their Leases (R39). If all of them have seen the deletion and
// have the same durations, the garbage collector may delete these Leases, too.
func (w *sim) replaceOthers(p *process) {
	var others []*process
	collects := w.profile.otherPace == 0 && w.chance(0.5)
	for _, q := range slices.Clone(w.procs) {
		if q == p || !isAwake(q) || q.stopping {
			continue
		}
		_, unaware := q.watch.shown[p.lease]
		collects = collects && !unaware
		others = append(others, q)
		w.note("leave", 0)
		q.terminate()
	}
	var replace func()
	replace = func() {
		if w.faultsCleared {
			return
		}
		if slices.ContainsFunc(others, func(q *process) bool { return q.alive }) {
			w.after(50*time.Millisecond, replace)
			return
		}
		for i, q := range others {
			if collects {
				q.collectVoid()
			}
			w.after(w.between(0, 2*time.Duration(i)*w.timing.duration), func() {
				if !w.faultsCleared {
					join(w)
				}
			})
		}
	}
	w.after(w.between(0, time.Second), replace)
	if w.chance(0.5) { // one that starts leaves before it has settled, and another one starts
		w.after(w.between(time.Second, 5*time.Second), func() {
			if q := w.some(func(q *process) bool { return q != p && isAwake(q) && !q.stopping }); q != nil && !w.faultsCleared {
				q.leave()
				w.after(w.between(0, 2*time.Second), func() {
					if !w.faultsCleared {
						join(w)
					}
				})
			}
		})
	}
}

// replaceByForce is a StatefulSet's Pod that is force-deleted while its process continues to
// work, mostly cut off: another Pod of the same name starts, with another UID, and then the
// garbage collector deletes the first one's Lease. The guarantee depends on the processes that
// knew that Lease: no process that does not know it may start for a while.
func replaceByForce(w *sim) {
	p := w.some(isServing)
	if p == nil || w.now < w.closed || w.server.down || w.find(func(q *process) bool { return q != p && q.name == p.name }) != nil {
		return
	}
	w.born++
	w.note("replace", 0)
	holder := p.holder
	q := w.start(p.name, fmt.Sprintf("uid-%d", w.born), w.chance(0.5))
	w.closed = w.now + time.Minute
	switch w.rand.IntN(8) {
	case 0, 1: // the new process's watch starts late
		q.watch.disconnect()
		w.after(w.between(0, 8*time.Second), func() { q.watch.connect() })
	case 2, 3: // its watch restarts, and perhaps does not see the deletion
		w.after(w.between(0, 5*time.Second), func() {
			if w.faultsCleared {
				return
			}
			q.watch.disconnect()
			w.after(w.between(0, 3*time.Second), func() { q.watch.connect() })
		})
	case 4:
		q.watch.lag = w.between(0, 2*time.Second)
	case 5:
		q.link.slow, q.link.lose, q.link.late = w.between(0, 2*time.Second), w.rand.Float64()/4, w.rand.Float64()/4
	}
	w.after(w.between(0, 5*time.Second), func() {
		switch d := w.between(3*time.Second, 30*time.Second); {
		case w.faultsCleared || p.holder != holder || p.paused || !p.alive:
		case w.chance(0.6):
			p.cut(d, true, true)
		case w.chance(0.5):
			p.pause(w.pauseLength(), false)
		}
		w.after(w.between(0, 4*time.Second), func() { w.collect(p, q, holder, 100) })
	})
	if w.chance(0.7) { // the kubelet recovers
		w.after(w.between(8*time.Second, 40*time.Second), func() {
			if !w.faultsCleared {
				p.die("is killed: its Pod is gone")
			}
		})
	}
}

// collect deletes the Lease of a Pod that is gone, as soon as every process has seen it.
func (w *sim) collect(p, q *process, holder string, tries int) {
	l := w.server.lease(p.lease)
	knows := func(o *process) bool {
		return o == p || o.watch.shown[p.lease].Record.Holder == holder || o == q && q.received.read[holder]
	}
	switch {
	case l.Record.Holder != holder || !q.alive || w.faultsCleared || tries == 0:
		w.closed = w.now
	case w.find(func(o *process) bool { return !knows(o) }) != nil:
		w.after(50*time.Millisecond, func() { w.collect(p, q, holder, tries-1) })
	default:
		w.note("replace", 0)
		w.logf("the Lease of %s is deleted with its Pod", holder)
		w.counts.Replacements++
		w.server.deleteByHand(p.lease)
		w.closed = w.now + 2*w.timing.duration
		w.after(w.between(time.Second, 20*time.Second), func() { q.watch.lag, q.link = w.profile.lag, w.newLink() })
	}
}

func jump(w *sim) {
	p := w.some(isAwake)
	if p == nil {
		return
	}
	by := w.between(-time.Hour, time.Hour)
	if w.chance(0.5) {
		by = w.between(-20*time.Second, 20*time.Second)
	}
	w.note("jump", 0)
	w.logf("%s: its wall clock jumps by %v", p.name, by)
	p.clock.jump(by)
	if p.work.past() {
		p.work.stop()
	} else {
		p.work.planFence()
	}
	p.checkExclusive()
}

// duplicate starts a second process under a name that is taken. It may be a newcomer that must
// not start soon after an old record was applied again, which no member can detect.
func duplicate(w *sim) {
	p := w.some(isAwake)
	if p == nil || w.now < w.closed || len(w.procs) >= w.profile.most || w.find(func(q *process) bool { return q != p && q.name == p.name }) != nil {
		return
	}
	w.born++
	w.note("duplicate", 0)
	w.start(p.name, fmt.Sprintf("uid-%d", w.born), w.chance(0.5))
}

// hook injects a fault at a named point: just before or after an action.
func (p *process) hook(a claim.Action, when string) {
	w := p.w
	if w.faultsCleared || w.profile.hooks == 0 {
		return
	}
	if _, ok := a.(claim.Released); ok && when == "after" && w.chance(20*w.profile.hooks) {
		w.note("disturb writes", 0)
		p.link.disturbedWrites = 1 // affects the write that releases
	}
	if !w.chance(w.profile.hooks) {
		return
	}
	switch a.(type) {
	case claim.WriteLease, claim.ListLeases, claim.EvictLease, claim.Drain, claim.Activated, claim.Claimed, claim.Released, claim.CreateLease, claim.Fenced:
	default:
		return
	}
	w.logf("%s: %s %T …", p.name, when, a)
	switch w.rand.IntN(4) {
	case 0:
		p.crash()
	case 1, 2:
		p.pause(w.pauseLength(), w.profile.freezes && w.chance(0.3))
	case 3:
		w.note("disturb writes", 0)
		p.link.disturbedWrites = 1
	}
}
