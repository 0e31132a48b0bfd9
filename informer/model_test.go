// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
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

var seeds = flag.Int("seeds", 1000, "random schedules for TestModel; a single one is run by -run 'TestModel/seed=N$'")

// A world is a server, an informer whose stream lags behind its store, and an owner
// of changing partitions, all in one goroutine: what happens between any two steps
// of a replay is up to the seed.
type world struct {
	*harness
	*view
	r       *rand.Rand
	server  map[string]*corev1.ConfigMap
	version int
	uids    int
	gone    map[types.UID]uint64 // reported as deleted and not back: the point where it was last
	ever    map[types.UID]bool   // was ever reported as deleted
	left    []*corev1.ConfigMap  // left the selection and may come back
	stream  []func()             // what the handler has yet to hear

	replaying  bool               // a replay is between two steps
	releasedAt [partitions]int    // the view's clock when Released was dealt with
	owned      [partitions]string // "", "draining" or "active"; what the shard's loop would think
	gap        func()             // the call of Activated or Released that is due
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		harness: newRig(t, &owner{}), view: newView(), r: rand.New(rand.NewPCG(seed, 1)),
		server: map[string]*corev1.ConfigMap{}, gone: map[types.UID]uint64{}, ever: map[types.UID]bool{},
	}
	w.view.state, w.view.gone = w.State, func(u types.UID) bool { return w.ever[u] }
	w.f.handler, w.f.releases = w.view, w.view
	w.i.point = func(obj any) (uint64, error) {
		if w.replaying && w.f.mu.TryLock() { // between two steps
			w.f.mu.Unlock()
			w.replaying = false
			for w.r.IntN(2) == 0 {
				w.happen()
			}
			w.replaying = true
		}
		return pointOfLabel(obj)
	}
	return w
}

// happen does anything but work off the mail.
func (w *world) happen() {
	switch n := w.r.IntN(20); {
	case n < 5:
		w.change(true)
	case n < 14:
		w.hear()
	case n == 14:
		for range 1 + w.r.IntN(4) {
			w.change(false)
		}
		w.relist()
	case n == 15:
		for _, obj := range w.i.GetStore().List() {
			w.tell(func() { w.f.OnUpdate(obj, obj) })
		}
	default:
		w.own()
	}
}

func (w *world) tell(event func()) { w.stream = append(w.stream, event) }

func (w *world) hear() {
	if len(w.stream) > 0 {
		event := w.stream[0]
		w.stream = w.stream[1:]
		event()
	}
}

func (w *world) next(name string, uid types.UID) *corev1.ConfigMap {
	w.version++
	return object(name, w.version, w.r.IntN(partitions), string(uid))
}

func (w *world) newUID() types.UID { w.uids++; return types.UID(fmt.Sprint("u", w.uids)) }

// change changes the server. If the watch works, the informer gets to know.
func (w *world) change(watched bool) {
	name := fmt.Sprint("o", w.r.IntN(6))
	old := w.server[name]
	var now *corev1.ConfigMap
	switch {
	case old == nil && len(w.left) > 0 && w.r.IntN(3) == 0: // back into the selection
		back := w.left[0]
		w.left = w.left[1:]
		if name = back.Name; w.server[name] != nil {
			return
		}
		now = w.next(name, back.UID)
	case old == nil:
		now = w.next(name, w.newUID())
	case w.r.IntN(3) == 0: // deleted
		if w.r.IntN(3) == 0 {
			w.left = append(w.left, old)
		}
	default:
		now = w.next(name, old.UID)
		if w.r.IntN(2) == 0 {
			now.Labels = old.Labels
		}
	}
	w.server[name] = now
	if !watched {
		return
	}
	switch {
	case now == nil:
		final := w.next(name, old.UID)
		final.Labels = old.Labels
		w.store(final, true)
	default:
		w.store(now, false)
	}
}

// store puts one change into the store and the stream.
func (w *world) store(now *corev1.ConfigMap, deleted bool) {
	found := w.f.stored(cache.ObjectName{Namespace: "ns", Name: now.Name})
	switch {
	case deleted:
		w.drop(now)
		w.vanished(now)
		w.tell(func() { w.f.OnDelete(now) })
	case found != nil:
		old := found.(*corev1.ConfigMap)
		if old.UID != now.UID {
			w.vanished(old)
		}
		w.put(now)
		delete(w.gone, now.UID)
		w.tell(func() { w.f.OnUpdate(old, now) })
	default:
		w.put(now)
		delete(w.gone, now.UID)
		w.tell(func() { w.f.OnAdd(now, false) })
	}
}

func (w *world) vanished(obj *corev1.ConfigMap) {
	w.gone[obj.UID], _ = pointOfLabel(obj)
	w.ever[obj.UID] = true
}

// relist replaces the store and then tells of the differences, deletions first.
func (w *world) relist() {
	var deletions, changes []func()
	for _, o := range w.i.GetStore().List() {
		old := o.(*corev1.ConfigMap)
		switch now := w.server[old.Name]; {
		case now == nil:
			w.vanished(old)
			w.drop(old)
			deletions = append(deletions, func() { w.f.OnDelete(cache.DeletedFinalStateUnknown{Key: "ns/" + old.Name, Obj: old}) })
		default:
			if old.UID != now.UID {
				w.vanished(old)
			}
			delete(w.gone, now.UID)
			now = now.DeepCopy() // also if the version is the same: a resync
			w.put(now)
			changes = append(changes, func() { w.f.OnUpdate(old, now) })
		}
	}
	for name, now := range w.server {
		if now != nil && w.f.stored(cache.ObjectName{Namespace: "ns", Name: name}) == nil {
			w.put(now)
			delete(w.gone, now.UID)
			changes = append(changes, func() { w.f.OnAdd(now, false) })
		}
	}
	w.stream = append(append(w.stream, deletions...), changes...)
}

// own is the shard's loop: first the state changes, then the informer hears of it.
func (w *world) own() {
	if w.gap != nil {
		w.gap()
		w.gap = nil
		return
	}
	set := ring.NewSet(partitions)
	p := w.r.IntN(partitions)
	was := w.owned[p]
	for q := range partitions { // all in the same position, or some
		if w.owned[q] == was && (q == p || w.r.IntN(2) == 0) {
			set.Add(q)
		}
	}
	change := func(state ring.State, owned string) {
		for q := range set.All() {
			w.set(state, q)
			w.owned[q] = owned
		}
	}
	switch {
	case was == "active" && w.r.IntN(2) == 0:
		change(ring.Pending, "draining")
	case was == "active" || was == "draining" && w.r.IntN(2) == 0:
		change(ring.NotOwned, "")
		w.gap = func() { w.i.Released(set) }
	default:
		change(ring.Active, "active")
		w.gap = func() { w.i.Activated(set) }
	}
}

// work deals with one change of ownership. With disturbance, anything happens
// between its steps.
func (w *world) work(disturbed bool) {
	c, ok := w.f.mail.first()
	if !ok {
		return
	}
	w.replaying = disturbed
	w.f.apply(w.t.Context(), c)
	w.replaying = false
	w.f.mail.drop()
	if !c.active {
		for p := range c.set.All() {
			w.releasedAt[p] = w.clock
		}
	}
}

func (w *world) run(steps int) {
	for range steps {
		if w.r.IntN(10) == 0 {
			w.work(true)
		} else {
			w.happen()
		}
		if len(w.faults) > 0 {
			return
		}
	}
	if w.gap != nil {
		w.gap()
	}
	w.relist() // brings what the watch has missed
	for len(w.stream) > 0 || len(w.f.mail.changes) > 0 {
		if w.r.IntN(2) == 0 {
			w.hear()
		} else {
			w.work(false)
		}
	}
	w.settled(w.i.GetStore().List(), w.State)
	for uid, point := range w.gone { // I4
		if w.State(point) == ring.Active {
			at, told := w.told[uid]
			w.check(told && at > w.releasedAt[ring.PartitionOf(point, partitions)], "the deletion of %s was not told (%v, at %d)", uid, told, at)
		}
	}
}

// TestModel compares with a dumb model under random schedules (I1 to I6).
func TestModel(t *testing.T) {
	calls := 0
	kinds := map[string]int{}
	for seed := range uint64(*seeds) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			w := newWorld(t, seed)
			w.run(400)
			for _, line := range w.history {
				kinds[strings.Fields(line)[0]]++
			}
			calls += len(w.history)
			if len(w.faults) > 0 {
				t.Errorf("%s\nhistory:\n%s", strings.Join(w.faults, "\n"), strings.Join(w.history, "\n"))
			}
		})
	}
	t.Logf("%d calls: %v", calls, kinds)
}

// TestModelConcurrent runs the real thing, several handlers, and everything at once.
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
	l.handler(t, views[1]) // while all this goes on
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
				t.Errorf("handler %d has seen no %s", n, kind)
			}
		}
	}
}
