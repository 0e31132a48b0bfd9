// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claimsim

import (
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/leaseserver"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// The checks use the state of the simulation, not the state of the machine.

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

// checkStates compares the actions with the states: the actions must report every change.
func (p *process) checkStates() {
	for partition, s := range p.machine.States() {
		if p.work.states[partition] != s {
			p.w.fail("%s: partition %d is %v, but by the actions it is %v", p.holder, partition, s, p.work.states[partition])
			return
		}
	}
	fence, open := p.machine.Fence()
	if open && p.clock.now().Reached(fence) {
		p.w.fail("C3: %s: the fence is reached, but the machine did not return Fenced", p.holder)
	}
	if open && fence != p.received.fence {
		p.received.fence = fence
		p.checkFence(fence)
	}
}

// checkFence is R6 and R40: the fence counts from the send time of a write that the server has
// carried out.
func (p *process) checkFence(fence claim.Time) {
	for seq, sent := range p.received.sent {
		if sent.at.Add(p.timing.deadline) == fence {
			if !p.w.server.written[ownWrite{p.holder, seq}] {
				p.w.fail("R40: the fence of %s counts from write %d, which was not carried out", p.holder, seq)
			}
			return
		}
	}
	p.w.fail("R6: the fence of %s, %v, counts from no write", p.holder, fence)
}

// lastToken is the claim under which a point was last active.
type lastToken struct{ version, holder string }

// checkActivated is S0: at some moment between the claim and now, no other held
// Lease claimed the partition on the server; and tokens increase from owner to owner.
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
		p.checkClaimed(token, partition)
		for i := range w.points {
			if ring.PartitionOf(k.pointOf(i), len(k.states)) != partition {
				continue
			}
			last := w.tokens[i]
			if c := claim.CompareVersions(token, last.version); last.holder != p.holder && c <= 0 || c < 0 {
				w.fail("S0: %s activates partition %d with token %q after %s with %q", p.holder, partition, token, last.holder, last.version)
				return
			}
			w.counts.Activations++
			if last.holder != "" && last.holder != p.holder {
				w.counts.Handovers++
			}
			w.tokens[i] = lastToken{token, p.holder}
		}
	}
}

// checkClaimed is S0, too: the write of the given version claims the partition, and no later
// write of this member has withdrawn the claim.
func (p *process) checkClaimed(version string, partition int) {
	s := p.w.server
	first, written := s.Find(version)
	if !written || s.foreign[p.holder] {
		return // the history before a restore is gone, or a user has written to the Lease
	}
	for i := first; i < s.End(); i++ {
		c := s.Change(i)
		switch {
		case i == first && (c.After == nil || c.Name != p.lease || c.After.Value.Holder != p.holder):
			p.w.fail("S0: %s activates partition %d with the token %s, which is not a version of its Lease", p.holder, partition, version)
			return
		case c.Name == p.lease && c.After != nil && c.After.Value.Holder == p.holder && !overlaps(c.After.Value.Claims, partition, p.work.parameters):
			p.w.fail("S0: %s activates partition %d, which its Lease does not claim at version %s", p.holder, partition, c.Version)
			return
		}
	}
}

// gained returns the partitions without those that were active under the same claim before,
// and that the machine activates again before it has sent the release.
func (p *process) gained(partitions ring.Set) ring.Set {
	t := &p.received
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

// unclaimedSince searches the server's history backwards from now to the write of the given
// version.
func (p *process) unclaimedSince(version string, partition int) bool {
	s := p.w.server
	first, written := s.Find(version)
	if !written {
		return s.restores > 0 // the history before a restore is gone
	}
	overlaps := func(o *leaseserver.Object[claim.Record]) bool {
		return o != nil && o.Name != p.lease && !o.Value.Void() && hasLabel(o.Value) && overlaps(o.Value.Claims, partition, p.work.parameters)
	}
	others := 0
	for _, o := range s.List() {
		if overlaps(&o) {
			others++
		}
	}
	for i := s.End() - 1; others > 0 && i > first; i-- {
		c := s.Change(i)
		if overlaps(c.After) {
			others--
		}
		if overlaps(c.Before) {
			others++
		}
	}
	return others == 0
}

// overlaps reports whether a point may lie both in the claims and in the partition (R22).
func overlaps(c claim.Claims, partition int, p ring.Parameters) bool {
	return c.Everything || !c.Set.Empty() && (!c.Parameters.SameKeys(p) || c.Set.OverlapsPartition(partition, p.Partitions))
}

func equal(a, b claim.Claims) bool {
	return a.Everything == b.Everything && a.Parameters == b.Parameters && a.Set.Equal(b.Set)
}

// received is the information that a machine has received, recorded independently of it.
type received struct {
	peers      map[string]receivedPeer
	inherited  map[string]claim.Record // by UID: the newest records that the earlier machine has received (R32)
	sent       map[uint64]sentWrite    // the member's own writes, by seq
	seq        uint64                  // of the last confirmed one
	writing    uint64                  // op of the write in flight, 0 for none
	lastRead   uint64                  // op of the last read that was sent
	oldReads   uint64                  // a read up to this op was sent alongside a write that has ended
	fence      claim.Time
	confirmed  time.Duration // monotonic time of the last confirmed write
	gapEnd     time.Duration // the same, of the last one after a gap
	unseen     []unseenWrite
	ownVersion string // highest version of the member's Lease that the watch showed
	uid        string
	claims     claim.Claims // of the last write that was sent
	phase      claim.Phase
	tokens     []string        // by partition: the one under which it was last active
	read       map[string]bool // other holders of this name, as a Get has shown them
	removals   map[uint64]bool // evictions and deletions of other members' Leases in flight
}

// sentWrite is a write that a member has sent.
type sentWrite struct {
	record claim.Record
	at     claim.Time
}

// send notes that a member writes its Lease. Every write has a seq of its own (R40).
func (t *received) send(p *process, op uint64, r claim.Record, now claim.Time) {
	t.writing = op
	if _, again := t.sent[r.Seq]; again {
		p.w.fail("R40: %s writes seq %d again", p.holder, r.Seq)
	}
	for seq, sent := range t.sent {
		if seq+200 < r.Seq || seq < t.seq && now.Mono-sent.at.Mono > time.Minute {
			delete(t.sent, seq)
		}
	}
	t.sent[r.Seq] = sentWrite{r, now}
}

// confirm notes that the write with the seq was confirmed.
func (t *received) confirm(p *process, uid string, seq uint64, now claim.Time) {
	if t.uid == "" || now.Mono-t.confirmed > 2*p.timing.period {
		t.gapEnd, t.unseen = now.Mono, nil
	}
	t.uid, t.confirmed, t.seq = uid, now.Mono, seq
}

// unseenWrite is a write of the member that its watch has not shown yet.
type unseenWrite struct {
	version string
	at      claim.Time
}

type receivedPeer struct {
	lease  claim.Lease
	newest claim.Lease // with the highest version of this holder: an older one proves nothing
	since  time.Duration
	// ahead says that a list has shown it: what the watch shows of earlier versions, and of earlier Leases
	// of that name, does not count, except in a list after the first one. That is relisted.
	ahead, relisted bool
}

func (t *received) receive(p *process, e claim.Event, now claim.Time) {
	switch e := e.(type) {
	case claim.EvictResult:
		delete(t.removals, e.Op)
	case claim.DeleteResult:
		delete(t.removals, e.Op)
	case claim.LeaseObserved:
		if peer := t.peers[e.Lease.Name]; !peer.ahead || e.Listed && peer.relisted || claim.CompareVersions(e.Lease.Version, peer.lease.Version) >= 0 {
			t.see(p, e.Lease, now)
			if peer, known := t.peers[e.Lease.Name]; known {
				peer.ahead = e.Ahead
				t.peers[e.Lease.Name] = peer
			}
		}
	case claim.WatchProgress:
		for name, peer := range t.peers {
			peer.relisted = peer.relisted || e.Listed
			t.peers[name] = peer
		}
	case claim.GetResult:
		r := e.Lease.Record
		if e.Outcome == claim.OK && r.Holder != p.holder {
			t.read[r.Holder] = true
		}
		// R40: a read confirms the write that it shows.
		if s := t.sent[r.Seq]; e.Op > t.oldReads && e.Outcome == claim.OK && r.Holder == p.holder && r.Seq > t.seq && !r.Edited && hasLabel(r) &&
			r.Phase == s.record.Phase && equal(r.Claims, s.record.Claims) && !now.Reached(s.at.Add(p.timing.deadline)) {
			p.w.counts.ConfirmedByRead++
			t.confirm(p, e.Lease.UID, r.Seq, now)
		}
	case claim.LeaseDeleted:
		if t.peers[e.Last.Name].lease.UID == e.Last.UID {
			delete(t.peers, e.Last.Name)
		}
	case claim.ListResult:
		for _, l := range e.Leases {
			was, known := t.peers[l.Name]
			order := claim.CompareVersions(l.Version, was.lease.Version)
			if l.Name != p.lease && (!known || order > 0 && was.lease.UID != l.UID || order < 0 && was.ahead) {
				t.see(p, l, now)
				peer := t.peers[l.Name]
				peer.ahead = true
				t.peers[l.Name] = peer
			}
		}
	case claim.WriteResult:
		if e.Op == t.writing {
			t.writing, t.oldReads = 0, t.lastRead
		}
		if e.Outcome != claim.OK || len(t.unseen) > 0 && t.unseen[len(t.unseen)-1].version == e.Lease.Version {
			return
		}
		if t.seq >= e.Lease.Record.Seq && t.uid != "" {
			return // a read has confirmed it
		}
		t.confirm(p, e.Lease.UID, e.Lease.Record.Seq, now)
		if claim.CompareVersions(t.ownVersion, e.Lease.Version) < 0 {
			t.unseen = append(t.unseen, unseenWrite{e.Lease.Version, now})
		}
	}
}

func (t *received) see(p *process, l claim.Lease, now claim.Time) {
	if l.Name != p.lease {
		since, newest := now.Mono, l
		if before, known := t.inherited[l.UID]; known && before.Holder == l.Record.Holder && l.Record.Seq < before.Seq {
			newest.Record = before // an old record, or a late write of it
			newest.Record.Edited = true
		}
		if was, known := t.peers[l.Name]; known && was.newest.UID == l.UID {
			// Writes of other clients to its Lease do not count.
			r := was.newest.Record
			older, same := claim.CompareVersions(l.Version, was.newest.Version) < 0, r.Holder == l.Record.Holder
			edited := l.Record.Edited || same && l.Record.Seq < r.Seq // an old record, applied again
			if older || edited && r.Edited || same && r.Seq == l.Record.Seq {
				since = was.since
			}
			if older || edited {
				newest.Record = r
				newest.Record.Edited = edited
			}
			if older {
				newest.Version = was.newest.Version
			}
		}
		t.peers[l.Name] = receivedPeer{lease: l, newest: newest, since: since}
		return
	}
	if l.Record.Holder != p.holder && l.UID != t.uid { // a user may have edited the holder
		return
	}
	t.ownVersion = l.Version
	t.unseen = slices.DeleteFunc(t.unseen, func(a unseenWrite) bool { return claim.CompareVersions(a.version, l.Version) <= 0 })
}

// checkFresh is C4 and R34: a member whose own writes do not come back through its watch gains
// nothing and evicts no member.
func (p *process) checkFresh(what string, gained ring.Set) {
	t, now := &p.received, p.stepped
	if gained.Empty() {
		return
	}
	if t.ownVersion == "" {
		p.w.fail("C4: %s wants to %s before its watch has shown its own Lease", p.holder, what)
	}
	for _, a := range t.unseen {
		if now.Mono-a.at.Mono > p.timing.watchLag {
			p.w.fail("C4: %s wants to %s while its watch has not shown its own write of %v ago", p.holder, what, now.Mono-a.at.Mono)
			return
		}
	}
}

// checkUpdate is C2: nothing is in flight on a partition whose claim an update withdraws.
func (p *process) checkUpdate(u claim.WriteLease) {
	t, k := &p.received, &p.work
	claims := u.Record.Claims
	gained := ring.NewSet(claims.Set.Partitions())
	for partition := range claims.Set.All() {
		if !overlaps(t.claims, partition, claims.Parameters) {
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

// countCost counts the cost of an action for the server.
func (p *process) countCost(a claim.Action) {
	switch a := a.(type) {
	case claim.WriteLease:
		if r := a.Record; !r.Void() && equal(r.Claims, p.received.claims) && r.Phase == p.received.phase {
			p.w.counts.Renewals++
		} else {
			p.w.counts.Changes++
		}
		p.received.phase = a.Record.Phase
	case claim.CreateLease, claim.DeleteLease, claim.EvictLease:
		p.w.counts.Changes++
	case claim.ListLeases:
		p.w.counts.Lists++
	}
}

// checkEvict is C4: holder and seq were unchanged for the declared duration, during
// which the member's own renewals succeeded.
func (p *process) checkEvict(e claim.EvictLease) {
	t, now := &p.received, p.stepped
	if e.Name == p.lease {
		return
	}
	peer, known := t.peers[e.Name]
	one := ring.NewSet(1)
	one.Add(0)
	p.checkFresh("evict", one)
	switch silent := now.Mono - peer.since; {
	case !known:
		p.w.fail("C4: %s evicts %s, of which it never got an event", p.holder, e.Name)
	case e.Version != "" && e.Version != peer.lease.Version:
		p.w.fail("C4: %s evicts %s at version %s instead of %s", p.holder, e.Name, e.Version, peer.lease.Version)
	case silent < peer.lease.Record.Duration:
		p.w.fail("C4: %s evicts %s, silent for %v only", p.holder, e.Name, silent)
	case now.Mono-t.gapEnd < peer.lease.Record.Duration:
		p.w.fail("C4: %s evicts %s %v after a gap in its own renewals", p.holder, e.Name, now.Mono-t.gapEnd)
	case now.Mono-t.confirmed > 2*p.timing.period:
		p.w.fail("C4: %s evicts %s %v after its own last renewal", p.holder, e.Name, now.Mono-t.confirmed)
	}
}

// checkRemovals is C9: only a few evictions and deletions of other members' Leases are in
// flight at once.
func (p *process) checkRemovals(op uint64, name string) {
	if name == p.lease {
		return
	}
	p.received.removals[op] = true
	if n := len(p.received.removals); n > 4 {
		p.w.fail("C9: %s has %d evictions and deletions in flight", p.holder, n)
	}
}

// checkExtra is R42: a write keeps what others have put on the Lease.
func (p *process) checkExtra(before, after claim.Extra) {
	if !maps.Equal(before.Labels, after.Labels) {
		p.w.fail("R42: %s erases what others have put on its Lease: %v instead of %v", p.holder, after.Labels, before.Labels)
	}
	if len(after.Labels) > 0 {
		p.w.counts.Kept++
	}
}

// requestRate detects a loop that sends requests without a pause.
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

// atRest is L1: every partition of the ring that follows from the Leases on the server is
// active at its owner, and at no other member; and every member that can serve does.
func (w *sim) atRest() error {
	if w.waiting > 0 {
		return fmt.Errorf("%d processes wait to be started", w.waiting)
	}
	var held []claim.Lease
	for _, l := range w.server.list() {
		if !l.Record.Void() && l.Record.Phase != claim.PhaseJoining {
			held = append(held, l)
		}
	}
	if len(held) == 0 {
		return fmt.Errorf("no member is on the ring")
	}
	slices.SortFunc(held, func(a, b claim.Lease) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	inForce := held[0].Record.Parameters
	var members []string
	for _, l := range held {
		p := w.find(func(p *process) bool { return p.holder == l.Record.Holder && p.machine != nil })
		switch {
		case p == nil:
			return fmt.Errorf("no process holds the Lease of %s", l.Record.Holder)
		case l.Record.Phase != claim.PhaseActive:
			return fmt.Errorf("%s is %s", l.Record.Holder, l.Record.Phase)
		case l.Record.Parameters.SameKeys(inForce):
			members = append(members, l.Record.Member)
		}
	}
	for _, p := range w.procs {
		other := w.server.lease(p.lease)
		if p.machine == nil || !p.machine.Serving() && (other.Record.Holder == p.holder || !w.isHeldByLiving(other)) {
			return fmt.Errorf("%s does not serve", p.holder)
		}
		if p.machine.Serving() && p.watch.stalled {
			return fmt.Errorf("%s has not noticed yet that its watch has stalled (R34)", p.holder)
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

// takenOver is L1 without the drains: no dead member holds a Lease, and a live member has each
// partition, even if it still drains it for another member.
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

func (w *sim) isHeldByLiving(l claim.Lease) bool {
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

// checkNothingStopped is what R40 and R41 promise: if nothing happens but that responses of
// writes are lost, or that requests take long, no member is fenced.
func (w *sim) checkNothingStopped() {
	if w.profile.kind != slow && w.profile.kind != oneWay || w.failure != nil {
		return
	}
	for _, p := range w.procs {
		if n := p.fenced; n > 0 {
			w.fail("L1: %s was fenced %d times although its writes were carried out and its reads answered (%s)", p.holder, n, w.profile.kind)
		}
	}
}

// checkNothingMoved: if there are only outages of the API, or responses of writes are lost,
// every member stops at its fence, if at all, and resumes afterwards. No member is evicted, no machine ends, and no partition changes its owner
// after the fleet has formed.
func (w *sim) checkNothingMoved() {
	if w.profile.kind != outages && w.profile.kind != oneWay || w.failure != nil {
		return
	}
	for _, p := range w.procs {
		if s := p.machine.Stats(); p.lives > 1 || s.Evictions > 0 || s.EvictionsRefused > 0 {
			w.fail("after nothing but %s %s has its machine number %d, or has evicted: %+v", w.profile.kind, p.name, p.lives, s)
		}
	}
	if n := len(w.procs); n != w.profile.members {
		w.fail("after nothing but %s %d of %d members are left", w.profile.kind, n, w.profile.members)
	}
	if w.counts.Handovers > w.formed {
		w.fail("in nothing but %s %d points changed their owner", w.profile.kind, w.counts.Handovers-w.formed)
	}
}
