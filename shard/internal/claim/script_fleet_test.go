// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claim_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
	"github.com/tom-ludwig/operator-scaling/shard/internal/leaseserver"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// scriptFleet is the members of a script, their API server and their clock. Requests and
// watches take no time, unless a command delays them.
type scriptFleet struct {
	t       *testing.T
	now     time.Duration
	server  *leaseserver.Store[claim.Record]
	members map[string]*scriptMember
	pending []func()      // what happens next, at the present time
	timers  []scriptTimer // what happens later
	out     strings.Builder
}

type scriptTimer struct {
	at time.Duration
	do func()
}

// scriptMember is the process of a member. When its machine has ended for a reason that
// allows it, it creates the next one.
type scriptMember struct {
	f       *scriptFleet
	name    string
	uid     string // of the Pod
	life    int
	machine *claim.Machine // nil if there is no process
	last    claim.Record   // that it sent
	shown   int            // number of the next change that its watch shows
	cut     bool
	stalled bool
	busy    bool
	drains  ring.Set // to report as idle when the work ends
	holds   string   // verb
	held    []func()
}

func newScriptFleet(t *testing.T) *scriptFleet {
	return &scriptFleet{t: t, server: leaseserver.NewStore[claim.Record](), members: map[string]*scriptMember{}}
}

func (f *scriptFleet) time() claim.Time {
	return claim.Time{Mono: time.Hour + f.now, Wall: 1_700_000_000*time.Second + f.now}
}

func (f *scriptFleet) printf(format string, args ...any) {
	fmt.Fprintf(&f.out, "%7.3f  "+format+"\n", append([]any{f.now.Seconds()}, args...)...)
}

func (f *scriptFleet) takeOutput() string {
	defer f.out.Reset()
	return f.out.String()
}

func (f *scriptFleet) all() []*scriptMember {
	var members []*scriptMember
	for _, name := range slices.Sorted(maps.Keys(f.members)) {
		members = append(members, f.members[name])
	}
	return members
}

// settle carries out everything that happens at the present time.
func (f *scriptFleet) settle() {
	for n := 0; len(f.pending) > 0; n++ {
		if n > 10_000 {
			f.t.Fatal("the fleet does not come to rest")
		}
		next := f.pending[0]
		f.pending = f.pending[1:]
		next()
	}
}

// run lets time pass.
func (f *scriptFleet) run(d time.Duration) {
	for end := f.now + d; f.now < end; f.settle() {
		next := end
		for _, m := range f.all() {
			if m.machine != nil {
				next = min(next, m.machine.Next()-time.Hour)
			}
		}
		for _, timer := range f.timers {
			next = min(next, timer.at)
		}
		f.now = max(next, f.now)
		due := func(timer scriptTimer) bool { return timer.at <= f.now }
		for _, timer := range f.timers {
			if due(timer) {
				f.pending = append(f.pending, timer.do)
			}
		}
		f.timers = slices.DeleteFunc(f.timers, due)
		for _, m := range f.all() {
			if m.machine != nil && m.machine.Next() <= f.time().Mono {
				m.event(claim.Tick{})
			}
		}
	}
}

// start starts a process. The API server and the watch show it all Leases.
func (f *scriptFleet) start(name, uid, holds string) {
	m := f.members[name]
	if m == nil {
		m = &scriptMember{f: f, name: name}
		f.members[name] = m
	}
	m.uid, m.busy, m.cut, m.stalled, m.holds = uid, false, false, false, holds
	m.live(nil)
}

// live starts a machine, after another one of the same process if there was one.
func (m *scriptMember) live(ended *claim.Machine) {
	predecessor := m.holder()
	m.life++
	cfg := claim.Config{
		Member: m.name, Lease: "lease-" + m.name, Holder: m.holder(), PodUID: m.uid, TakeOver: true,
		Parameters:    ring.Parameters{Key: "name", Partitions: 8, VirtualNodes: 20, Load: 1.25},
		LeaseDuration: 15 * time.Second, RenewDeadline: 9 * time.Second, RenewPeriod: 3 * time.Second,
		WatchLagLimit: 6 * time.Second, DrainTimeout: 30 * time.Second, Coalesce: 50 * time.Millisecond,
		StartupSettle: 300 * time.Millisecond,
	}
	if ended != nil {
		cfg.Predecessor, cfg.Tombstones, cfg.Knowledge = predecessor, ended.Tombstones(), ended.Knowledge()
	}
	m.machine = claim.New(cfg)
	m.f.printf("%s starts as %s", m.name, m.holder())
	m.last = claim.Record{}
	m.event(claim.Tick{})
	m.shown = m.f.server.End()
	for _, o := range m.f.server.List() {
		m.event(claim.LeaseObserved{Lease: toLease(o), Listed: true})
	}
	m.event(claim.WatchProgress{Version: m.f.server.Version(), Listed: true})
	m.event(claim.Synced{})
}

func (m *scriptMember) holder() string { return fmt.Sprintf("%s_%d", m.name, m.life) }

// event passes an event to the machine that is alive now, and carries out its actions.
func (m *scriptMember) event(e claim.Event) {
	machine := m.machine
	m.f.pending = append(m.f.pending, func() {
		if m.machine != machine || machine == nil {
			return
		}
		for _, a := range slices.Clone(machine.Step(m.f.time(), e)) {
			m.do(a)
		}
	})
}

func (m *scriptMember) stop() {
	m.f.printf("%s is stopping", m.name)
	m.event(claim.Stop{})
}

func (m *scriptMember) exit(how string) {
	m.f.printf("%s %s", m.name, how)
	m.machine, m.held = nil, nil
}

func toLease(o leaseserver.Object[claim.Record]) claim.Lease {
	return claim.Lease{Name: o.Name, UID: o.UID, Version: o.Version, Created: o.Created, Record: o.Value}
}

// do carries out one action.
func (m *scriptMember) do(a claim.Action) {
	s, own := m.f.server, "lease-"+m.name
	lease := func(o leaseserver.Object[claim.Record], err error) (claim.Lease, claim.Outcome) {
		switch {
		case errors.Is(err, leaseserver.ErrNotFound):
			return claim.Lease{}, claim.NotFound
		case errors.Is(err, leaseserver.ErrExists):
			return claim.Lease{}, claim.Exists
		case err != nil:
			return claim.Lease{}, claim.Conflict
		}
		return toLease(o), claim.OK
	}
	switch a := a.(type) {
	case claim.GetLease:
		m.request("read", "reads its Lease", a.Timeout, func() (claim.Event, claim.Outcome) {
			l, outcome := lease(s.Get(own))
			return claim.GetResult{Op: a.Op, Outcome: outcome, Lease: l}, outcome
		}, claim.GetResult{Op: a.Op})
	case claim.CreateLease:
		m.request("create", "creates its Lease: "+strings.TrimPrefix(m.describe(a.Record), "writes "), a.Timeout, func() (claim.Event, claim.Outcome) {
			l, outcome := lease(s.Create(own, time.Unix(0, 0).Add(m.f.now), a.Record))
			return claim.WriteResult{Op: a.Op, Outcome: outcome, Lease: l}, outcome
		}, claim.WriteResult{Op: a.Op})
	case claim.WriteLease:
		m.request("write", m.describe(a.Record), a.Timeout, func() (claim.Event, claim.Outcome) {
			l, outcome := lease(s.Update(own, leaseserver.At(a.UID, a.Version), a.Record))
			return claim.WriteResult{Op: a.Op, Outcome: outcome, Lease: l}, outcome
		}, claim.WriteResult{Op: a.Op})
	case claim.DeleteLease:
		m.request("delete", "deletes "+a.Name, a.Timeout, func() (claim.Event, claim.Outcome) {
			_, outcome := lease(leaseserver.Object[claim.Record]{}, s.Delete(a.Name, leaseserver.At(a.UID, a.Version)))
			return claim.DeleteResult{Op: a.Op, Outcome: outcome}, outcome
		}, claim.DeleteResult{Op: a.Op})
	case claim.EvictLease:
		m.request("evict", "evicts the holder of "+a.Name, a.Timeout, func() (claim.Event, claim.Outcome) {
			void := claim.Record{Member: a.Member, PodUID: a.PodUID, Phase: claim.PhaseDraining, EvictedBy: m.holder()}
			l, outcome := lease(s.Update(a.Name, leaseserver.At(a.UID, a.Version), void))
			return claim.EvictResult{Op: a.Op, Outcome: outcome, Lease: l}, outcome
		}, claim.EvictResult{Op: a.Op})
	case claim.ListLeases:
		m.request("list", "lists all Leases", a.Timeout, func() (claim.Event, claim.Outcome) {
			var leases []claim.Lease
			for _, o := range s.List() {
				leases = append(leases, toLease(o))
			}
			return claim.ListResult{Op: a.Op, Outcome: claim.OK, Leases: leases}, claim.OK
		}, claim.ListResult{Op: a.Op})
	case claim.BuildRing:
		m.event(a.Build())
	case claim.Activated:
		m.f.printf("%s works on %s", m.name, partitions(a.Partitions))
	case claim.Drain:
		m.f.printf("%s drains %s", m.name, partitions(a.Partitions))
		m.drains = a.Partitions.Clone()
		m.reportIdle()
	case claim.Cancel:
		m.f.printf("%s cancels the work on %s", m.name, partitions(a.Partitions))
	case claim.Released:
		m.f.printf("%s gives up %s", m.name, partitions(a.Partitions))
	case claim.Fenced:
		m.f.printf("%s is fenced", m.name)
	case claim.Unfenced:
		m.f.printf("%s is no longer fenced", m.name)
	case claim.Ended:
		m.end(a.Reason)
	}
}

// request sends a request. Without a response, the machine gets the given event after the
// timeout. A renewal that succeeds is not worth a line.
func (m *scriptMember) request(verb, text string, timeout time.Duration, serve func() (claim.Event, claim.Outcome), unknown claim.Event) {
	f, machine := m.f, m.machine
	f.timers = append(f.timers, scriptTimer{f.now + timeout, func() {
		if m.machine == machine {
			m.event(unknown)
		}
	}})
	arrive := func() {
		response, outcome := serve()
		switch {
		case outcome != claim.OK && text == "":
			f.printf("%s renews its Lease: %v", m.name, outcome)
		case outcome != claim.OK:
			f.printf("%s %s: %v", m.name, text, outcome)
		case text != "":
			f.printf("%s %s", m.name, text)
		}
		f.showChanges()
		if m.machine == machine {
			m.event(response)
		}
	}
	switch {
	case m.cut:
		if text == "" {
			text = "renews its Lease"
		}
		f.printf("%s %s: no response", m.name, text)
	case m.holds == verb:
		if text == "" {
			text = "renews its Lease"
		}
		f.printf("%s %s: on its way", m.name, text)
		m.held = append(m.held, arrive)
	default:
		f.pending = append(f.pending, arrive)
	}
}

func (m *scriptMember) deliver() {
	m.holds = ""
	m.f.pending = append(m.f.pending, m.held...)
	m.held = nil
}

// describe returns what a write of the member changes, "" for a renewal.
func (m *scriptMember) describe(r claim.Record) string {
	defer func() { m.last = r }()
	switch {
	case r.Void():
		return "releases its Lease"
	case r.Phase != m.last.Phase || !r.Claims.Set.Equal(m.last.Claims.Set) || len(r.Tombstones) != len(m.last.Tombstones):
		return "writes " + contents(r)
	}
	return ""
}

// contents describes a record.
func contents(r claim.Record) string {
	if r.Void() && r.EvictedBy != "" {
		return "void, evicted by " + r.EvictedBy
	} else if r.Void() {
		return "void, released"
	}
	text := fmt.Sprintf("%s, claims %s", r.Phase, partitions(r.Claims.Set))
	for _, t := range r.Tombstones {
		text += fmt.Sprintf(", tombstone of %s: %s", t.Holder, partitions(t.Claims.Set))
	}
	return text
}

func partitions(s ring.Set) string {
	if s.Empty() {
		return "nothing"
	}
	return strings.Trim(fmt.Sprint(slices.Collect(s.All())), "[]")
}

func (m *scriptMember) reportIdle() {
	if !m.busy && !m.drains.Empty() {
		m.event(claim.Idle{Partitions: m.drains})
		m.drains = ring.Set{}
	}
}

func (m *scriptMember) end(reason error) {
	m.f.printf("%s ends: %v", m.holder(), reason)
	ended := m.machine
	m.machine, m.drains = nil, ring.Set{}
	if !errors.Is(reason, claim.ErrStopped) && !errors.Is(reason, claim.ErrDrainTimeout) && !errors.Is(reason, claim.ErrStaleWatch) {
		m.live(ended)
	}
}

// showChanges lets the watches show the changes since the last call.
func (f *scriptFleet) showChanges() {
	for _, m := range f.all() {
		for ; !m.cut && !m.stalled && m.machine != nil && m.shown < f.server.End(); m.shown++ {
			event, o, _ := f.server.Change(m.shown).Event(func(claim.Record) bool { return true })
			if event == leaseserver.Deleted {
				m.event(claim.LeaseDeleted{Last: toLease(o), Final: true})
			} else {
				m.event(claim.LeaseObserved{Lease: toLease(o)})
			}
		}
	}
}

func (f *scriptFleet) deleteByHand(name string) {
	if err := f.server.Delete("lease-"+name, leaseserver.Condition{}); err != nil {
		f.t.Fatal(err)
	}
	f.printf("a user deletes lease-%s", name)
	f.showChanges()
}

func (f *scriptFleet) status() {
	for _, m := range f.all() {
		if m.machine == nil {
			continue
		}
		in := map[ring.State]ring.Set{ring.Active: ring.NewSet(8), ring.Pending: ring.NewSet(8)}
		for p, state := range m.machine.States() {
			if set, ok := in[state]; ok {
				set.Add(p)
			}
		}
		text := fmt.Sprintf("%s works on %s", m.holder(), partitions(in[ring.Active]))
		if !in[ring.Pending].Empty() {
			text += ", has pending " + partitions(in[ring.Pending])
		}
		if fence, open := m.machine.Fence(); !open || f.time().Reached(fence) {
			text += " (fenced)"
		}
		fmt.Fprintln(&f.out, text)
	}
	for _, o := range f.server.List() {
		holder := o.Value.Holder
		if holder == "" {
			holder = "-"
		}
		fmt.Fprintf(&f.out, "  %s  %s  %s\n", o.Name, holder, contents(o.Value))
	}
}
