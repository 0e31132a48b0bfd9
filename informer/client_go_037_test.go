// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build client_go_037

package informer

// The tests of this file use what client-go has since 0.37. hack/test.sh runs them with the newest version.

import (
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

func TestTypedVariants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLive(t, &owner{}, 0)
		defer l.stop()
		typed := cache.NewTypedSharedIndexInformer[*corev1.ConfigMap](l.i)
		if err := typed.AddTypedIndexers(cache.TypedIndexers[*corev1.ConfigMap]{
			"p": func(c *corev1.ConfigMap) ([]string, error) { return []string{c.Labels["p"]}, nil },
		}); err != nil {
			t.Fatal(err)
		}
		j := &journal{}
		handle, err := typed.AddTypedEventHandler(cache.TypedResourceEventHandlerDetailedFuncs[*corev1.ConfigMap]{
			AddFunc:    func(c *corev1.ConfigMap, initial bool) { j.OnAdd(c, initial) },
			UpdateFunc: func(before, after *corev1.ConfigMap) { j.OnUpdate(before, after) },
			DeleteFunc: func(d cache.DeletedObject[*corev1.ConfigMap]) { j.write("delete %s", d.GetKey()) },
		})
		if err != nil {
			t.Fatal(err)
		}
		l.source.Add(object("a", 0, 0))
		l.source.Add(object("b", 0, 1))
		synctest.Wait()
		l.i.Activated(l.set(ring.Active, 0))
		synctest.Wait()
		l.source.Modify(object("a", 0, 0))
		l.source.Delete(object("a", 0, 0))
		synctest.Wait()
		if diff := cmp.Diff([]string{"add a@1", "update a@1 a@3", "delete ns/a"}, j.take()); diff != "" {
			t.Error(diff)
		}
		if found, err := typed.GetTypedIndexer().ByTypedIndex("p", "1"); err != nil || len(found) != 1 || found[0].Name != "b" {
			t.Errorf("the index has %v (%v)", found, err)
		}
		if err := typed.RemoveEventHandler(handle); err != nil {
			t.Error(err)
		}
	})
}

func TestI8_ShutDownWaitsForReplays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLive(t, &owner{}, 0)
		defer l.stop()
		l.source.Add(object("a", 0, 0))
		l.source.Add(object("b", 0, 0))
		synctest.Wait()
		handling, resume := make(chan struct{}, 2), make(chan struct{})
		j := &journal{hook: func(string) { handling <- struct{}{}; <-resume }}
		handle := l.handler(t, j)
		synctest.Wait() // the initial list is dropped
		l.i.Activated(l.set(ring.Active, 0))
		<-handling
		ended := make(chan error, 1)
		go func() { ended <- cache.ShutDownEventHandler(l.i, handle) }()
		for range 1000 { // not synctest.Wait: a goroutine that waits for a mutex is not durably blocked
			runtime.Gosched()
		}
		select {
		case err := <-ended:
			t.Errorf("ShutDownEventHandler returned (%v) while a replay was calling the handler", err)
		default:
		}
		close(resume)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if lines := j.take(); len(lines) != 1 {
			t.Errorf("%v: the handler was called after its shutdown began", lines)
		}
	})
}

// The channel itself comes at once, whether the handler is stuck in the stream or in a replay.
func TestI8_ShutdownChanDoesNotBlock(t *testing.T) {
	for _, inReplay := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			o := &owner{}
			l := newLive(t, o, 0)
			defer l.stop()
			if !inReplay {
				l.set(ring.Active, 0)
			}
			l.source.Add(object("a", 0, 0))
			synctest.Wait()
			handling, resume := make(chan struct{}, 2), make(chan struct{})
			handle := l.handler(t, &journal{hook: func(string) { handling <- struct{}{}; <-resume }})
			synctest.Wait()
			if inReplay {
				l.i.Activated(l.set(ring.Active, 0))
			}
			<-handling
			if err := l.i.RemoveEventHandler(handle); err != nil {
				t.Fatal(err)
			}
			ended := handle.(interface{ ShutdownChan() <-chan struct{} }).ShutdownChan() // synctest reports a deadlock if it blocks
			synctest.Wait()
			select {
			case <-ended:
				t.Error("the channel is closed while the handler is called")
			default:
			}
			close(resume)
			<-ended
		})
	}
}

func TestOfFindsAnInformerInATypedOne(t *testing.T) {
	h := newHarness(t, everything())
	if Of(cache.NewTypedSharedIndexInformer[*corev1.ConfigMap](h.i)) != h.i {
		t.Error("not found")
	}
}
