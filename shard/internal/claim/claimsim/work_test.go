// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claimsim

import (
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// work is the work of one process. Its workers work on every point that they may, without a
// pause, one piece after the other, so that no moment with a possible overlap is missed. A
// piece that is in flight when its partition is drained, or the fence is reached, ends some
// time after its context was cancelled.
type work struct {
	p          *process
	parameters ring.Parameters
	states     []ring.State // of partitions, according to the actions
	active     uint64       // points that are active, as bits
	fence      claim.Time   // as published after the last step
	open       bool         // the member is not fenced

	until    []time.Duration // by point: a piece that should end is in flight until then
	asleep   uint64          // points that were being worked on when the process was paused
	stopped  bool            // everything was cancelled, and nothing has begun since
	stops    int
	awaiting ring.Set // drained, not yet reported idle
}

// forever is when a piece of work that ignores its context ends.
const forever = 1000 * time.Hour

func newWork(p *process) work {
	return work{p: p, until: make([]time.Duration, len(p.w.points))}
}

// pointOf is the point of an object by the key that the process uses: with another key, it
// has another point.
func (k *work) pointOf(i int) uint64 {
	if point := k.p.w.points[i]; k.parameters.Key == ring.ByName.Name() {
		return point
	} else {
		return point*0x9e3779b97f4a7c15 + 1
	}
}

func (k *work) state(i int) ring.State {
	if len(k.states) == 0 {
		return ring.NotOwned
	}
	return k.states[ring.PartitionOf(k.pointOf(i), len(k.states))]
}

// publish copies the state that workers check from the machine, after each of its steps.
func (k *work) publish() {
	p, m := k.p, k.p.machine
	if inForce := m.Parameters(); len(k.states) != inForce.Partitions || k.parameters.Key != inForce.Key {
		for _, s := range k.states {
			if s != ring.NotOwned {
				p.w.fail("%s: the partition count or key changes while some partitions are held", p.holder)
			}
		}
		k.states = make([]ring.State, inForce.Partitions)
		k.parameters = inForce
		k.findActive()
	}
	was, wasOpen := k.fence, k.open
	k.fence, k.open = m.Fence()
	if k.past() {
		return
	}
	k.stopped = false
	if k.fence != was || !wasOpen {
		k.planFence()
	}
}

// planFence cancels everything when the fence is reached.
func (k *work) planFence() {
	p, m, fence := k.p, k.p.machine, k.fence
	p.w.after(p.clock.until(fence), func() {
		if p.alive && !p.paused && p.machine == m && k.fence == fence && k.past() {
			k.stop()
		}
	})
}

// past reports whether no more work may be handed out: each worker checks it before each
// piece.
func (k *work) past() bool { return !k.open || k.p.clock.now().Reached(k.fence) }

// set records a new state of partitions.
func (k *work) set(partitions ring.Set, state ring.State) {
	if partitions.Partitions() != len(k.states) {
		k.p.w.fail("%s: an action is about %d partitions instead of %d", k.p.holder, partitions.Partitions(), len(k.states))
		return
	}
	for partition := range partitions.All() {
		k.states[partition] = state
	}
	k.findActive()
}

func (k *work) findActive() {
	k.active = 0
	for i := range k.p.w.points {
		if k.state(i) == ring.Active {
			k.active |= 1 << i
		}
	}
}

// doing returns the points on which the process works with effect, as bits. A paused process
// has an effect only if it resumes before its fence.
func (k *work) doing() uint64 {
	past := k.past()
	if k.p.paused {
		if past {
			return 0
		}
		return k.asleep
	}
	doing := k.lingering()
	if !past {
		doing |= k.active
	}
	return doing
}

// lingering returns the points on which a piece of work is about to end.
func (k *work) lingering() (points uint64) {
	for i, until := range k.until {
		if until > k.p.w.now {
			points |= 1 << i
		}
	}
	return points
}

func (k *work) busy() bool { return k.lingering() != 0 }

// cancel cancels the piece in flight on a point.
func (k *work) cancel(i int) {
	k.until[i] = max(k.until[i], k.p.w.now+k.reaction())
}

// reaction is how long a piece continues after its context was cancelled. It may take the stop
// grace period; some pieces take longer, and the drain waits for them.
func (k *work) reaction() time.Duration {
	w, grace := k.p.w, k.p.clock.real(k.p.timing.grace)-time.Millisecond
	x := w.rand.Float64()
	switch {
	case x < w.profile.idle:
		return 0 // nothing was in flight
	case w.faultsCleared || x > w.profile.slowWork:
		if w.chance(0.3) {
			return grace
		}
		return w.between(0, grace)
	case w.chance(0.15):
		return forever
	}
	return w.between(grace, 25*time.Second)
}

// drain hands out no more work on partitions and reports when it has ended. With a grace period
// the piece in flight may end by itself.
func (k *work) drain(partitions ring.Set) {
	cancel := k.active
	if k.past() {
		cancel = 0 // was cancelled at the fence
	}
	k.set(partitions, ring.Pending)
	for i := range k.until {
		if cancel&^k.active&(1<<i) != 0 {
			k.cancel(i)
			if grace := k.p.timing.drainGrace; grace > 0 && k.until[i] > k.p.w.now && k.p.w.chance(0.5) {
				k.until[i] += k.p.w.between(0, 2*grace)
			}
		}
	}
	if k.awaiting.Partitions() != len(k.states) {
		k.awaiting = ring.NewSet(len(k.states))
	}
	for partition := range partitions.All() {
		k.awaiting.Add(partition)
	}
	k.reportIdle(k.p.w.between(0, time.Millisecond))
}

// endGrace cancels the contexts of the work on partitions that are being drained.
func (k *work) endGrace(partitions ring.Set) {
	if k.p.timing.drainGrace == 0 {
		return // drain has cancelled them
	}
	for i := range k.until {
		if partitions.Has(ring.PartitionOf(k.pointOf(i), len(k.states))) {
			k.hurry(i)
		}
	}
	k.reportIdle(k.p.w.between(0, time.Millisecond))
}

// hurry cancels a piece that is about to end by itself.
func (k *work) hurry(i int) {
	if now := k.p.w.now; k.until[i] > now && k.until[i] < forever {
		k.until[i] = min(k.until[i], now+k.reaction())
	}
}

// reportIdle reports to the machine, after a while, which partitions have nothing in flight,
// and reschedules itself for the others.
func (k *work) reportIdle(wait time.Duration) {
	p, m := k.p, k.p.machine
	p.w.after(wait, func() {
		p.own(m, func() {
			idle, next := k.awaiting.Clone(), forever
			for i, until := range k.until {
				if until > p.w.now {
					idle.Remove(ring.PartitionOf(k.pointOf(i), len(k.states)))
					next = min(next, until)
				}
			}
			if next < forever {
				k.reportIdle(next - p.w.now + time.Microsecond)
			}
			if idle.Empty() {
				return
			}
			for partition := range idle.All() {
				k.awaiting.Remove(partition)
			}
			p.step(claim.Idle{Partitions: idle})
		})
	})
}

// stop cancels everything in flight: the fence was reached, or the machine ended.
// If work still runs after the grace period, the process exits.
func (k *work) stop() {
	if k.stopped {
		return
	}
	p := k.p
	k.stopped = true
	k.stops++
	for i := range k.until {
		if k.hurry(i); k.active&(1<<i) != 0 {
			k.cancel(i)
		}
	}
	stops := k.stops
	p.w.after(p.clock.real(p.timing.grace)-time.Microsecond, func() {
		if p.alive && k.stops == stops && k.past() && k.busy() {
			p.w.logf("%s: work continues after the grace period", p.name)
			p.exit()
		}
	})
}

// disown drops all partitions: their machine has ended.
func (k *work) disown() {
	k.states, k.active, k.open, k.awaiting = nil, 0, false, ring.Set{}
	k.parameters = ring.Parameters{}
}

// fallAsleep records what is in flight when the process is paused.
func (k *work) fallAsleep() { k.asleep = k.doing() }

// wakeUp handles the end of a pause. Each piece of work checks the fence before its next
// effect.
func (k *work) wakeUp(slept time.Duration) {
	p := k.p
	if !k.past() {
		for i := range k.until {
			if k.until[i] > p.w.now-slept && k.until[i] < forever {
				k.until[i] += slept // it made no progress meanwhile
			}
		}
		k.planFence()
		return
	}
	if p.w.without == worksOnAfterPause {
		for _, q := range p.w.procs {
			if q != p && q.work.doing()&k.asleep != 0 {
				p.w.fail("S1: %s continues to work after a pause, while %s works, too", p.holder, q.holder)
			}
		}
	}
	ignoring := false
	for i := range k.until {
		ignoring = ignoring || k.until[i] == forever
		k.until[i] = 0
	}
	k.stopped = true
	k.stops++
	if ignoring {
		p.exit()
	}
}
