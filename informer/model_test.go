// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

var seeds = flag.Int("seeds", 1000, "number of random schedules for TestModel; to run a single one: -run 'TestModel/seed=N$'")

// sim simulates a server, an informer whose stream lags behind its store, and an owner of
// changing partitions, all in one goroutine. The seed determines what happens between any two
// steps of a replay.
type sim struct {
	*harness
	*view
	r       *rand.Rand
	calm    bool // ownership seldom changes, so that the stream reaches the end of replays
	server  map[string]*corev1.ConfigMap
	version int
	reached int // what the inner informer has stored
	uids    int
	gone    map[types.UID]uint64 // reported as deleted and not back: its last point
	ever    map[types.UID]bool   // was ever reported as deleted
	left    []*corev1.ConfigMap  // no longer matches the selector; may match again
	stream  []func(*filter)      // events that are not delivered to the filter yet

	// Another handler of the same informer, which is slower or faster. Nothing that happens to
	// it may change what the first one sees.
	rival       *filter
	rivalStream []func(*filter)

	replaying  bool               // a replay is between two steps
	releasedAt [partitions]int    // the view's clock when Released was processed
	owned      [partitions]string // "", "draining" or "active", as the shard's loop sees it
	gap        func()             // the call of Activated or Released that is due
}

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{
		harness: newHarness(t, &owner{}), view: newView(), r: rand.New(rand.NewPCG(seed, 1)),
		server: map[string]*corev1.ConfigMap{}, gone: map[types.UID]uint64{}, ever: map[types.UID]bool{},
	}
	s.view.state, s.view.gone = s.State, func(u types.UID) bool { return s.ever[u] }
	s.view.lost = func() bool { return s.gap != nil || len(s.f.changes.list) > 0 }
	s.view.stored = func(name string) bool {
		obj, ok := s.i.stored("ns/" + name).(*corev1.ConfigMap)
		return ok && s.view.active(obj)
	}
	s.f.handler, s.f.released = s.view, s.view.OnReleased
	s.rival = s.another().f
	s.calm = seed%2 == 1
	return s
}

// between is the context of a replay. Its Err is called between two steps.
type between struct {
	context.Context
	*sim
}

func (b between) Err() error {
	if b.replaying {
		b.replaying = false
		for b.r.IntN(2) == 0 {
			b.happen()
		}
		b.replaying = true
	}
	return nil
}

// happen does anything except process a change of ownership.
func (s *sim) happen() {
	if s.r.IntN(3) == 0 {
		s.record()
	}
	for s.calm && s.r.IntN(4) != 0 {
		s.deliver()
	}
	switch n := s.r.IntN(20); {
	case n > 15 && s.calm && s.r.IntN(4) != 0:
	case n < 5:
		s.change(true)
	case n < 14:
		s.deliver()
	case n == 14:
		for range 1 + s.r.IntN(4) {
			s.change(false)
		}
		s.relist()
	case n == 15:
		for _, obj := range s.i.GetStore().List() {
			s.enqueue(func(f *filter) { f.OnUpdate(obj, obj) })
		}
	default:
		s.own()
	}
}

func (s *sim) enqueue(event func(*filter)) {
	s.stream, s.rivalStream = append(s.stream, event), append(s.rivalStream, event)
}

func (s *sim) deliver() {
	if len(s.rivalStream) > 0 && s.r.IntN(2) == 0 {
		event := s.rivalStream[0]
		s.rivalStream = s.rivalStream[1:]
		event(s.rival)
		if c, ok := s.rival.changes.first(); ok && s.r.IntN(2) == 0 {
			s.rival.apply(s.t.Context(), c)
			s.rival.done(c)
		}
	}
	if len(s.stream) > 0 && (len(s.rivalStream) == 0 || s.r.IntN(2) == 0) {
		event := s.stream[0]
		s.stream = s.stream[1:]
		event(s.f)
	}
}

func (s *sim) next(name string, uid types.UID) *corev1.ConfigMap {
	s.version++
	return object(name, s.version, s.r.IntN(partitions), string(uid))
}

func (s *sim) newUID() types.UID { s.uids++; return types.UID(fmt.Sprint("u", s.uids)) }

// change changes the server. If watched, the informer's watch delivers the change.
func (s *sim) change(watched bool) {
	name := fmt.Sprint("o", s.r.IntN(6))
	old := s.server[name]
	var now *corev1.ConfigMap
	switch {
	case old == nil && len(s.left) > 0 && s.r.IntN(3) == 0: // matches the selector again
		back := s.left[0]
		s.left = s.left[1:]
		if name = back.Name; s.server[name] != nil {
			return
		}
		now = s.next(name, back.UID)
	case old == nil:
		now = s.next(name, s.newUID())
	case s.r.IntN(3) == 0: // deleted
		if s.r.IntN(3) == 0 {
			s.left = append(s.left, old)
		}
	default:
		now = s.next(name, old.UID)
		if s.r.IntN(2) == 0 {
			now.Labels = old.Labels
		}
	}
	s.server[name] = now
	if !watched {
		return
	}
	switch {
	case now == nil:
		final := s.next(name, old.UID)
		final.Labels = old.Labels
		s.store(final, true)
	default:
		s.store(now, false)
	}
}

// record lets the inner informer record the version up to which it has stored everything. It does so
// some time after it has stored an event or a list, and before it stores the next one.
func (s *sim) record() { s.inner.recorded = fmt.Sprint(s.reached) }

// store puts one change into the store and the stream.
func (s *sim) store(now *corev1.ConfigMap, deleted bool) {
	s.record()
	s.reached = s.version
	found := s.i.stored("ns/" + now.Name)
	switch {
	case deleted:
		s.drop(now)
		s.recordDeleted(now)
		s.enqueue(func(f *filter) { f.OnDelete(now) })
	case found != nil:
		old := found.(*corev1.ConfigMap)
		if old.UID != now.UID {
			s.recordDeleted(old)
		}
		s.put(now)
		delete(s.gone, now.UID)
		s.enqueue(func(f *filter) { f.OnUpdate(old, now) })
	default:
		s.put(now)
		delete(s.gone, now.UID)
		s.enqueue(func(f *filter) { f.OnAdd(now, false) })
	}
}

func (s *sim) recordDeleted(obj *corev1.ConfigMap) {
	s.gone[obj.UID], _ = pointOfLabel(obj)
	s.ever[obj.UID] = true
}

// relist replaces the store and then enqueues the differences, deletions first.
func (s *sim) relist() {
	s.record()
	s.reached = s.version
	var deletions, changes []func(*filter)
	for _, o := range s.i.GetStore().List() {
		old := o.(*corev1.ConfigMap)
		switch now := s.server[old.Name]; {
		case now == nil:
			s.recordDeleted(old)
			s.drop(old)
			deletions = append(deletions, func(f *filter) { f.OnDelete(cache.DeletedFinalStateUnknown{Key: "ns/" + old.Name, Obj: old}) })
		default:
			if old.UID != now.UID {
				s.recordDeleted(old)
			}
			delete(s.gone, now.UID)
			now = now.DeepCopy() // also if the version is the same: a resync
			s.put(now)
			changes = append(changes, func(f *filter) { f.OnUpdate(old, now) })
		}
	}
	for name, now := range s.server {
		if now != nil && s.i.stored("ns/"+name) == nil {
			s.put(now)
			delete(s.gone, now.UID)
			changes = append(changes, func(f *filter) { f.OnAdd(now, false) })
		}
	}
	for _, event := range append(deletions, changes...) {
		s.enqueue(event)
	}
}

// own is the shard's loop: first it changes the state, then it notifies the informer.
func (s *sim) own() {
	if s.gap != nil {
		s.gap()
		s.gap = nil
		return
	}
	set := ring.NewSet(partitions)
	p := s.r.IntN(partitions)
	was := s.owned[p]
	for q := range partitions { // all in the same position, or some
		if s.owned[q] == was && (q == p || s.r.IntN(2) == 0) {
			set.Add(q)
		}
	}
	change := func(state ring.State, owned string) {
		for q := range set.All() {
			s.set(state, q)
			s.owned[q] = owned
		}
	}
	switch {
	case was == "active" && s.r.IntN(2) == 0:
		change(ring.Pending, "draining")
	case was == "active" || was == "draining" && s.r.IntN(2) == 0:
		change(ring.NotOwned, "")
		s.gap = func() { s.i.Released(set) }
	default:
		change(ring.Active, "active")
		s.gap = func() { s.i.Activated(set) }
	}
}

// work processes one change of ownership. If disturbed, anything may happen between its steps.
func (s *sim) work(disturbed bool) {
	c, ok := s.f.changes.first()
	if !ok {
		return
	}
	s.replaying = disturbed
	began := s.clock
	s.f.apply(between{s.t.Context(), s}, c)
	s.replaying = false
	s.f.done(c)
	if !c.active {
		for p := range c.set.All() {
			s.releasedAt[p] = began
		}
	}
}

func (s *sim) run(steps int) {
	for range steps {
		if s.r.IntN(10) == 0 {
			s.work(true)
		} else {
			s.happen()
		}
		if len(s.faults) > 0 {
			return
		}
	}
	if s.gap != nil {
		s.gap()
	}
	if s.r.IntN(2) == 0 { // the updates of a relist show objects that were lost before
		s.relist()
	}
	for len(s.stream) > 0 || len(s.f.changes.list) > 0 {
		if s.r.IntN(2) == 0 {
			s.deliver()
		} else {
			s.work(false)
		}
	}
	s.settled(s.i.GetStore().List(), s.State)
	for uid, point := range s.gone { // I4
		if s.State(point) == ring.Active {
			at, ok := s.deliveredAt[uid]
			s.check(ok && at > s.releasedAt[ring.PartitionOf(point, partitions)], "the deletion of %s was not delivered (%v, at %d)", uid, ok, at)
		}
	}
}

// TestModel compares the filter with a simple model under random schedules (I1 to I6).
func TestModel(t *testing.T) {
	calls := 0
	kinds := map[string]int{}
	n := *seeds
	if testing.Short() { // with the race detector, which cannot find anything in one goroutine
		n /= 20
	}
	for seed := range uint64(n) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			s := newSim(t, seed)
			if s.calm {
				s.run(1500)
			} else {
				s.run(400)
			}
			for _, line := range s.history {
				kinds[strings.Fields(line)[0]]++
			}
			calls += len(s.history)
			if len(s.faults) > 0 {
				t.Errorf("%s\nhistory:\n%s", strings.Join(s.faults, "\n"), strings.Join(s.history, "\n"))
			}
		})
	}
	t.Logf("%d calls: %v", calls, kinds)
}

// TestModelConcurrent runs a real informer with several handlers, all concurrently.
func TestModelConcurrent(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { concurrently(t, seed) })
		})
	}
}

func concurrently(t *testing.T, seed uint64) {
	l := newLive(t, &owner{}, time.Second)
	defer l.stop()
	views := []*view{newView(), newView(), newView()}
	l.handler(t, views[0])
	done := make(chan struct{}, 2)
	go func() { // the server
		defer func() { done <- struct{}{} }()
		r := rand.New(rand.NewPCG(seed, 2))
		server := map[string]*corev1.ConfigMap{}
		for n := range 1000 {
			name := fmt.Sprint("o", r.IntN(20))
			switch old := server[name]; {
			case old == nil:
				server[name] = object(name, 0, r.IntN(partitions), fmt.Sprint("u", n))
				l.source.Add(server[name].DeepCopy())
			case r.IntN(4) == 0:
				delete(server, name)
				l.source.Delete(old.DeepCopy())
			default:
				if r.IntN(2) == 0 {
					old.Labels = map[string]string{"p": fmt.Sprint(r.IntN(partitions))}
				}
				l.source.Modify(old.DeepCopy())
			}
			if r.IntN(50) == 0 {
				l.source.ResetWatch()
			}
			if r.IntN(10) == 0 {
				time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond)
			}
		}
	}()
	go func() { // the shard's loop
		defer func() { done <- struct{}{} }()
		r := rand.New(rand.NewPCG(seed, 3))
		for range 300 {
			p := r.IntN(partitions)
			if ring.State(l.states[p].Load()) == ring.Active {
				l.i.Released(l.set(ring.NotOwned, p))
			} else {
				l.i.Activated(l.set(ring.Active, p))
			}
			if r.IntN(4) == 0 {
				time.Sleep(time.Duration(r.IntN(500)) * time.Millisecond)
			}
		}
	}()
	time.Sleep(time.Second)
	l.handler(t, views[1]) // while changes are under way
	time.Sleep(10 * time.Second)
	l.handler(t, views[2])
	<-done
	<-done
	time.Sleep(2 * time.Minute)
	synctest.Wait()
	for n, v := range views {
		v.settled(l.i.GetStore().List(), l.State)
		if len(v.faults) > 0 {
			t.Errorf("handler %d: %s", n, strings.Join(v.faults, "\n"))
		}
		for _, kind := range []string{"add", "update", "delete", "released"} {
			if !slices.ContainsFunc(v.history, func(s string) bool { return strings.HasPrefix(s, kind) }) {
				t.Errorf("handler %d has not seen any %s", n, kind)
			}
		}
	}
}
