// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// What is checked, by what the world knows and not by what the machine believes.

// checkExclusive is S1: at most one process works on a point.
func (p *process) checkExclusive() {
	w := p.w
	mine := p.work.doing()
	if mine == 0 || w.failure != nil {
		return
	}
	for _, q := range w.procs {
		if q == p {
			continue
		}
		if both := mine & q.work.doing(); both != 0 {
			i := bits.TrailingZeros64(both)
			w.fail("S1: %s and %s both work on point %x (paused %v, %v; lingering %v, %v)", p.holder, q.holder, w.points[i],
				p.paused, q.paused, p.work.lingering()&both != 0, q.work.lingering()&both != 0)
			return
		}
	}
}

// checkStates holds the actions against the states: they must tell the whole story.
func (p *process) checkStates() {
	for partition, s := range p.machine.States() {
		if p.work.states[partition] != s {
			p.w.fail("%s: partition %d is %v, but by the actions it is %v", p.holder, partition, s, p.work.states[partition])
			return
		}
	}
	if fence, open := p.machine.Fence(); open && p.clock.now().Reached(fence) {
		p.w.fail("C3: %s: the fence is reached, but Fenced was not given", p.holder)
	}
}

// lastToken is the claim under which a point was active last.
type lastToken struct{ version, holder string }

// checkActivated is S0: at some moment between the claim and now, no other held
// Lease claimed the partition on the server; and tokens rise from owner to owner.
func (p *process) checkActivated(partitions ring.Set) {
	w, k := p.w, &p.work
	gained := p.gained(partitions)
	p.checkFresh("activate", gained)
	p.checkCache(gained)
	for partition := range partitions.All() {
		token := p.machine.Token(partition)
		if !p.unclaimedSince(token, partition) {
			w.fail("S0: %s activates partition %d, which another held Lease has claimed ever since %s", p.holder, partition, token)
			return
		}
		for i := range w.points {
			if ring.PartitionOf(k.pointOf(i), len(k.states)) != partition {
				continue
			}
			last := w.tokens[i]
			if c := CompareVersions(token, last.version); last.holder != p.holder && c <= 0 || c < 0 {
				w.fail("S0: %s activates partition %d with token %q after %s with %q", p.holder, partition, token, last.holder, last.version)
				return
			}
			w.tally.Activations++
			if last.holder != "" && last.holder != p.holder {
				w.tally.Handovers++
			}
			w.tokens[i] = lastToken{token, p.holder}
		}
	}
}

// gained leaves out what the machine had active under the same claim before, and
// now takes up again before the release was sent.
func (p *process) gained(partitions ring.Set) ring.Set {
	t := &p.told
	if len(t.tokens) != partitions.Partitions() {
		t.tokens = make([]string, partitions.Partitions())
	}
	gained := partitions.Clone()
	for partition := range partitions.All() {
		token := p.machine.Token(partition)
		if t.tokens[partition] == token {
			gained.Remove(partition)
		}
		t.tokens[partition] = token
	}
	return gained
}

// unclaimedSince goes back in the server's history from now to the write of the
// given version.
func (p *process) unclaimedSince(version string, partition int) bool {
	s := p.w.server
	first, written := s.at[version]
	if !written {
		return s.restores > 0 // the history before a restore is gone
	}
	overlaps := func(l *Lease) bool {
		return l != nil && l.Name != p.lease && !l.Record.Void() && l.Record.Claims.overlaps(partition, p.work.parameters)
	}
	others := 0
	for _, l := range s.leases {
		if overlaps(&l) {
			others++
		}
	}
	for i := len(s.log) - 1; others > 0 && i > first; i-- {
		if overlaps(s.log[i].after) {
			others--
		}
		if overlaps(s.log[i].before) {
			others++
		}
	}
	return others == 0
}

// told is what a machine was told, kept beside it.
type told struct {
	peers     map[string]toldPeer
	confirmed time.Duration // monotonic time of the last confirmed write
	gapEnd    time.Duration // the same, of the last one that came after a gap
	freshAt   time.Duration // the same, of when the watch came back from being stale
	unechoed  []awaited
	echo      string // highest version of the own Lease that the watch showed
	uid       string
	claims    Claims // of the last write that was sent
	phase     Phase
	tokens    []string        // by partition: under which it was active last
	read      map[string]bool // other holders of this name, as a Get has shown them
	clearing  map[uint64]bool // evictions and deletions of others' Leases that have no answer yet
}

type toldPeer struct {
	lease Lease
	since time.Duration
}

func (t *told) hear(p *process, e Event, now Time) {
	switch e := e.(type) {
	case EvictResult:
		delete(t.clearing, e.Op)
	case DeleteResult:
		delete(t.clearing, e.Op)
	case LeaseObserved:
		t.see(p, e.Lease, now)
	case GetResult:
		if e.Outcome == OK && e.Lease.Record.Holder != p.holder {
			t.read[e.Lease.Record.Holder] = true
		}
	case LeaseDeleted:
		delete(t.peers, e.Last.Name)
	case ListResult:
		for _, l := range e.Leases {
			if _, known := t.peers[l.Name]; !known && l.Name != p.lease {
				t.see(p, l, now)
			}
		}
	case WriteResult:
		if e.Outcome != OK || len(t.unechoed) > 0 && t.unechoed[len(t.unechoed)-1].version == e.Lease.Version {
			return
		}
		if t.uid == "" || now.Mono-t.confirmed > 2*p.timing.period {
			t.gapEnd, t.unechoed = now.Mono, nil
		}
		t.uid, t.confirmed = e.Lease.UID, now.Mono
		if CompareVersions(t.echo, e.Lease.Version) < 0 {
			t.unechoed = append(t.unechoed, awaited{e.Lease.Version, now})
		}
	}
}

func (t *told) see(p *process, l Lease, now Time) {
	if l.Name != p.lease {
		since := now.Mono
		if was, known := t.peers[l.Name]; known && was.lease.UID == l.UID && was.lease.Record.Holder == l.Record.Holder && was.lease.Record.Seq == l.Record.Seq {
			since = was.since // what others write on its Lease is no sign of life
		}
		t.peers[l.Name] = toldPeer{l, since}
		return
	}
	if l.Record.Holder != p.holder {
		return
	}
	t.echo = l.Version
	stale := func(a awaited) bool { return now.Mono-a.at.Mono > p.timing.echo }
	wasStale := slices.ContainsFunc(t.unechoed, stale)
	t.unechoed = slices.DeleteFunc(t.unechoed, func(a awaited) bool { return CompareVersions(a.version, l.Version) <= 0 })
	if wasStale && !slices.ContainsFunc(t.unechoed, stale) {
		t.freshAt = now.Mono
	}
}

// checkFresh: nothing is gained and nobody is evicted by a member whose own writes
// don't come back through its watch.
func (p *process) checkFresh(what string, gained ring.Set) {
	t, now := &p.told, p.stepped
	if gained.Empty() {
		return
	}
	if t.echo == "" {
		p.w.fail("C4: %s wants to %s before its watch has shown its own Lease", p.holder, what)
	}
	for _, a := range t.unechoed {
		if now.Mono-a.at.Mono > p.timing.echo {
			p.w.fail("C4: %s wants to %s while its watch has not shown its own write of %v ago", p.holder, what, now.Mono-a.at.Mono)
			return
		}
	}
}

// checkUpdate is C2: a claim that an update withdraws has nothing in flight.
func (p *process) checkUpdate(u WriteLease) {
	t, k := &p.told, &p.work
	claims := u.Record.Claims
	gained := ring.NewSet(claims.Set.Partitions())
	for partition := range claims.Set.All() {
		if !t.claims.overlaps(partition, claims.Parameters) {
			gained.Add(partition)
		}
	}
	p.checkFresh("claim", gained)
	busy := k.lingering() | k.active
	for i := range k.until {
		point := k.pointOf(i)
		if busy&(1<<i) != 0 && t.claims.Set.HasPoint(point) && (u.Record.Void() || !claims.Set.HasPoint(point)) {
			p.w.fail("C2: %s withdraws its claim to point %x while it works on it", p.holder, point)
			return
		}
	}
	t.claims = claims
}

// countCost counts what an action costs the server.
func (p *process) countCost(a Action) {
	switch a := a.(type) {
	case WriteLease:
		if r := a.Record; !r.Void() && r.Claims.equal(p.told.claims) && r.Phase == p.told.phase {
			p.w.tally.Renewals++
		} else {
			p.w.tally.Changes++
		}
		p.told.phase = a.Record.Phase
	case CreateLease, DeleteLease, EvictLease:
		p.w.tally.Changes++
	case ListLeases:
		p.w.tally.Lists++
	}
}

// checkEvict is C4: holder and seq were unchanged for the declared duration, during
// which the member's own renewals succeeded.
func (p *process) checkEvict(e EvictLease) {
	t, now := &p.told, p.stepped
	if e.Name == p.lease {
		return
	}
	peer, known := t.peers[e.Name]
	one := ring.NewSet(1)
	one.Add(0)
	p.checkFresh("evict", one)
	switch silent := now.Mono - peer.since; {
	case !known:
		p.w.fail("C4: %s evicts %s, which it was never told of", p.holder, e.Name)
	case e.Version != "" && e.Version != peer.lease.Version:
		p.w.fail("C4: %s evicts %s at version %s instead of %s", p.holder, e.Name, e.Version, peer.lease.Version)
	case silent < peer.lease.Record.Duration:
		p.w.fail("C4: %s evicts %s, silent for %v only", p.holder, e.Name, silent)
	case now.Mono-t.gapEnd < peer.lease.Record.Duration:
		p.w.fail("C4: %s evicts %s %v after a gap in its own renewals", p.holder, e.Name, now.Mono-t.gapEnd)
	case now.Mono-t.freshAt < peer.lease.Record.Duration:
		p.w.fail("C4: %s evicts %s %v after its watch was stale", p.holder, e.Name, now.Mono-t.freshAt)
	case now.Mono-t.confirmed > 2*p.timing.period:
		p.w.fail("C4: %s evicts %s %v after its own last renewal", p.holder, e.Name, now.Mono-t.confirmed)
	}
}

// checkClearing is C9: few requests that clear others away are under way at once.
func (p *process) checkClearing(op uint64, name string) {
	if name == p.lease {
		return
	}
	p.told.clearing[op] = true
	if n := len(p.told.clearing); n > 4 {
		p.w.fail("C9: %s has %d evictions and deletions under way", p.holder, n)
	}
}

// requestRate notices a loop that asks without a pause.
type requestRate struct {
	second time.Duration
	count  int
}

func (p *process) countRequest() {
	if second := p.w.now.Truncate(time.Second); second != p.rate.second {
		p.rate = requestRate{second: second}
	}
	if p.rate.count++; p.rate.count > 100 {
		p.w.fail("%s sends more than 100 requests in a second", p.holder)
	}
}

// atRest is L1: every partition of the ring that the Leases on the server name is
// active at its owner, and at nobody else; and everyone who can serve does.
func (w *sim) atRest() error {
	if w.waiting > 0 {
		return fmt.Errorf("%d processes wait to be started", w.waiting)
	}
	var held []Lease
	for _, l := range w.server.list() {
		if !l.Record.Void() && l.Record.Phase != PhaseJoining {
			held = append(held, l)
		}
	}
	if len(held) == 0 {
		return fmt.Errorf("no member is on the ring")
	}
	slices.SortFunc(held, func(a, b Lease) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	inForce := held[0].Record.Parameters
	var members []string
	for _, l := range held {
		p := w.find(func(p *process) bool { return p.holder == l.Record.Holder && p.machine != nil })
		switch {
		case p == nil:
			return fmt.Errorf("the Lease of %s is held by nobody", l.Record.Holder)
		case l.Record.Phase != PhaseActive:
			return fmt.Errorf("%s is %s", l.Record.Holder, l.Record.Phase)
		case l.Record.Parameters.SameKeys(inForce):
			members = append(members, l.Record.Member)
		}
	}
	for _, p := range w.procs {
		other := w.server.leases[p.lease]
		if p.machine == nil || !p.machine.Serving() && !w.isHeldByLiving(other) {
			return fmt.Errorf("%s does not serve", p.holder)
		}
	}
	r, err := ring.New(inForce, members)
	if err != nil {
		return err
	}
	for partition := range inForce.Partitions {
		owner, _ := r.Owner(partition)
		owners := 0
		for _, p := range w.procs {
			if p.work.past() || len(p.work.states) != inForce.Partitions || p.work.states[partition] != ring.Active {
				continue
			}
			if owners++; p.name != owner {
				return fmt.Errorf("partition %d is active at %s instead of %s", partition, p.holder, owner)
			}
		}
		if owners != 1 {
			return fmt.Errorf("partition %d is active at %d members, and should be at %s: %s", partition, owners, owner, w.blockers(partition))
		}
	}
	return nil
}

// takenOver is L1 without the drains: no dead member holds a Lease, and somebody who
// lives has each partition, be it that it drains it for another one.
func (w *sim) takenOver() error {
	for _, l := range w.server.list() {
		if !l.Record.Void() && !w.isHeldByLiving(l) {
			return fmt.Errorf("no process holds the Lease of %s", l.Record.Holder)
		}
	}
	for partition := range w.profile.parameters.Partitions {
		if w.find(func(p *process) bool {
			return len(p.work.states) > partition && p.work.states[partition] != ring.NotOwned
		}) == nil {
			return fmt.Errorf("partition %d is at no member: %s", partition, w.blockers(partition))
		}
	}
	return nil
}

func (w *sim) isHeldByLiving(l Lease) bool {
	return w.find(func(p *process) bool { return p.holder == l.Record.Holder }) != nil
}

func (w *sim) blockers(partition int) (text string) {
	for _, p := range w.procs {
		if p.machine != nil {
			text += fmt.Sprintf("[%s: %v, blocked by %v] ", p.holder, p.work.states[min(partition, len(p.work.states)-1)], p.machine.Blockers())
		}
	}
	return text
}

// checkNothingMoved: in outages of the API alone everyone stops at its fence and
// goes on afterwards. Nobody is evicted, no machine ends, and nothing changes hands
// once the fleet has come together.
func (w *sim) checkNothingMoved() {
	if w.profile.kind != outages || w.failure != nil {
		return
	}
	for _, p := range w.procs {
		if s := p.machine.Stats(); p.lives > 1 || s.Evictions > 0 || s.EvictionsRefused > 0 {
			w.fail("after outages alone %s is in its life number %d, and has evicted: %+v", p.name, p.lives, s)
		}
	}
	if n := len(w.procs); n != w.profile.members {
		w.fail("after outages alone %d of %d members are left", n, w.profile.members)
	}
	if w.tally.Handovers > w.formed {
		w.fail("in outages alone %d points changed hands", w.tally.Handovers-w.formed)
	}
}
