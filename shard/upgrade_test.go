// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/kubernetes/fake"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
	"github.com/tom-ludwig/operator-scaling/workqueue"
)

// countingOwnership is an Ownership that counts how often the fence is checked.
type countingOwnership struct {
	pending atomic.Bool
	looks   atomic.Int64
}

func (o *countingOwnership) State(uint64) ring.State {
	if o.pending.Load() {
		return ring.Pending
	}
	return ring.Active
}

func (o *countingOwnership) Fenced() bool {
	o.looks.Add(1)
	return false
}

// aSharder returns one that does not run.
func aSharder(t *testing.T) *shard.Sharder {
	t.Helper()
	s, err := shard.New(fake.NewClientset(), shard.Config{Name: "foo", PodName: "a", Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type upgrade struct{}

func (upgrade) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusSwitchingProtocols, Body: http.NoBody}, nil
}

// A request that switches protocols, for instance to execute a command in a Pod, is complete
// after the switch. No goroutine may watch it forever because its partition was drained.
func TestWrapTransport_WatchesNoRequestThatSwitchesProtocols(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &countingOwnership{}
		q := workqueue.New(clientworkqueue.DefaultTypedControllerRateLimiter[int](), workqueue.Options[int]{
			Ownership: o, Point: func(int) (uint64, error) { return 0, nil },
		})
		defer q.ShutDown()
		defer q.Fence()
		q.Add(1)
		item, _ := q.Get()
		parent, cancel := context.WithCancel(t.Context())
		defer cancel()
		r, err := http.NewRequestWithContext(q.Context(parent, item), http.MethodPost, "http://127.0.0.1/api/v1/namespaces/x/pods/y/exec", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := aSharder(t).WrapTransport(upgrade{}).RoundTrip(r); err != nil { //nolint:bodyclose // it is empty
			t.Fatal(err)
		}
		o.pending.Store(true)
		q.Drain(func(uint64) bool { return true })
		q.Done(item)
		synctest.Wait()
		before := o.looks.Load()
		time.Sleep(time.Minute)
		if n := o.looks.Load() - before; n > 0 {
			t.Fatalf("a goroutine has checked the fence %d times since Done", n)
		}
	})
}

// A request whose work is drained and done waits for the fence without asking for it again and
// again, and the fence aborts it.
func TestWrapTransport_WaitsForTheFenceWithoutPolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &countingOwnership{}
		q := workqueue.New(clientworkqueue.DefaultTypedControllerRateLimiter[int](), workqueue.Options[int]{
			Ownership: o, Point: func(int) (uint64, error) { return 0, nil },
		})
		defer q.ShutDown()
		q.Add(1)
		item, _ := q.Get()
		r, err := http.NewRequestWithContext(q.Context(t.Context(), item), http.MethodPut, "http://127.0.0.1/x/y", nil)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := aSharder(t).WrapTransport(make(slow)).RoundTrip(r) //nolint:bodyclose // there is none
			ended <- err
		}()
		synctest.Wait()
		o.pending.Store(true)
		all := func(uint64) bool { return true }
		q.Drain(all)
		q.Cancel(all)
		q.Done(item)
		before := o.looks.Load()
		time.Sleep(time.Minute)
		if n := o.looks.Load() - before; n > 0 || len(ended) > 0 || len(q.InFlight()) != 1 {
			t.Errorf("the fence was checked %d times; requests ended: %d; in flight: %v", n, len(ended), q.InFlight())
		}
		q.Fence()
		if err := <-ended; !errors.Is(err, workqueue.ErrFenced) {
			t.Errorf("the request ended with %v", err)
		}
		if n := len(q.InFlight()); n != 0 {
			t.Errorf("%d in flight", n)
		}
	})
}

// Work on an item without a key belongs to no partition, but the fence stops it too. So does
// the end of the work.
func TestWrapTransport_ChecksItemsWithoutAKey(t *testing.T) {
	fenced := &fencedOwnership{}
	q := workqueue.New(clientworkqueue.DefaultTypedControllerRateLimiter[int](), workqueue.Options[int]{
		Ownership: fenced, Point: func(int) (uint64, error) { return 0, errors.New("no key") },
	})
	defer q.ShutDown()
	q.Add(1)
	item, _ := q.Get()
	ctx := q.Context(t.Context(), item)
	var count sent
	send := func() error {
		r, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://127.0.0.1/x/y", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = aSharder(t).WrapTransport(&count).RoundTrip(r) //nolint:bodyclose // there is none
		return err
	}
	if err := send(); err != nil || count != 1 {
		t.Errorf("in flight: %v, %d sent", err, count)
	}
	fenced.Store(true)
	if err := send(); !errors.Is(err, shard.ErrLostOwnership) || count != 1 {
		t.Errorf("fenced: %v, %d sent", err, count)
	}
	fenced.Store(false)
	q.Done(item)
	if err := send(); !errors.Is(err, shard.ErrLostOwnership) || count != 1 {
		t.Errorf("done: %v, %d sent", err, count)
	}
}

type fencedOwnership struct{ atomic.Bool }

func (*fencedOwnership) State(uint64) ring.State { return ring.NotOwned }
func (o *fencedOwnership) Fenced() bool          { return o.Load() }
