// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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
		if _, err := shard.WrapTransport(upgrade{}).RoundTrip(r); err != nil { //nolint:bodyclose // it is empty
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
