// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/tools/cache"
	fcache "k8s.io/client-go/tools/cache/testing"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// live is a running informer in a synctest bubble.
type live struct {
	*owner
	source *fcache.FakeControllerSource
	i      *Informer
	inner  bool   // run the inner informer
	stop   func() // stops the informer and Replay, and waits for them

	cancelInformer           func() // only the informer
	informerDone, replayDone chan struct{}
}

func newLive(t *testing.T, o *owner, resync time.Duration) *live {
	l := newUnstarted(o, resync)
	l.start(t)
	return l
}

func newUnstarted(o *owner, resync time.Duration) *live {
	source := fcache.NewFakeControllerSource()
	inner := cache.NewSharedIndexInformer(source, &corev1.ConfigMap{}, resync, cache.Indexers{})
	return &live{owner: o, source: source, i: Wrap(inner, Options{Ownership: o, Point: pointOfLabel})}
}

func (l *live) handler(t *testing.T, h cache.ResourceEventHandler) cache.ResourceEventHandlerRegistration {
	t.Helper()
	handle, err := l.i.AddEventHandler(h)
	if err != nil {
		t.Fatal(err)
	}
	return handle
}

func sorted(lines []string) []string { slices.Sort(lines); return lines }

func TestI3_ActivationReplays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLive(t, &owner{}, 0)
		defer l.stop()
		synctest.Wait() // a change between list and watch can make the reflector wait for its next attempt
		before, after := &releaseJournal{}, &releaseJournal{}
		l.handler(t, before)
		for n := range 3 {
			l.source.Add(object(fmt.Sprint("a", n), 0, 0))
			l.source.Add(object(fmt.Sprint("b", n), 0, 1))
		}
		synctest.Wait()
		l.handler(t, after) // while Replay and the informer run
		synctest.Wait()
		wants := func(lines ...string) {
			t.Helper()
			synctest.Wait()
			for _, j := range []*releaseJournal{before, after} {
				if diff := cmp.Diff(lines, sorted(j.take())); diff != "" {
					t.Error(diff)
				}
			}
		}
		wants()
		l.i.Activated(l.set(ring.Active, 0))
		wants("add a0@1", "add a1@3", "add a2@5")
		l.source.Modify(object("a0", 0, 0))
		l.source.Modify(object("b0", 0, 1))
		wants("update a0@1 a0@7")
		l.i.Activated(l.set(ring.Active, 1))
		l.i.Released(l.set(ring.NotOwned, 0))
		wants("add b0@8", "add b1@4", "add b2@6", "released a0@7", "released a1@3", "released a2@5")
	})
}

// A partition can become active after an event was dropped and before Activated, or before the
// inner informer knows a handler.
func TestI3_ReplayBeforeTheStream(t *testing.T) {
	h := newHarness(t, &owner{})
	a := object("a", 1, 0)
	h.put(a)
	h.f.OnAdd(a, true) // dropped
	set := h.set(ring.Active, 0)
	h.put(object("a", 2, 0)) // the stream has not delivered it yet
	h.i.Activated(set)
	h.replay()
	h.wants("add a@2")
	h.f.OnUpdate(a, object("a", 2, 0))
	h.wants()
}

func TestI3_ChangesDuringTheReplay(t *testing.T) {
	h := newHarness(t, &owner{})
	for n := range 4 {
		h.put(object(fmt.Sprint(n), 1, 0))
	}
	set := h.set(ring.Active, 0)
	change := []func(obj any){
		func(obj any) { h.drop(obj) },
		func(obj any) { h.put(object(obj.(*corev1.ConfigMap).Name, 2, 1)) },
		func(obj any) { h.put(object(obj.(*corev1.ConfigMap).Name, 3, 0)) },
	}
	h.j.hook = func(string) { // the replay has taken its list
		for _, obj := range h.i.GetStore().List() {
			if name := obj.(*corev1.ConfigMap).Name; !h.knows(name) && len(change) > 0 {
				change[0](obj)
				change = change[1:]
			}
		}
	}
	h.i.Activated(set)
	h.replay()
	lines := h.j.take()
	if len(lines) != 2 || lines[1][len(lines[1])-2:] != "@3" {
		t.Errorf("saw %v, want the first object, and the remaining one in its new version", lines)
	}
}

func TestI3_InterruptedReplayIsResumed(t *testing.T) {
	h := newHarness(t, &owner{})
	for n := range 5 {
		h.put(object(fmt.Sprint(n), 1, 0))
	}
	ctx, cancel := context.WithCancel(t.Context())
	h.j.hook = func(string) { cancel() }
	h.i.Activated(h.set(ring.Active, 0))
	if err := h.i.Replay(ctx); err != nil {
		t.Fatal(err)
	}
	first := len(h.j.take())
	if first > 1 {
		t.Errorf("%d calls after ctx ended", first-1)
	}
	h.j.hook = nil
	h.replay()
	if rest := len(h.j.take()); first+rest != 5 {
		t.Errorf("saw %d objects of 5", first+rest)
	}
}

func TestI8_HasSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLive(t, &owner{}, 0)
		defer l.stop()
		l.set(ring.Active, 0)
		l.source.Add(object("mine", 0, 0))
		l.source.Add(object("other", 0, 1))
		synctest.Wait()
		handling, resume := make(chan struct{}, 2), make(chan struct{})
		j := &journal{hook: func(string) { handling <- struct{}{}; <-resume }}
		handle := l.handler(t, j)
		<-handling
		synctest.Wait()
		if handle.HasSynced() {
			t.Error("synced while the handler was processing the initial list")
		}
		close(resume)
		synctest.Wait()
		if !handle.HasSynced() || !cache.IsDone(handle.HasSyncedChecker()) {
			t.Error("not synced after the initial list")
		}
		if diff := cmp.Diff([]string{"add mine@1 initial"}, j.take()); diff != "" {
			t.Error(diff)
		}
		l.i.Activated(l.set(ring.Active, 1))
		synctest.Wait()
		if diff := cmp.Diff([]string{"add other@2"}, j.take()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestI8_RemoveFromWithinAHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLive(t, &owner{}, 0)
		defer l.stop()
		for n := range 3 {
			l.source.Add(object(fmt.Sprint(n), 0, 0))
		}
		synctest.Wait()
		var handle cache.ResourceEventHandlerRegistration
		j := &journal{}
		j.hook = func(string) {
			if err := l.i.RemoveEventHandler(handle); err != nil {
				t.Error(err)
			}
		}
		handle = l.handler(t, j)
		synctest.Wait()
		l.i.Activated(l.set(ring.Active, 0))
		synctest.Wait()
		if lines := j.take(); len(lines) != 1 {
			t.Errorf("%v: called after it was removed", lines)
		}
		if err := l.i.RemoveEventHandler(handle); err != nil {
			t.Errorf("removed twice: %v", err)
		}
		if n := len(l.i.filters); n != 0 {
			t.Errorf("%d filters are left", n)
		}
	})
}

// A handler that has removed itself gets no other call in the critical section of the first one, and none from
// a goroutine that has waited for the end of the first one.
func TestI8_NoCallBeginsAfterRemoval(t *testing.T) {
	a, a2, moved := object("a", 1, 0), object("a", 2, 0), object("a", 2, 1)
	replaced := object("a", 2, 0, "other")
	for name, test := range map[string]struct {
		unfiltered bool
		before     func(h *unfilteredHarness) // while the handler only listens
		call       func(h *unfilteredHarness) // the handler removes itself in the first call
	}{
		"shown again": {
			true,
			func(h *unfilteredHarness) { h.created(a); h.put(a2); h.activate(0) },
			func(h *unfilteredHarness) { h.stream().OnUpdate(a, a2) },
		},
		"added after a replayed deletion": {
			true,
			func(h *unfilteredHarness) { h.created(a); h.deleted(a); h.created(replaced) },
			func(h *unfilteredHarness) { h.i.Activated(h.set(ring.Active, 0)); h.apply() },
		},
		"added after its deletions": {
			false,
			func(h *unfilteredHarness) { h.created(a); h.deleted(a); h.set(ring.Active, 0) },
			func(h *unfilteredHarness) { h.created(replaced) },
		},
		"added after the deletion of an earlier one": {
			false,
			func(h *unfilteredHarness) { h.put(replaced); h.activate(0) },
			func(h *unfilteredHarness) { h.stream().OnDelete(a) },
		},
		"moved before the replay": {
			false,
			func(h *unfilteredHarness) { h.put(a); h.set(ring.Active, 0) },
			func(h *unfilteredHarness) { h.put(moved); h.stream().OnUpdate(a, moved) },
		},
		"released by a move": {
			false,
			func(h *unfilteredHarness) { h.set(ring.Active, 0); h.created(a) },
			func(h *unfilteredHarness) { h.put(moved); h.stream().OnUpdate(a, moved) },
		},
		"another goroutine": {
			false,
			func(h *unfilteredHarness) { h.set(ring.Active, 0) },
			func(h *unfilteredHarness) { h.created(a) },
		},
		"another goroutine, unfiltered": {true, func(*unfilteredHarness) {}, func(h *unfilteredHarness) { h.created(a) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newUnfilteredHarness(t)
				h.i.unfiltered = test.unfiltered
				j := &releaseJournal{}
				handle, err := h.i.AddEventHandler(j)
				if err != nil {
					t.Fatal(err)
				}
				h.f = h.i.filters[1]
				test.before(h)
				j.take()
				j.hook = func(string) {
					j.hook = nil
					if strings.HasPrefix(name, "another goroutine") {
						go h.stream().OnAdd(object("b", 1, 0), false)
						synctest.Wait() // it waits for the lock
					}
					if err := h.i.RemoveEventHandler(handle); err != nil {
						t.Error(err)
					}
				}
				test.call(h)
				synctest.Wait()
				if got := j.take(); len(got) != 1 {
					t.Errorf("saw %v, want the call that has removed the handler, and no other", got)
				}
				if !h.f.empty {
					t.Error("the filter still holds what it kept for the handler")
				}
			})
		})
	}
}

func TestI8_HandlesOfOtherInformers(t *testing.T) {
	h, other := newHarness(t, everything()), newHarness(t, everything())
	handle, err := other.i.AddEventHandler(&journal{})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.i.RemoveEventHandler(handle); err != nil {
		t.Errorf("error %v, but client-go ignores the handle of another informer", err)
	}
	if len(other.i.filters) != 2 {
		t.Error("the other informer has lost a handler")
	}
	if err := h.i.RemoveEventHandler(nil); err == nil {
		t.Error("no error, but client-go rejects a nil handle")
	}
}

func TestI9_SlowHandlerBlocksNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLive(t, &owner{}, 0)
		defer l.stop()
		l.source.Add(object("a", 0, 0))
		l.source.Add(object("b", 0, 1))
		synctest.Wait()
		handling, resume := make(chan struct{}, 4), make(chan struct{})
		slow, fast := &journal{hook: func(string) { handling <- struct{}{}; <-resume }}, &journal{}
		l.handler(t, slow)
		l.handler(t, fast)
		synctest.Wait()
		l.i.Activated(l.set(ring.Active, 0))
		<-handling
		synctest.Wait()
		l.i.Activated(l.set(ring.Active, 1)) // returns
		l.i.Released(l.set(ring.NotOwned, 0))
		synctest.Wait()
		if diff := cmp.Diff([]string{"add a@1", "add b@2"}, fast.take()); diff != "" {
			t.Error(diff)
		}
		close(resume)
		synctest.Wait()
		if diff := cmp.Diff([]string{"add a@1", "add b@2"}, slow.take()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestI9_ReplayWaitsForHandlerCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, &owner{})
		h.put(object("a", 1, 0))
		ctx, cancel := context.WithCancel(t.Context())
		handling, resume := make(chan struct{}, 1), make(chan struct{})
		h.j.hook = func(string) { handling <- struct{}{}; <-resume }
		ended := make(chan error, 1)
		go func() { ended <- h.i.Replay(ctx) }()
		h.i.Activated(h.set(ring.Active, 0))
		<-handling
		if err := h.i.Replay(ctx); !errors.Is(err, ErrReplaying) {
			t.Errorf("a second Replay: %v", err)
		}
		cancel()
		synctest.Wait()
		select {
		case <-ended:
			t.Error("Replay has returned while it was calling a handler")
		default:
		}
		close(resume)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// As with client-go, a program may choose to continue after a panic.
func TestI9_PanicsOfHandlers(t *testing.T) {
	defer func(old bool, handlers []func(context.Context, any)) {
		utilruntime.ReallyCrash, utilruntime.PanicHandlers = old, handlers
	}(utilruntime.ReallyCrash, utilruntime.PanicHandlers)
	utilruntime.ReallyCrash, utilruntime.PanicHandlers = false, nil

	h := newHarness(t, &owner{})
	for n := range 3 {
		h.put(object(fmt.Sprint(n), 1, 0))
	}
	panicked := false
	h.j.hook = func(string) {
		if !panicked {
			panicked = true
			panic("in the handler")
		}
	}
	h.i.Activated(h.set(ring.Active, 0))
	h.replay()
	if lines := h.j.take(); len(lines) != 2 {
		t.Errorf("saw %v, want the two objects after the panic", lines)
	}
}

func TestStoppedInformerReplaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLive(t, &owner{}, 0)
		j := &journal{}
		l.handler(t, j)
		l.source.Add(object("a", 0, 0))
		synctest.Wait()
		l.stop()
		l.i.Activated(l.set(ring.Active, 0))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.i.Replay(ctx); err != nil {
			t.Error(err)
		}
		if lines := j.take(); len(lines) != 0 {
			t.Errorf("saw %v", lines)
		}
		if _, err := l.i.AddEventHandler(j); err == nil || len(l.i.filters) != 1 {
			t.Errorf("added to a stopped informer: %v, %d filters", err, len(l.i.filters))
		}
	})
}

func TestObjects(t *testing.T) {
	h := newHarness(t, &owner{})
	h.set(ring.Active, 0)
	h.set(ring.Pending, 1)
	for n, p := range []int{0, 0, 0, 1, 1, 2, -1} {
		h.put(object(fmt.Sprint(n), 1, p))
	}
	if got, want := h.i.Objects(), [3]int{ring.NotOwned: 2, ring.Pending: 2, ring.Active: 3}; got != want {
		t.Errorf("counted %v, want %v", got, want)
	}
}

// All changes and handlers that wait share one look at the store, whichever partitions they wait
// for, and under whichever partition count.
func TestI3_ChangesShareAScan(t *testing.T) {
	h := newHarness(t, everything())
	other := h.another()
	for name, p := range map[string]int{"a": 0, "b": 1, "c": 2, "d": 3} {
		h.put(object(name, 1, p))
	}
	doubled := ring.NewSet(2 * partitions)
	doubled.Add(4) // where partition 2 of the others begins
	h.i.Activated(h.set(ring.Active, 0))
	h.i.Activated(doubled)
	h.f.changes.clear() // the other handler alone waits for these
	h.i.Activated(h.set(ring.Active, 1))
	h.replay()
	h.wants("add b@1")
	shared := h.i.last
	other.replay()
	other.wants("add a@1", "add c@1", "add b@1")
	if h.i.last != shared || len(shared.found) != 3 {
		t.Errorf("not shared, or not only what waits was found: %v", shared.found)
	}
}

// The name of these objects starts with their partition, so a key of the store determines it.
// If PointOfKey or the keys of the store are not what they should be, the objects are read.
func TestI3_ObjectsAreFoundByTheirKeys(t *testing.T) {
	pointOfName := func(name string) uint64 {
		point, _ := ring.RangeOf(int(name[0]-'0'), partitions)
		return point
	}
	byNamespacedName := func(key string) uint64 { return pointOfName(strings.TrimPrefix(key, "ns/")) }
	for name, test := range map[string]struct {
		pointOfKey func(key string) uint64
		storeKey   func(obj any) (string, error)
		reads      int // calls of Point, including those for the objects that are delivered
	}{
		"by key":    {byNamespacedName, cache.MetaNamespaceKeyFunc, 1 + 2},
		"wrong":     {func(string) uint64 { return 1 }, cache.MetaNamespaceKeyFunc, 1 + 4 + 2},
		"no keys":   {nil, cache.MetaNamespaceKeyFunc, 4 + 2},
		"misplaced": {byNamespacedName, func(obj any) (string, error) { return obj.(metav1.Object).GetName() + " ", nil }, 4},
	} {
		t.Run(name, func(t *testing.T) {
			o, reads, j := &owner{}, 0, &journal{}
			inner := clusters{cache.NewSharedIndexInformer(&cache.ListWatch{}, &corev1.ConfigMap{}, 0, cache.Indexers{}), cache.NewIndexer(test.storeKey, cache.Indexers{})}
			i := Wrap(inner, Options{Ownership: o, PointOfKey: test.pointOfKey, Point: func(obj metav1.Object) (uint64, error) {
				reads++
				return pointOfName(obj.GetName()), nil
			}})
			if _, err := i.AddEventHandler(j); err != nil {
				t.Fatal(err)
			}
			h := &harness{t: t, owner: o, i: i, f: i.filters[0]}
			for _, name := range []string{"3-a", "3-b", "4-a", "5-a"} {
				h.put(object(name, 1, 0))
			}
			i.Activated(h.set(ring.Active, 3))
			h.replay()
			got, want := j.take(), []string{"add 3-a@1", "add 3-b@1"}
			if name == "misplaced" {
				want = nil // the report of it is checked by TestStoreKey
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" || reads != test.reads {
				t.Errorf("read %d objects, want %d; saw (-want +got):\n%s", reads, test.reads, diff)
			}
			if got, want := i.Objects(), [3]int{ring.NotOwned: 2, ring.Active: 2}; got != want {
				t.Errorf("counted %v, want %v", got, want)
			}
		})
	}
}

// countingStore counts the calls of List.
type countingStore struct {
	cache.Indexer
	lists int
}

func (s *countingStore) List() []any { s.lists++; return s.Indexer.List() }

// Objects are deleted while a replay waits for its handler. The replay must not list the store for each of them, with the
// handler's lock held.
func TestI9_ObjectsThatAreDeletedDuringAReplay(t *testing.T) {
	store := &countingStore{Indexer: cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})}
	inner := clusters{cache.NewSharedIndexInformer(&cache.ListWatch{}, &corev1.ConfigMap{}, 0, cache.Indexers{}), store}
	o, j := &owner{}, &journal{}
	i := Wrap(inner, Options{Ownership: o, Point: pointOfLabel})
	if _, err := i.AddEventHandler(j); err != nil {
		t.Fatal(err)
	}
	h := &harness{t: t, owner: o, i: i, f: i.filters[0]}
	h.put(object("stays", 1, 1))
	for n := range 10 {
		h.put(object(fmt.Sprint("a", n), 1, 0))
	}
	j.hook = func(string) {
		for n := range 10 {
			h.drop(object(fmt.Sprint("a", n), 1, 0))
		}
	}
	i.Activated(h.set(ring.Active, 0))
	h.replay()
	if seen := len(j.take()); seen != 1 || store.lists > 2 {
		t.Errorf("%d calls and %d lists of the store, want 1 and 2: for the scan and for a check of the keys", seen, store.lists)
	}
}

// The stream of a handler does not wait while the replay of another one looks at the store.
func TestI9_AScanDelaysAnotherStream(t *testing.T) {
	h := newHarness(t, &owner{})
	other := h.another()
	scanning, goOn := make(chan struct{}), make(chan struct{})
	h.i.point = func(m metav1.Object) (uint64, error) {
		if m.GetName() == "slow" {
			close(scanning)
			<-goOn
		}
		return pointOfLabel(m)
	}
	h.put(object("slow", 1, 2))
	h.set(ring.Pending, 1)
	h.i.Activated(h.set(ring.Active, 0))
	replayed, delivered := make(chan struct{}), make(chan struct{})
	go func() { other.replay(); close(replayed) }()
	<-scanning
	go func() { h.f.OnAdd(object("a", 2, 1), false); close(delivered) }()
	select {
	case <-delivered:
	case <-time.After(5 * time.Minute):
		t.Error("the stream of a handler waits for the scan of another one")
	}
	close(goOn)
	<-delivered
	<-replayed
}

// A handler is removed during its replay. Nothing of the look at the store stays in memory.
func TestI9_NoScanIsKeptForARemovedHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLive(t, &owner{}, 0)
		defer l.stop()
		for n := range 100 {
			l.source.Add(object(fmt.Sprint("a", n), 0, 0))
		}
		j := &journal{}
		var handle cache.ResourceEventHandlerRegistration
		j.hook = func(string) { _ = l.i.RemoveEventHandler(handle) }
		handle = l.handler(t, j)
		synctest.Wait()
		l.i.Activated(l.set(ring.Active, 0))
		time.Sleep(time.Hour)
		synctest.Wait()
		if seen := len(j.take()); seen != 1 {
			t.Fatalf("%d calls", seen)
		}
		if l.i.last != nil {
			t.Errorf("a scan of %d objects is kept although no handler is left", len(l.i.last.found))
		}
	})
}
