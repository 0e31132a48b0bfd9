// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claimsim

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// process is one process of a replica: a machine, the loop that drives it, and its workers.
// When a machine has ended for a reason after which it can rejoin, the process creates a new
// one.
type process struct {
	w        *sim
	name     string // of the Pod
	podUID   string
	lease    string
	params   ring.Parameters
	timing   timing
	takeOver bool
	clock    clock
	// slowRings says that this process needs long for a ring.
	slowRings bool
	link      link
	limiter   limiter
	watch     *watch

	alive    bool
	stopping bool
	paused   bool
	asleep   asleep
	machine  *claim.Machine // nil between two machines
	lives    int
	fenced   int // how often, of this and earlier machines, while it owned something or could have
	holder   string
	retired  *claim.Machine // between two machines: it follows the watch
	lost     error          // why that one has ended
	wakeAt   time.Duration
	stepped  claim.Time // the time of the machine's last step

	work     work
	cache    cache
	received received
	rate     requestRate
}

// asleep holds what is pending for a paused process.
type asleep struct {
	since   time.Duration
	rest    []claim.Action // of the step that was interrupted
	events  []func()       // from the watch, in order
	answers []func()       // in any order
}

// start begins a process. The same Pod's earlier process, if any, must be dead.
func (w *sim) start(name, podUID string, takeOver bool) *process {
	w.born++
	p := &process{
		w: w, name: name, podUID: podUID, lease: "lease-" + name, takeOver: takeOver, alive: true,
		params: w.profile.parametersAt(w), link: w.newLink(), timing: w.timing,
	}
	if w.chance(w.profile.otherPace) {
		p.timing = p.timing.scaled(0.75)
	}
	rate := 1 + (w.rand.Float64()*2-1)*1e-4
	if w.profile.drift {
		rate = 1 + (w.rand.Float64()*2-1)*w.drift
		if w.chance(0.5) { // the extremes
			rate = 1 - w.drift
			if w.chance(0.5) {
				rate = 1 + w.drift
			}
		}
	}
	p.clock = newClock(w, rate)
	w.procs = append(w.procs, p)
	w.logf("%s: a process starts (pod %s, take over %v, rate %.4f, %s)", name, podUID, takeOver, rate, p.params.Fingerprint())
	p.work = newWork(p)
	p.watch = newWatch(p)
	p.watch.lag = w.profile.lag
	p.cache.lag = w.cacheLag()
	p.slowRings = w.chance(0.1)
	p.watch.connect()
	p.live(nil)
	return p
}

// live starts a machine. All work that its predecessor allowed has ended.
func (p *process) live(predecessor *claim.Machine) {
	w := p.w
	cfg := claim.Config{
		Member: p.name, Lease: p.lease, Predecessor: p.holder, PodUID: p.podUID, TakeOver: p.takeOver, Parameters: p.params,
		LeaseDuration: p.timing.duration, RenewDeadline: p.timing.deadline, RenewPeriod: p.timing.period,
		WatchLagLimit: p.timing.watchLag, DrainGrace: p.timing.drainGrace, DrainTimeout: p.timing.drain, Coalesce: p.timing.coalesce, StartupSettle: p.timing.settle, Quarantine: w.profile.quarantine,
		CacheSyncTimeout: cacheWait,
	}
	w.born++
	cfg.Holder = fmt.Sprintf("%s_%d", p.name, w.born)
	if predecessor != nil {
		predecessor.Step(p.clock.now(), claim.Tick{})
		cfg.Tombstones, cfg.Knowledge = predecessor.Tombstones(), predecessor.Knowledge()
		w.counts.Rejoins++
	}
	p.lives++
	p.holder = cfg.Holder
	p.machine = claim.New(cfg)
	p.cache.since = w.now
	inherited := map[string]claim.Record{}
	for _, peer := range p.received.peers {
		if predecessor != nil && !errors.Is(p.lost, claim.ErrWentBack) {
			inherited[peer.newest.UID] = peer.newest.Record
		}
	}
	p.received = received{inherited: inherited, sent: map[uint64]sentWrite{}, peers: map[string]receivedPeer{}, read: map[string]bool{}, removals: map[uint64]bool{}}
	p.wakeAt = 0
	w.logf("%s: is now %s", p.name, p.holder)
	p.step(claim.Tick{})
	for _, name := range slices.Sorted(maps.Keys(p.watch.shown)) {
		l := p.watch.shown[name]
		if predecessor != nil { // a new process gets everything from its watch
			p.receive(func() { p.step(claim.LeaseObserved{Lease: l, Listed: true, Ahead: true}) })
		}
	}
	machine := p.machine
	synced := w.between(0, 2*time.Millisecond)
	if predecessor == nil {
		synced = w.between(50*time.Millisecond, 2*time.Second)
	}
	w.after(synced, func() { p.own(machine, func() { p.step(claim.Synced{}) }) })
}

// own runs an internal event of the process if the machine is still the same one, after the
// pause if there is one.
func (p *process) own(m *claim.Machine, do func()) {
	switch {
	case !p.alive || p.machine != m:
	case p.paused:
		p.asleep.answers = append(p.asleep.answers, func() { p.own(m, do) })
	default:
		do()
	}
}

// receive delivers an event of the watch, in order.
func (p *process) receive(event func()) {
	switch {
	case !p.alive:
	case p.paused:
		p.asleep.events = append(p.asleep.events, func() { p.receive(event) })
	default:
		event()
	}
}

// step passes an event to the machine and carries out its actions.
func (p *process) step(e claim.Event) {
	w, m := p.w, p.machine
	if m == nil && p.retired != nil && w.failure == nil {
		p.retired.Step(p.clock.now(), e)
	}
	if m == nil || w.failure != nil {
		return
	}
	w.counts.Steps++
	now := p.clock.now()
	p.stepped = now
	if w.trace != nil {
		p.traceEvent(e)
	}
	p.received.receive(p, e, now)
	actions := m.Step(now, e)
	p.work.publish()
	for i, a := range actions {
		switch a := a.(type) {
		case claim.Activated:
			p.checkActivated(a.Partitions)
		case claim.Ended:
			if i < len(actions)-1 {
				w.fail("%s returns %T after its end", p.holder, actions[i+1])
			}
		}
	}
	p.carryOut(actions)
	if p.machine == m && !p.paused && p.alive {
		p.checkStates()
		p.catchUp()
	}
	if p.machine == m && !p.paused && p.alive { // catchUp may have ended in a fault
		p.wakeUp()
	}
	p.checkExclusive()
}

// carryOut carries out the actions of a step, in order. A fault can happen between any two.
func (p *process) carryOut(actions []claim.Action) {
	m := p.machine
	for i, a := range actions {
		p.hook(a, "before")
		if p.paused {
			p.asleep.rest = slices.Clone(actions[i:])
			return
		}
		if !p.alive || p.machine != m {
			return
		}
		if p.w.trace != nil {
			p.traceAction(a)
		}
		p.do(a)
		if p.alive && !p.paused && p.machine == m {
			p.hook(a, "after")
		}
		if p.paused {
			p.asleep.rest = slices.Clone(actions[i+1:])
			return
		}
	}
}

func (p *process) do(a claim.Action) {
	s := p.w.server
	p.countCost(a)
	switch a := a.(type) {
	case claim.GetLease:
		p.received.lastRead = a.Op
		p.request(a.Timeout, false, func() claim.Event {
			l, outcome := s.response(s.Get(p.lease))
			return claim.GetResult{Op: a.Op, Outcome: outcome, Lease: l}
		}, claim.GetResult{Op: a.Op})
	case claim.CreateLease:
		p.received.send(p, a.Op, a.Record, p.stepped)
		p.request(a.Timeout, true, func() claim.Event {
			l, outcome := s.create(p.lease, a.Record)
			return claim.WriteResult{Op: a.Op, Outcome: outcome, Lease: l}
		}, claim.WriteResult{Op: a.Op})
	case claim.WriteLease:
		p.checkUpdate(a)
		p.received.send(p, a.Op, a.Record, p.stepped)
		a.Record.Watermarks = p.cache.watermarks
		p.request(a.Timeout, true, func() claim.Event {
			before := s.lease(p.lease).Record.Extra
			l, outcome := s.update(p.lease, a.UID, a.Version, a.Record)
			if outcome == claim.OK {
				p.checkExtra(before, a.Record.Extra)
				p.w.fight(l)
			}
			return claim.WriteResult{Op: a.Op, Outcome: outcome, Lease: l}
		}, claim.WriteResult{Op: a.Op})
	case claim.DeleteLease:
		p.checkRemovals(a.Op, a.Name)
		p.request(a.Timeout, true, func() claim.Event {
			return claim.DeleteResult{Op: a.Op, Outcome: s.delete(a.Name, a.UID, a.Version)}
		}, claim.DeleteResult{Op: a.Op})
	case claim.EvictLease:
		p.checkEvict(a)
		p.checkRemovals(a.Op, a.Name)
		by := p.holder
		p.request(a.Timeout, true, func() claim.Event {
			l, outcome := s.evict(a.Name, a.UID, a.Version, by)
			return claim.EvictResult{Op: a.Op, Outcome: outcome, Lease: l}
		}, claim.EvictResult{Op: a.Op})
	case claim.ListLeases:
		p.request(a.Timeout, false, func() claim.Event {
			leases := s.list()
			if p.w.onList != nil {
				p.w.onList(p, leases)
			}
			return claim.ListResult{Op: a.Op, Outcome: claim.OK, Leases: leases}
		}, claim.ListResult{Op: a.Op})
	case claim.BuildRing:
		m := p.machine
		p.w.after(p.ringDelay(), func() { p.own(m, func() { p.step(a.Build()) }) })
	case claim.Relist:
		p.w.counts.Relists++
		p.watch.connect()
	case claim.Claimed:
		p.work.set(a.Partitions, ring.Pending)
	case claim.Activated:
		p.work.set(a.Partitions, ring.Active)
	case claim.Cancel:
		p.work.endGrace(a.Partitions)
	case claim.Drain:
		p.writeLast(a.Partitions)
		p.work.drain(a.Partitions)
	case claim.Released:
		p.noteReleased(a.Partitions)
		p.work.set(a.Partitions, ring.NotOwned)
	case claim.Fenced:
		p.work.stop()
		if !p.stopping || slices.ContainsFunc(p.work.states, func(s ring.State) bool { return s != ring.NotOwned }) {
			p.fenced++ // one that has released everything only deletes void Leases (R39)
		}
	case claim.Unfenced: // the published fence implies it
	case claim.Ended:
		p.end(a.Reason)
	}
}

// slowestRing is the longest time that a process needs for a ring.
const slowestRing = 4 * time.Second

// ringDelay returns how long the process needs for a ring: for some, seconds, as for the largest
// ones.
func (p *process) ringDelay() time.Duration {
	if p.slowRings && !p.w.faultsCleared {
		return p.w.between(0, slowestRing)
	}
	return p.w.between(0, 2*time.Millisecond)
}

// end handles the end of a machine. The process continues with a new one when the last piece
// of work has ended, or exits.
func (p *process) end(reason error) {
	w := p.w
	stats := p.machine.Stats()
	w.counts.Evictions += int(stats.Evictions)
	w.counts.EvictionsRefused += int(stats.EvictionsRefused)
	w.counts.FenceTrips += int(stats.FenceTrips)
	w.counts.Contested += int(stats.Contested)
	w.counts.CacheWaits += int(stats.CacheWaits)
	w.counts.CacheWaitsGivenUp += int(stats.CacheWaitsGivenUp)
	p.work.stop()
	ended := p.machine
	p.machine, p.retired, p.lost = nil, ended, reason
	p.work.disown()
	switch {
	case errors.Is(reason, claim.ErrStopped):
		p.die("has stopped")
		if w.profile.kind != deletion && w.chance(0.5) {
			w.after(w.between(0, 10*time.Second), p.collectVoid)
		}
	case errors.Is(reason, claim.ErrDrainTimeout), errors.Is(reason, claim.ErrStaleWatch):
		// The process exits after a while; the container is restarted.
		w.after(w.between(0, p.timing.grace/2), func() { p.exit() })
	default:
		p.rejoin(ended)
	}
}

// collectVoid lets the garbage collector delete the void Lease of a Pod that is gone.
func (p *process) collectVoid() {
	w := p.w
	if l := w.server.lease(p.lease); l.Name != "" && l.Record.Void() && !w.server.down && w.find(func(q *process) bool { return q.name == p.name }) == nil {
		w.logf("the void Lease of %s is deleted with its Pod", p.holder)
		w.server.deleteByHand(p.lease)
	}
}

// rejoin creates the next machine as soon as nothing is in flight.
func (p *process) rejoin(ended *claim.Machine) {
	w := p.w
	switch {
	case !p.alive || p.machine != nil:
	case p.paused:
		p.asleep.answers = append(p.asleep.answers, func() { p.rejoin(ended) })
	case p.stopping:
		p.die("has stopped")
	case p.work.busy():
		w.after(w.between(time.Millisecond, 300*time.Millisecond), func() { p.rejoin(ended) })
	default:
		p.live(ended)
	}
}

// die ends the process. Requests that it has sent may still arrive.
func (p *process) die(how string) {
	if !p.alive {
		return
	}
	p.w.logf("%s: %s", p.name, how)
	if m := p.machine; m != nil {
		p.retire()
	}
	p.alive, p.paused, p.machine = false, false, nil
	p.asleep = asleep{}
	p.watch.close()
	p.w.remove(p)
}

// retire counts what a machine that is still alive has done.
func (p *process) retire() {
	if m := p.machine; m != nil {
		stats := m.Stats()
		t := &p.w.counts
		t.Evictions += int(stats.Evictions)
		t.EvictionsRefused += int(stats.EvictionsRefused)
		t.FenceTrips += int(stats.FenceTrips)
		t.Contested += int(stats.Contested)
		t.CacheWaits += int(stats.CacheWaits)
		t.CacheWaitsGivenUp += int(stats.CacheWaitsGivenUp)
	}
}

// exit ends the process with an error: its container is restarted.
func (p *process) exit() {
	if !p.alive {
		return
	}
	p.die("exits")
	if !p.stopping {
		w := p.w
		w.after(w.between(300*time.Millisecond, 5*time.Second), func() { w.startUnlessTaken(p.name, p.podUID, true) })
	}
}

// startUnlessTaken starts a process in a Pod unless one is alive there.
func (w *sim) startUnlessTaken(name, podUID string, takeOver bool) {
	w.whenNewcomersMay(func() {
		if w.find(func(q *process) bool { return q.podUID == podUID }) == nil {
			w.start(name, podUID, takeOver)
		}
	})
}

// wakeUp schedules the next Tick.
func (p *process) wakeUp() {
	w, m, now := p.w, p.machine, p.clock.now().Mono
	next := m.Next()
	if next <= now {
		w.fail("%s: Next is not in the future: this loop would spin", p.holder)
		return
	}
	at := w.now + p.clock.real(next-now) + w.between(0, time.Millisecond)
	if p.wakeAt > w.now && p.wakeAt <= at {
		return // the scheduled one checks again
	}
	p.wakeAt = at
	w.after(at-w.now, func() {
		p.own(m, func() {
			switch {
			case p.wakeAt != at: // another one was scheduled
			case m.Next() > p.clock.now().Mono:
				p.wakeAt = 0
				p.wakeUp()
			default:
				p.wakeAt = 0
				p.step(claim.Tick{})
			}
		})
	})
}

// pause stops the process as SIGSTOP does, or, frozen, as a hypervisor does.
func (p *process) pause(d time.Duration, frozen bool) {
	w := p.w
	if p.paused || !p.alive {
		return
	}
	w.note("pause", d)
	w.logf("%s: is paused for %v (monotonic clock stands still: %v)", p.name, d, frozen)
	p.work.fallAsleep()
	p.paused = true
	p.asleep = asleep{since: w.now}
	p.clock.freeze(frozen)
	w.after(d, func() { p.resume() })
}

// resume resumes the process: it handles what is pending, the events of the watch in order, all
// else in any order.
func (p *process) resume() {
	if !p.paused || !p.alive {
		return
	}
	w := p.w
	p.clock.freeze(false)
	p.paused = false
	waiting := p.asleep
	p.asleep = asleep{}
	w.logf("%s: is resumed", p.name)
	p.work.wakeUp(w.now - waiting.since)
	p.checkExclusive()
	p.carryOut(waiting.rest)
	w.rand.Shuffle(len(waiting.answers), func(i, j int) {
		waiting.answers[i], waiting.answers[j] = waiting.answers[j], waiting.answers[i]
	})
	for len(waiting.events)+len(waiting.answers) > 0 && w.failure == nil {
		if len(waiting.answers) == 0 || len(waiting.events) > 0 && w.chance(0.5) {
			next := waiting.events[0]
			waiting.events = waiting.events[1:]
			next()
		} else {
			next := waiting.answers[0]
			waiting.answers = waiting.answers[1:]
			next()
		}
	}
	if p.alive && !p.paused {
		p.step(claim.Tick{})
	}
}
