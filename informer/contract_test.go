// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// Versions that cannot be compared must not change what a handler sees, however far it lags
// behind the store.
func TestI7_OpaqueAndMissingVersions(t *testing.T) {
	for name, version := range map[string]func(string) string{
		"opaque":  func(v string) string { return fmt.Sprintf("%x-opaque", len(v)*7919+int(v[len(v)-1])*104729) + v },
		"missing": func(string) string { return "" },
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(40) {
				synctest.Test(t, func(t *testing.T) { likePlain(t, seed, version) })
			}
		})
	}
}

func likePlain(t *testing.T, seed uint64, version func(string) string) {
	r := rand.New(rand.NewPCG(seed, 4))
	l := newUnstarted(everything(), 0)
	if r.IntN(2) == 0 { // complete from the beginning
		l.i.Activated(l.set(ring.Active, 0, 1, 2, 3, 4, 5, 6, 7))
	}
	if err := l.i.SetTransform(func(obj any) (any, error) {
		if c, ok := obj.(*corev1.ConfigMap); ok {
			c = c.DeepCopy()
			c.ResourceVersion = version(c.ResourceVersion)
			obj = c
		}
		return obj, nil
	}); err != nil {
		t.Fatal(err)
	}
	busy := func(string) { time.Sleep(time.Second) }
	plain, wrapped := &journal{hook: busy}, &journal{hook: busy}
	if _, err := l.i.SharedIndexInformer.AddEventHandler(plain); err != nil {
		t.Fatal(err)
	}
	l.handler(t, wrapped)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { l.i.RunWithContext(ctx); close(done) }()
	defer func() { cancel(); <-done; l.source.Shutdown() }()
	live := map[string]*corev1.ConfigMap{}
	for n := range 100 {
		name := fmt.Sprint(r.IntN(4))
		switch old := live[name]; {
		case old == nil:
			live[name] = object(name, 0, r.IntN(partitions), fmt.Sprint("uid", n))
			l.source.Add(live[name].DeepCopy())
		case r.IntN(2) == 0:
			delete(live, name)
			l.source.Delete(old.DeepCopy())
		default:
			old.Labels["p"] = fmt.Sprint(r.IntN(partitions))
			l.source.Modify(old.DeepCopy())
		}
		if r.IntN(30) == 0 {
			l.source.ResetWatch()
			time.Sleep(10 * time.Second)
		}
	}
	time.Sleep(time.Hour)
	if diff := cmp.Diff(plain.take(), wrapped.take()); diff != "" {
		t.Errorf("seed %d: (-plain +wrapped)\n%s", seed, diff)
	}
}

// The stream had reached the version that a replay delivered, so what follows is new.
func TestI1_OpaqueVersionAfterAReplay(t *testing.T) {
	h := newHarness(t, &owner{})
	x, y := object("a", 1, 0), object("a", 2, 0)
	x.ResourceVersion, y.ResourceVersion = "x", "y"
	h.created(x) // dropped
	h.i.Activated(h.set(ring.Active, 0))
	h.replay()
	h.updated(x, y)
	h.deleted(object("a", 3, 0))
	h.created(x)
	h.wants("add a@x", "update a@x a@y", "delete a@3", "add a@x")
}

// It cannot be determined whether the deletion comes before or after what the replay has
// delivered. It must be delivered, and so must the object that is stored.
func TestI1_OpaqueDeletionAfterAReplay(t *testing.T) {
	h := newHarness(t, &owner{})
	x, gone, y := object("a", 1, 0), object("a", 2, 0), object("a", 3, 0)
	x.ResourceVersion, gone.ResourceVersion, y.ResourceVersion = "x", "gone", "y"
	h.put(x)
	h.i.Activated(h.set(ring.Active, 0))
	h.replay()
	h.put(y) // deleted and created again
	h.f.OnDelete(gone)
	h.f.OnAdd(y, false)
	h.wants("add a@x", "delete a@gone", "add a@y")
}

// A partition is released and becomes active again while an earlier activation is processed. In the
// meantime the stream shows an object of it, which the release makes the handler forget.
func TestI3_ActiveAgainInABacklog(t *testing.T) {
	h := newHarness(t, &owner{})
	h.put(object("a", 1, 0))
	h.i.Activated(h.set(ring.Active, 0, 1))
	h.i.Released(h.set(ring.NotOwned, 1))
	h.i.Activated(h.set(ring.Active, 1))
	first, _ := h.f.changes.first()
	h.f.apply(h.t.Context(), first) // looks at the store
	h.f.done(first)
	h.created(object("b", 2, 1))
	h.wants("add a@1", "add b@2")
	h.replay()
	h.wants("released b@2", "add b@2")
}

// A scan that was begun before a change does not serve it.
func TestI3_EachChangeSeesTheStoreAfterIt(t *testing.T) {
	h := newHarness(t, &owner{})
	h.i.Activated(h.set(ring.Active, 0))
	c, _ := h.f.changes.first()
	h.f.apply(t.Context(), c)
	h.put(object("a", 1, 1))
	h.i.Activated(h.set(ring.Active, 1))
	h.replay()
	h.wants("add a@1")
}

func TestI5_ADrainIsNotARelease(t *testing.T) {
	h := newHarness(t, everything())
	v1, v2 := object("a", 1, 0), object("a", 2, 0)
	h.created(v1)
	set := h.set(ring.Pending, 0)
	h.f.OnUpdate(v1, v1) // a resync
	h.updated(v1, v2)
	h.wants("add a@1", "update a@1 a@1", "update a@1 a@2")
	h.i.Activated(h.set(ring.Active, 0)) // the drain was called off
	h.replay()
	h.f.OnUpdate(v2, v2)
	h.wants("update a@2 a@2")
	h.set(ring.Pending, 0)
	h.set(ring.NotOwned, 0)
	h.f.OnUpdate(v2, v2)
	h.wants()
	h.i.Released(set)
	h.replay()
	h.wants("released a@2")
}

// OnReleased has the object that the handler knew, or only its key.
func TestI5_ReleasedObject(t *testing.T) {
	for name, test := range map[string]struct {
		stored *corev1.ConfigMap
		want   string
	}{
		"the same":    {object("a", 1, 0), "released a@1"},
		"a newer one": {object("a", 2, 1), "released a@2"},
		"another":     {object("a", 2, 0, "new"), "released unknown ns/a"},
		"none":        {nil, "released unknown ns/a"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, everything())
			h.created(object("a", 1, 0))
			h.drop(object("a", 1, 0))
			if test.stored != nil {
				h.put(test.stored)
			}
			h.i.Released(h.set(ring.NotOwned, 0))
			h.replay()
			h.wants("add a@1", test.want)
		})
	}
}

// embedding and its kind are handlers that add something to HandlerFuncs.
type (
	embedding    struct{ HandlerFuncs }
	updateCounts struct {
		HandlerFuncs
		n int
	}
	ownGained struct {
		*HandlerFuncs
		gained func(obj any)
	}
)

func (h *updateCounts) OnUpdate(before, after any) { h.n++; h.HandlerFuncs.OnUpdate(before, after) }
func (h ownGained) OnGained(obj any)               { h.gained(obj) }

func TestOptionalInterfaces(t *testing.T) {
	j := &journal{}
	funcs := HandlerFuncs{
		AddFunc:      func(obj any) { j.write("add %s", label(obj)) },
		ReleasedFunc: func(obj any) { j.write("released %s", label(obj)) },
		GainedFunc:   func(obj any) { j.write("gained %s", label(obj)) },
	}
	all := func(any) bool { return true }
	for name, handler := range map[string]cache.ResourceEventHandler{
		"directly":         funcs,
		"pointer":          &funcs,
		"embedded":         embedding{funcs},
		"filtered":         cache.FilteringResourceEventHandler{FilterFunc: all, Handler: funcs},
		"filtered pointer": &cache.FilteringResourceEventHandler{FilterFunc: all, Handler: &funcs},
		"filtered twice":   cache.FilteringResourceEventHandler{FilterFunc: all, Handler: cache.FilteringResourceEventHandler{FilterFunc: all, Handler: funcs}},
		"filtered out": cache.FilteringResourceEventHandler{Handler: funcs, FilterFunc: func(obj any) bool {
			return obj.(metav1.Object).GetName() != "b"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, &owner{})
			if _, err := h.i.AddEventHandler(handler); err != nil {
				t.Fatal(err)
			}
			h.f = h.i.filters[1]
			h.put(object("a", 1, 0))
			if name == "filtered out" {
				h.put(object("b", 1, 0))
			}
			set := h.set(ring.Active, 0)
			h.i.Activated(set)
			h.replay()
			h.created(object("new", 1, 0))
			h.set(ring.NotOwned, 0)
			h.i.Released(set)
			h.replay()
			got := j.take()
			slices.Sort(got)
			if diff := cmp.Diff([]string{"add new@1", "gained a@1", "released a@1", "released new@1"}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("nil functions", func(t *testing.T) {
		h := HandlerFuncs{}
		h.OnAdd(nil, false)
		h.OnUpdate(nil, nil)
		h.OnDelete(nil)
		h.OnReleased(nil)
	})
}

// A handler must not be called after the informer has stopped: what it uses may be gone.
func TestI8_NoCallAfterRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newStopped(t, &owner{})
		handling, resume := make(chan struct{}, 200), make(chan struct{})
		j := &releaseJournal{journal{hook: func(string) { handling <- struct{}{}; <-resume }}}
		l.handler(t, j)
		l.start(t)
		for n := range 100 {
			l.source.Add(object(fmt.Sprint(n), 0, 0))
		}
		synctest.Wait()
		set := l.set(ring.Active, 0)
		l.i.Activated(set)
		<-handling
		l.cancelInformer()
		for range 1000 { // not synctest.Wait: a goroutine that waits for a mutex is not durably blocked
			runtime.Gosched()
		}
		select {
		case <-l.informerDone:
			t.Error("Run has returned while a replay was calling a handler")
		default:
		}
		close(resume)
		<-l.informerDone
		calls := len(j.take())
		l.set(ring.NotOwned, 0)
		l.i.Released(set)
		time.Sleep(time.Hour)
		if calls == 0 || len(j.take()) > 0 {
			t.Errorf("%d calls before Run returned, and others after that", calls)
		}
		select {
		case <-l.replayDone:
		default:
			t.Error("Replay has not ended with the informer")
		}
		l.stop()
	})
}

// The store of a stopped informer is out of date. Its factory may have run it, so nothing has
// ended its replays yet.
func TestI8_NoReplayFromAStoppedInformer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newStopped(t, &owner{})
		l.inner = true
		j := &journal{}
		l.handler(t, j)
		l.start(t)
		l.source.Add(object("a", 0, 0))
		synctest.Wait()
		l.cancelInformer()
		<-l.informerDone
		l.i.Activated(l.set(ring.Active, 0))
		synctest.Wait()
		if lines := j.take(); len(lines) > 0 {
			t.Errorf("the handler saw %q", lines)
		}
		l.stop()
	})
}

// An informer that is run by its factory, and not through the wrapper, is noticed, too.
func TestI8_ReplayEndsWithTheInnerInformer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newStopped(t, everything())
		l.inner = true
		l.start(t)
		synctest.Wait()
		l.cancelInformer()
		<-l.informerDone
		time.Sleep(2 * housekeeping)
		select {
		case <-l.replayDone:
		default:
			t.Error("Replay has not ended with the informer")
		}
		l.stop()
	})
}

func TestI8_FirstReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLive(t, &owner{}, 0)
		defer l.stop()
		l.source.Add(object("a", 0, 0))
		j := &journal{hook: func(string) { time.Sleep(time.Minute) }}
		handle := l.handler(t, j)
		synctest.Wait()
		done := FirstReplay(handle)
		if !handle.HasSynced() || cache.IsDone(done) {
			t.Error("done before anything was shown")
		}
		l.i.Activated(l.set(ring.Active, 0))
		synctest.Wait()
		if cache.IsDone(done) {
			t.Error("done while the handler is processing the replay")
		}
		time.Sleep(2 * time.Minute)
		if !cache.IsDone(done) {
			t.Error("not done after the replay")
		}
		late := l.handler(t, &journal{})
		if !cache.IsDone(FirstReplay(late)) {
			t.Error("a handler that was added later must only wait for HasSynced")
		}
		if FirstReplay(l.i.SharedIndexInformer) != nil {
			t.Error("a checker for something else")
		}
		if !strings.Contains(done.Name(), "informer.journal") {
			t.Errorf("%q does not name the handler", done.Name())
		}
	})
}

func TestHandlersAreNamedAsByClientGo(t *testing.T) {
	h := newHarness(t, everything())
	for _, handler := range []cache.ResourceEventHandler{&journal{}, cache.ResourceEventHandlerFuncs{AddFunc: func(any) {}}} {
		plain, err := h.i.SharedIndexInformer.AddEventHandler(handler)
		if err != nil {
			t.Fatal(err)
		}
		wrapped, err := h.i.AddEventHandler(handler)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := wrapped.HasSyncedChecker().Name(), plain.HasSyncedChecker().Name(); got != want {
			t.Errorf("named %q, want %q", got, want)
		}
	}
}

// What was kept for a removed handler is freed, even if the handle is kept.
func TestRemovedHandlerPinsNothing(t *testing.T) {
	h := newHarness(t, everything())
	h.created(object("a", 1, 0))
	h.deleted(object("b", 1, 0))
	h.i.Activated(ring.FullSet(partitions))
	before := h.i.Events()
	h.i.forget(h.f)
	if f := h.f; f.shown != nil || f.names != nil || f.ahead != nil || f.delivered != nil || f.changes.list != nil || f.handler == cache.ResourceEventHandler(h.j) {
		t.Error("state is left")
	}
	h.j.take()
	h.f.OnAdd(object("c", 1, 0), false) // was on its way
	h.f.OnUpdate(object("c", 1, 0), object("c", 2, 0))
	h.f.OnDelete(object("c", 2, 0))
	h.wants()
	if got := h.i.Events(); got != before {
		t.Errorf("counted %v, and %v before the removal", got, before)
	}
}

func TestMapsShrink(t *testing.T) {
	h := newHarness(t, everything())
	for n := range 10_000 {
		h.f.OnAdd(object(fmt.Sprint(n), 1, n%2), false)
	}
	h.i.Released(h.set(ring.NotOwned, 0, 1))
	h.replay()
	if h.f.peak > 0 {
		t.Errorf("the map still has room for %d objects", h.f.peak)
	}
}

func TestI10_PanickingKeyFunction(t *testing.T) {
	h := newHarness(t, everything())
	h.i.point = func(obj metav1.Object) (uint64, error) {
		if obj.GetName() == "bad" {
			panic("no label")
		}
		return pointOfLabel(obj)
	}
	h.created(object("bad", 1, 0))
	h.put(object("good", 1, 0))
	h.i.Activated(ring.FullSet(partitions))
	h.replay()
	h.wants("add good@1")
	if got := h.i.Events()[Malformed]; got != 1 {
		t.Errorf("counted %d malformed objects, want 1", got)
	}
	if got := h.i.Objects()[ring.NotOwned]; got != 1 {
		t.Errorf("%d objects are not owned, want 1", got)
	}
}

// Of two clusters: a store whose keys are not namespace/name.
type clusters struct {
	cache.SharedIndexInformer
	store cache.Indexer
}

func (c clusters) GetStore() cache.Store     { return c.store }
func (c clusters) GetIndexer() cache.Indexer { return c.store }

func clusterKey(m metav1.Object) string {
	return m.GetLabels()["cluster"] + "|" + m.GetNamespace() + "/" + m.GetName()
}

func TestStoreKey(t *testing.T) {
	for _, key := range []func(metav1.Object) string{clusterKey, nil} {
		store := cache.NewIndexer(func(obj any) (string, error) { return clusterKey(obj.(metav1.Object)), nil }, cache.Indexers{})
		o := &owner{}
		inner := clusters{cache.NewSharedIndexInformer(&cache.ListWatch{}, &corev1.ConfigMap{}, 0, cache.Indexers{}), store}
		i := Wrap(inner, Options{Ownership: o, Point: pointOfLabel, StoreKey: key})
		j := &journal{}
		if _, err := i.AddEventHandler(j); err != nil {
			t.Fatal(err)
		}
		for _, cluster := range []string{"east", "west"} {
			c := object("a", 1, 0, cluster)
			c.Labels["cluster"] = cluster
			_ = store.Add(c)
		}
		h := &harness{t: t, owner: o, i: i, f: i.filters[0]}
		i.Activated(h.set(ring.Active, 0))
		h.replay()
		got := j.take()
		slices.Sort(got)
		if key == nil {
			if len(got) > 0 || !i.misplaced.Load() {
				t.Errorf("saw %v, reported %v; the keys are wrong, and that must be reported", got, i.misplaced.Load())
			}
			continue
		}
		if diff := cmp.Diff([]string{"add a(east)@1", "add a(west)@1"}, got); diff != "" || i.misplaced.Load() {
			t.Errorf("reported %v, %s", i.misplaced.Load(), diff)
		}
	}
}

func TestTransformThatChangesTheKeyIsReported(t *testing.T) {
	for strip, want := range map[bool]bool{true: true, false: false} {
		synctest.Test(t, func(t *testing.T) {
			l := newStopped(t, everything())
			if err := l.i.SetTransform(func(obj any) (any, error) {
				if c, ok := obj.(*corev1.ConfigMap); ok && strip {
					c.Labels = nil
				}
				return obj, nil
			}); err != nil {
				t.Fatal(err)
			}
			l.start(t)
			l.source.Add(object("a", 0, 0))
			synctest.Wait()
			if got := l.i.strips.Load(); got != want {
				t.Errorf("reported %v, want %v", got, want)
			}
			l.stop()
		})
	}
}

// A method that client-go adds would be promoted from the inner informer, unfiltered.
func TestAllMethodsOfAnInformerAreKnown(t *testing.T) {
	promoted := []string{ // they have nothing to do with handlers
		"AddIndexers", "GetIndexer", "GetStore", "HasSynced", "HasSyncedChecker", "IsStopped", "LastSyncResourceVersion",
		"SetWatchErrorHandler", "SetWatchErrorHandlerWithContext",
	}
	own := []string{
		"AddEventHandler", "AddEventHandlerWithOptions", "AddEventHandlerWithResyncPeriod", "GetController", "RemoveEventHandler",
		"Run", "RunWithContext", "SetTransform",
	}
	known := append(promoted, own...)
	of := reflect.TypeFor[cache.SharedIndexInformer]()
	for n := range of.NumMethod() {
		if name := of.Method(n).Name; !slices.Contains(known, name) {
			t.Errorf("cache.SharedIndexInformer has a new method %s: decide whether Informer must filter what it does", name)
		}
	}
}

func TestOfFindsAnInformerInWrappers(t *testing.T) {
	h := newHarness(t, everything())
	if Of(h.i) != h.i || Of(struct{ cache.SharedIndexInformer }{h.i}) != h.i {
		t.Error("not found")
	}
	if Of(h.i.SharedIndexInformer) != nil {
		t.Error("found in a plain informer")
	}
}

// On a ring by UID, the member of the old object's key must see that it was deleted.
func TestI6_ReplacedByAnObjectOfAnotherMember(t *testing.T) {
	for _, known := range []bool{true, false} {
		h := newHarness(t, everything())
		h.set(ring.NotOwned, 1)
		old, fresh := object("a", 5, 0, "old"), object("a", 8, 1, "new")
		if known {
			h.created(old)
			h.wants("add a(old)@5")
		}
		h.updated(old, fresh) // a relist
		h.wants("delete unknown a(old)@5")
		h.i.Released(h.set(ring.NotOwned, 0))
		h.i.Activated(h.set(ring.Active, 0))
		h.replay()
		h.wants("delete unknown a(old)@5") // its work may have been dropped
	}
}

type (
	embedded struct {
		corev1.ConfigMap
		Derived int
	}
	embeddedPointer struct{ *corev1.ConfigMap }
)

func TestI4_TombstonesAreSlim(t *testing.T) {
	typed := object("a", 1, 0)
	typed.Data = map[string]string{"large": "x"}
	typed.Finalizers = []string{"f"}
	typed.OwnerReferences = []metav1.OwnerReference{{Name: "parent"}}
	typed.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "m"}}
	dynamic := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "data": map[string]any{"large": "x"},
		"metadata": map[string]any{
			"name": "a", "namespace": "ns", "uid": "a", "resourceVersion": "1",
			"labels": map[string]any{"p": "0"}, "managedFields": []any{},
		},
	}}
	partial := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{Kind: "ConfigMap"}, ObjectMeta: typed.ObjectMeta}
	slimTyped, slimDynamic := &corev1.ConfigMap{ObjectMeta: *typed.ObjectMeta.DeepCopy()}, dynamic.DeepCopy()
	slimTyped.ManagedFields = nil
	unstructured.RemoveNestedField(slimDynamic.Object, "data")
	unstructured.RemoveNestedField(slimDynamic.Object, "metadata", "managedFields")
	pointer := &embeddedPointer{typed}
	for name, test := range map[string]struct{ deleted, want any }{
		"typed":    {typed, slimTyped},
		"dynamic":  {dynamic, slimDynamic},
		"metadata": {partial, &metav1.PartialObjectMetadata{TypeMeta: partial.TypeMeta, ObjectMeta: slimTyped.ObjectMeta}},
		// What a transform may make of an object.
		"embedded":         {&embedded{*typed, 1}, &embedded{*slimTyped, 0}},
		"embedded pointer": {pointer, pointer},
		"unknown":          {cache.DeletedFinalStateUnknown{Key: "ns/a", Obj: typed}, slimTyped},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, &owner{})
			h.f.OnDelete(test.deleted)
			var got any
			h.f.handler = cache.ResourceEventHandlerFuncs{DeleteFunc: func(obj any) { got = obj }}
			h.i.Activated(h.set(ring.Active, 0))
			h.replay()
			if diff := cmp.Diff(any(cache.DeletedFinalStateUnknown{Key: "ns/a", Obj: test.want}), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Two handlers share a tombstone, however far they are apart, and each sees the deletion once.
func TestI4_HandlersShareTombstones(t *testing.T) {
	h := newHarness(t, &owner{})
	slow := &releaseJournal{}
	if _, err := h.i.AddEventHandler(slow); err != nil {
		t.Fatal(err)
	}
	behind := h.i.filters[1]
	gone := object("a", 1, 0)
	h.f.OnDelete(gone)
	set := h.set(ring.Active, 0)
	h.i.Activated(set)
	h.replay()
	h.wants("delete unknown a@1")
	for c, ok := behind.changes.first(); ok; c, ok = behind.changes.first() {
		behind.apply(t.Context(), c)
		behind.done(c)
	}
	behind.OnDelete(gone) // only now does its stream deliver it
	if diff := cmp.Diff([]string{"delete a@1"}, slow.take()); diff != "" {
		t.Error(diff)
	}
	if n := h.i.deletions.count(); n != 1 {
		t.Errorf("%d tombstones", n)
	}
}

func TestI4_DeletionLimit(t *testing.T) {
	for _, limit := range []int{1000, DefaultDeletionLimit} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			h := newHarness(t, &owner{})
			h.i.deletions.limit = limit
			for n := range 5 * limit {
				h.f.OnDelete(object(fmt.Sprint(n), 1, 0))
				if n := h.i.deletions.count(); n > limit {
					t.Fatalf("%d are remembered", n)
				}
			}
			if !h.i.deletions.takeEarly() || h.i.deletions.takeEarly() {
				t.Error("not reported, or twice")
			}
			h.i.Activated(h.set(ring.Active, 0))
			h.i.tidy(klog.Background(), time.Now())
			h.replay()
			if n := len(h.j.take()); n < limit*3/4-1 || n > limit || len(h.i.deletions.latest) != h.i.deletions.count() {
				t.Errorf("%d deletions were delivered, the map has %d, the list %d", n, len(h.i.deletions.latest), h.i.deletions.count())
			}
		})
	}
}

// The backlog of the issue: the owner has received a deletion, but works on it only after
// minutes. Whichever member gets the partition then must see the deletion.
func TestI4_BacklogOfTheFormerOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, &owner{})
		h.f.OnDelete(object("a", 1, 0)) // another member's
		h.pass(DefaultDeletionWindow - time.Second)
		h.i.Activated(h.set(ring.Active, 0))
		h.replay()
		h.wants("delete unknown a@1")
	})
}

// newStopped is newLive before anything was started.
func newStopped(t *testing.T, o *owner) *live {
	l := newUnstarted(o, time.Second)
	l.stop = func() {}
	return l
}

func (l *live) start(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	informer, cancelInformer := context.WithCancel(ctx)
	l.cancelInformer, l.informerDone, l.replayDone = cancelInformer, make(chan struct{}), make(chan struct{})
	run := l.i.RunWithContext
	if l.inner {
		run = l.i.SharedIndexInformer.RunWithContext
	}
	go func() { run(informer); close(l.informerDone) }()
	go func() {
		if err := l.i.Replay(ctx); err != nil {
			t.Errorf("Replay: %v", err)
		}
		close(l.replayDone)
	}()
	l.stop = func() {
		cancel()
		<-l.informerDone
		<-l.replayDone
		l.source.Shutdown()
	}
}
