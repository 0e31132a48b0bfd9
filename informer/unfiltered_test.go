// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// newUnfilteredHarness is newHarness with an unfiltered informer.
func newUnfilteredHarness(t *testing.T) *unfilteredHarness {
	h := &unfilteredHarness{newHarness(t, &owner{})}
	h.i.unfiltered = true
	h.f.released, h.f.names = nil, nil
	return h
}

type unfilteredHarness struct{ *harness }

// stream returns what the inner informer calls.
func (h *unfilteredHarness) stream() cache.ResourceEventHandler { return h.f.stream() }

func (h *unfilteredHarness) created(obj any) {
	h.put(obj)
	h.stream().OnAdd(obj, false)
}

func (h *unfilteredHarness) deleted(obj any) {
	h.drop(obj)
	h.stream().OnDelete(obj)
}

func (h *unfilteredHarness) activate(ps ...int) {
	h.t.Helper()
	h.i.Activated(h.set(ring.Active, ps...))
	h.replay()
}

// apply processes the first change, until the handler is removed.
func (h *unfilteredHarness) apply() {
	h.t.Helper()
	c, ok := h.f.changes.first()
	if !ok {
		h.t.Fatal("no change")
	}
	h.f.apply(h.t.Context(), c)
}

func (h *unfilteredHarness) release(ps ...int) {
	h.t.Helper()
	h.i.Released(h.set(ring.NotOwned, ps...))
	h.replay()
}

func (h *unfilteredHarness) firstReplay(want bool) {
	h.t.Helper()
	select {
	case <-h.f.replayed:
		if !want {
			h.t.Error("the first replay is done")
		}
	default:
		if want {
			h.t.Error("the first replay is not done")
		}
	}
}

func TestI11_GainedObjectsAreShownAgain(t *testing.T) {
	h := newUnfilteredHarness(t)
	h.created(object("a", 1, 0))
	h.created(object("b", 1, 1))
	h.created(object("none", 1, -1))
	h.wants("add a@1", "add b@1", "add none@1")
	h.firstReplay(false)
	h.activate(0)
	h.wants("update a@1 a@1")
	h.firstReplay(true)
	h.release(0)
	h.wants() // the handler loses sight of nothing
	h.put(object("a", 2, 0))
	h.stream().OnUpdate(object("a", 1, 0), object("a", 2, 0))
	h.wants("update a@1 a@2")
	h.activate(0, 1)
	if got := sorted(h.j.take()); !cmp.Equal(got, []string{"update a@2 a@2", "update b@1 b@1"}) {
		t.Error(got)
	}
	h.i.Activated(h.set(ring.Active, 1))
	h.set(ring.NotOwned, 1) // lost again before the replay
	h.replay()
	h.wants()
	if got := h.count.String(); got != "passed=4 replayed=3 " {
		t.Error(got)
	}
	if h.i.Objects() != [ring.Active + 1]int{} {
		t.Error("objects are counted")
	}
}

// The handler must not see a state of the store that the stream has not reached. The event that
// the stream delivers may be one that the handler ignores.
func TestI11_ObjectsThatTheStreamHasNotReached(t *testing.T) {
	h := newUnfilteredHarness(t)
	a, a2, b := object("a", 1, 0), object("a", 2, 0), object("b", 1, 0)
	h.created(a)
	h.created(b)
	h.wants("add a@1", "add b@1")
	h.put(a2)
	h.drop(b)
	h.put(object("b", 3, 0, "other"))
	h.put(object("c", 1, 0))
	h.activate(0)
	h.wants()
	h.firstReplay(false)
	h.stream().OnUpdate(a, a2)
	h.wants("update a@1 a@2", "update a@2 a@2")
	h.stream().OnAdd(object("c", 1, 0), false)
	h.wants("add c@1") // shown: not once more
	h.firstReplay(false)
	h.stream().OnDelete(b)
	h.wants("delete b@1")
	h.firstReplay(true)
	h.stream().OnAdd(object("b", 3, 0, "other"), false)
	h.wants("add b(other)@3")
	h.stream().OnUpdate(a2, object("a", 3, 0))
	h.wants("update a@2 a@3")
}

func TestI11_DeletionsAreReplayed(t *testing.T) {
	h := newUnfilteredHarness(t)
	h.created(object("a", 1, 0))
	h.created(object("b", 1, 0))
	h.created(object("c", 1, 0))
	h.j.take()
	h.deleted(object("a", 1, 0)) // while another member owns it
	h.deleted(cache.DeletedFinalStateUnknown{Key: "ns/b", Obj: object("b", 1, 0)})
	h.created(object("b", 3, 1, "other"))
	h.put(object("c", 4, 0, "other"))
	h.stream().OnUpdate(object("c", 1, 0), object("c", 4, 0, "other")) // replaced while the watch was interrupted
	h.wants("delete a@1", "delete unknown b@1", "add b(other)@3", "update c@1 c(other)@4")
	h.activate(0)
	// A handler that identifies objects by name would treat b as deleted: it is added, whoever owns it.
	h.wants("delete unknown a@1", "delete unknown b@1", "add b(other)@3",
		"delete unknown c@1", "add c(other)@4", "update c(other)@4 c(other)@4")
	h.created(object("d", 1, 0))
	h.deleted(object("d", 1, 0))
	h.wants("add d@1", "delete d@1")
	h.activate(0)
	h.wants("update c(other)@4 c(other)@4") // the deletions were delivered while this member owned them
	h.release(0)
	h.activate(0)
	if got := strings.Join(h.j.take(), ", "); !strings.Contains(got, "delete unknown d@1") {
		t.Errorf("the work on the deletion may have been dropped with the partition; the handler saw %s", got)
	}
}

// A handler keeps the names of the objects that exist, and skips updates with equal resourceVersions.
// A deletion that is replayed, of an earlier object of a name, must not make it lose the object (I1).
func TestI11_AddAfterTheDeletionOfAnEarlierObject(t *testing.T) {
	for _, late := range []bool{false, true} {
		h := newUnfilteredHarness(t)
		exists := map[string]bool{}
		name := func(obj any) string {
			key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
			if err != nil {
				t.Fatal(err)
			}
			return key
		}
		if _, err := h.i.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { exists[name(obj)] = true },
			DeleteFunc: func(obj any) { delete(exists, name(obj)) },
		}); err != nil {
			t.Fatal(err)
		}
		h.f = h.i.filters[1]
		a, a2 := object("a", 2, 0, "other"), object("a", 3, 0, "other")
		h.created(object("a", 1, 0))
		h.deleted(object("a", 1, 0)) // while another member owns it
		h.created(a)
		if !exists["ns/a"] {
			t.Fatal("not seen at all")
		}
		if late { // the stream has not reached the state in the store
			h.put(a2)
		}
		h.activate(0)
		if late {
			h.stream().OnUpdate(a, a2)
		}
		if !exists["ns/a"] {
			t.Errorf("late %v: the object exists, and was not added after the deletion", late)
		}
	}
}

// If panics are not to crash the program (utilruntime.ReallyCrash), client-go skips the event that made a handler
// panic, and no other. An object that was to be shown after that event is still shown, as it was to be.
func TestI11_PanicInTheEventThatALateObjectWaitsFor(t *testing.T) {
	for _, deleted := range []bool{false, true} { // an earlier object of that name
		h := newUnfilteredHarness(t)
		j := &journal{}
		if _, err := h.i.AddEventHandler(j); err != nil {
			t.Fatal(err)
		}
		h.f = h.i.filters[1]
		a, a2, want := object("a", 1, 0, "u"), object("a", 2, 0, "u"), "update a(u)@2 a(u)@2"
		if deleted {
			h.created(object("a", 0, 1))
			h.deleted(object("a", 0, 1))
			want = "add a(u)@2"
		}
		h.created(a)
		h.put(a2)
		h.activate(0, 1) // a@2 is to be shown after its event
		j.take()
		j.hook = func(string) { panic("a change that the handler cannot read") }
		func() {
			defer func() { _ = recover() }() // as client-go
			h.stream().OnUpdate(a, a2)
		}()
		j.hook = nil
		h.firstReplay(false)
		h.replay()
		if diff := cmp.Diff([]string{want}, j.take()); diff != "" {
			t.Errorf("deleted %v: %s", deleted, diff)
		}
		h.firstReplay(true)
	}
}

func TestI11_OptionalInterfaces(t *testing.T) {
	j := &journal{}
	add := func(obj any) { j.write("add %s", label(obj)) }
	update := func(before, after any) { j.OnUpdate(before, after) }
	gained := func(obj any) { j.write("gained %s", label(obj)) }
	released := func(obj any) { j.write("released %s", label(obj)) }
	all := func(any) bool { return true }
	for name, test := range map[string]struct {
		handler cache.ResourceEventHandler
		want    string
	}{
		"plain":                   {cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: update}, "update a@1 a@1"},
		"no GainedFunc":           {HandlerFuncs{AddFunc: add, UpdateFunc: update, ReleasedFunc: released}, "update a@1 a@1"},
		"GainedFunc":              {&HandlerFuncs{AddFunc: add, UpdateFunc: update, GainedFunc: gained, ReleasedFunc: released}, "gained a@1"},
		"embedded, no GainedFunc": {&updateCounts{HandlerFuncs: HandlerFuncs{AddFunc: add, UpdateFunc: update}}, "update a@1 a@1"},
		"embedded, GainedFunc":    {embedding{HandlerFuncs{AddFunc: add, UpdateFunc: update, GainedFunc: gained}}, "gained a@1"},
		"embedded, own OnGained":  {ownGained{&HandlerFuncs{AddFunc: add, UpdateFunc: update}, gained}, "gained a@1"},
		"behind a filter":         {cache.FilteringResourceEventHandler{FilterFunc: all, Handler: HandlerFuncs{AddFunc: add, UpdateFunc: update, GainedFunc: gained}}, "gained a@1"},
		"filtered": {cache.FilteringResourceEventHandler{FilterFunc: all, Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: add, UpdateFunc: update,
		}}, "update a@1 a@1"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newUnfilteredHarness(t)
			if _, err := h.i.AddEventHandler(test.handler); err != nil {
				t.Fatal(err)
			}
			h.f = h.i.filters[1]
			h.created(object("a", 1, 0))
			h.activate(0)
			h.release(0)
			if diff := cmp.Diff([]string{"add a@1", test.want}, j.take()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A handler sees what a plain one sees, in that order. In addition it sees states again, each of which is the
// last one of the object that it has seen. After each activation, it sees each object of the partition.
func TestI11_PlainEventsAndReplays(t *testing.T) {
	again := 0
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 5))
			l := newUnstarted(&owner{}, 0)
			l.i = Wrap(l.i.SharedIndexInformer, Options{Ownership: l.owner, Point: pointOfLabel, Unfiltered: true, DeletionWindow: -1})
			var mu sync.Mutex
			unseen := map[string]int{} // partitions of objects that must still be shown
			plain, wrapped := &journal{}, &journal{}
			slow := rand.New(rand.NewPCG(seed, 6))
			wrapped.hook = func(line string) {
				for range slow.IntN(50) { // it must not sleep: whoever waits for a mutex stops the clock of the bubble
					runtime.Gosched()
				}
				mu.Lock()
				defer mu.Unlock()
				delete(unseen, nameIn(line))
			}
			if _, err := l.i.SharedIndexInformer.AddEventHandler(plain); err != nil {
				t.Fatal(err)
			}
			first := FirstReplay(l.handler(t, wrapped))
			l.start(t)
			defer l.stop()
			exists := map[string]*corev1.ConfigMap{}
			for range 300 {
				name := fmt.Sprint("o", r.IntN(15))
				switch old := exists[name]; {
				case old == nil:
					exists[name] = object(name, 0, r.IntN(partitions))
					l.source.Add(exists[name].DeepCopy())
				case r.IntN(4) == 0:
					delete(exists, name)
					l.source.Delete(old)
				default:
					l.source.Modify(old.DeepCopy())
				}
				if r.IntN(3) == 0 {
					time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
				}
				if p := r.IntN(partitions); ring.State(l.states[p].Load()) == ring.Active {
					if r.IntN(4) == 0 {
						set := l.set(ring.NotOwned, p)
						mu.Lock()
						for name, of := range unseen {
							if of == p {
								delete(unseen, name)
							}
						}
						mu.Unlock()
						l.i.Released(set)
					}
				} else if r.IntN(4) == 0 {
					set := l.set(ring.Active, p)
					mu.Lock()
					for _, obj := range l.i.GetStore().List() {
						if m := obj.(*corev1.ConfigMap); m.Labels["p"] == fmt.Sprint(p) {
							unseen[m.Name] = p
						}
					}
					mu.Unlock()
					l.i.Activated(set)
				}
			}
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if len(unseen) > 0 || !cache.IsDone(first) {
				t.Errorf("seed %d: not shown after the activation: %v; first replay: %v", seed, unseen, cache.IsDone(first))
			}
			var events []string
			last := map[string]string{}
			for _, line := range wrapped.take() {
				fields := strings.Fields(strings.TrimSuffix(line, " initial"))
				if state := fields[len(fields)-1]; fields[0] == "update" && fields[1] == state {
					if again++; last[nameIn(line)] != state {
						t.Errorf("seed %d: %s was shown again after %s", seed, state, last[nameIn(line)])
					}
					continue
				} else if fields[0] == "delete" {
					delete(last, nameIn(line))
				} else {
					last[nameIn(line)] = state
				}
				events = append(events, line)
			}
			if diff := cmp.Diff(plain.take(), events); diff != "" {
				t.Errorf("seed %d (-plain +wrapped):\n%s", seed, diff)
			}
		})
	}
	if again < 100 {
		t.Errorf("only %d objects were shown again", again)
	}
}

// nameIn returns the name of the object in a line of a journal.
func nameIn(line string) string {
	state := strings.Fields(strings.ReplaceAll(line, "unknown ", ""))[1]
	return state[:strings.IndexAny(state, "(@")]
}

// Whoever waits for the first replay must not wait forever for a handler that is not called any more.
func TestI8_FirstReplayOfARemovedHandler(t *testing.T) {
	for _, unfiltered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l := newUnstarted(&owner{}, 0)
			l.i = Wrap(l.i.SharedIndexInformer, Options{Ownership: l.owner, Point: pointOfLabel, Unfiltered: unfiltered})
			l.start(t)
			defer l.stop()
			handle := l.handler(t, &journal{})
			synctest.Wait()
			first := FirstReplay(handle)
			if cache.IsDone(first) {
				t.Error("done before the handler was removed")
			}
			if err := l.i.RemoveEventHandler(handle); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if !cache.IsDone(first) {
				t.Error("not done")
			}
		})
	}
}

// Nothing is to be shown if nothing is owned first.
func TestI8_FirstReplayOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLive(t, &owner{}, 0)
		defer l.stop()
		l.source.Add(object("a", 0, 0))
		j := &journal{}
		handle := l.handler(t, j)
		l.i.Activated(ring.NewSet(partitions))
		synctest.Wait()
		if !cache.IsDone(FirstReplay(handle)) || len(j.take()) > 0 {
			t.Error("not done, or something was shown")
		}
	})
}
