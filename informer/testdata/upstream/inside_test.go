// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package upstream is built by TestUpstreamSharedInformer from client-go's own tests for
// shared informers and from this file. This file creates the informers that they test, and
// reads unexported fields for them.
package upstream

import (
	"context"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	. "k8s.io/client-go/tools/cache"
	fcache "k8s.io/client-go/tools/cache/testing"

	"github.com/tom-ludwig/operator-scaling/informer"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

//go:linkname sharedProcessorRunHook k8s.io/client-go/tools/cache.sharedProcessorRunHook
var sharedProcessorRunHook atomic.Pointer[func()]

// everything is the ownership of a member that owns everything.
type everything struct{}

func (everything) State(uint64) ring.State { return ring.Active }

// tests maps each source to the test that created it.
var tests sync.Map

func newFakeControllerSource(tb testing.TB) *fcache.FakeControllerSource {
	source := fcache.NewFakeControllerSource()
	tests.Store(source, tb)
	tb.Cleanup(func() {
		tests.Delete(source)
		source.Shutdown()
	})
	return source
}

// newSharded replaces NewSharedInformer. Replay runs until the test ends.
func newSharded(source *fcache.FakeControllerSource, example runtime.Object, resync time.Duration) *informer.Informer {
	i := informer.Wrap(NewSharedIndexInformer(source, example, resync, Indexers{}), informer.Options{
		Ownership: everything{},
		Point:     func(metav1.Object) (uint64, error) { return 1 << 63, nil },
	})
	of, _ := tests.Load(source)
	tb := of.(testing.TB)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	i.Activated(ring.FullSet(1)) // complete from the beginning, as far as that is possible
	go func() { done <- i.Replay(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("Replay: %v", err)
		}
	})
	return i
}

// inside returns the sharedIndexInformer of an informer.
func inside(i SharedInformer) reflect.Value {
	return reflect.ValueOf(i.(*informer.Informer).SharedIndexInformer).Elem()
}

// handle returns the processorListener of a registration.
func handle(h ResourceEventHandlerRegistration) reflect.Value {
	return reflect.ValueOf(h).Elem().FieldByName("ResourceEventHandlerRegistration").Elem()
}

// locked holds startedLock, as the replaced helpers do.
func locked(i SharedInformer) func() {
	mu := (*sync.Mutex)(unsafe.Pointer(inside(i).FieldByName("startedLock").UnsafeAddr()))
	mu.Lock()
	return mu.Unlock
}

func listeners(i SharedInformer) reflect.Value {
	return inside(i).FieldByName("processor").Elem().FieldByName("listeners")
}

func eventHandlerCount(i SharedInformer) int {
	defer locked(i)()
	return listeners(i).Len()
}

func isStarted(i SharedInformer) bool {
	defer locked(i)()
	return inside(i).FieldByName("started").Bool()
}

func isRegistered(i SharedInformer, h ResourceEventHandlerRegistration) bool {
	mu := (*sync.RWMutex)(unsafe.Pointer(inside(i).FieldByName("processor").Elem().FieldByName("listenersLock").UnsafeAddr()))
	mu.RLock()
	defer mu.RUnlock()
	for _, listener := range listeners(i).MapKeys() {
		if listener.Pointer() == handle(h).Pointer() {
			return true
		}
	}
	return false
}

func resyncCheckPeriod(i SharedInformer) time.Duration {
	return time.Duration(inside(i).FieldByName("resyncCheckPeriod").Int())
}

type listener struct{ resyncPeriod time.Duration }

func getListener(h ResourceEventHandlerRegistration) listener {
	return listener{time.Duration(handle(h).Elem().FieldByName("resyncPeriod").Int())}
}

func setClock(i SharedInformer, clock any) {
	for _, of := range []reflect.Value{inside(i), inside(i).FieldByName("processor").Elem()} {
		field := of.FieldByName("clock")
		reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem().Set(reflect.ValueOf(clock))
	}
}
