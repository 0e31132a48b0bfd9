// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/cache"
	clientworkqueue "k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard"
	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

// drained is a member with an item in flight whose partition it has begun to drain.
type drained struct {
	*member
	queue   shard.Queue[cache.ObjectName]
	item    cache.ObjectName
	early   context.Context // of the work on the item, requested before the drain
	began   time.Time       // when the drain began
	cluster *shardtest.Cluster
	next    *member // gains the partition; nil if the member stops
}

// startDrain lets a member drain a partition, because it is to stop or because another
// member joins.
func startDrain(t *testing.T, stop bool, change func(*shard.Config)) *drained {
	t.Helper()
	cluster := shardtest.NewCluster()
	d := &drained{member: start(t, cluster.Client("a"), "a", change), cluster: cluster}
	d.queue = shard.NewQueue(d.Sharder, clientworkqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
	t.Cleanup(d.queue.ShutDown)
	time.Sleep(5 * time.Second)
	d.item, _ = twoOfOnePartition(t, manyKeys, "b")
	d.queue.Add(d.item)
	d.queue.Get()
	d.early = d.queue.Context(context.Background(), d.item)
	if stop {
		d.member.stop()
	} else {
		d.next = start(t, cluster.Client("b"), "b")
	}
	for d.OwnsKey(d.item.String()) {
		time.Sleep(time.Millisecond)
	}
	d.began = time.Now()
	return d
}

// after waits until the drain has lasted for a time.
func (d *drained) after(t time.Duration) {
	time.Sleep(time.Until(d.began.Add(t)))
	synctest.Wait()
}

// released fails if the partition is not handed over, or the member has not left, soon.
func (d *drained) released(t *testing.T) {
	t.Helper()
	if d.next == nil {
		time.Sleep(100 * time.Millisecond)
		select {
		case err := <-d.done:
			if err != nil {
				t.Error(err)
			}
			d.done <- nil
		default:
			t.Error("the member has not left")
		}
		return
	}
	time.Sleep(250 * time.Millisecond)
	if !d.next.OwnsKey(d.item.String()) {
		t.Error("the partition was not handed over")
	}
}

func TestDrainGrace(t *testing.T) {
	for name, stop := range map[string]bool{"a handover": false, "a stop": true} {
		run := func(what string, change func(*shard.Config), f func(*testing.T, *drained)) {
			t.Run(name+"/"+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { f(t, startDrain(t, stop, change)) })
			})
		}
		defaults := func(*shard.Config) {}
		run("work that ends within it is not cancelled", defaults, func(t *testing.T, d *drained) {
			d.after(shard.DefaultDrainGrace - 100*time.Millisecond)
			if err := d.early.Err(); err != nil {
				t.Errorf("the context has ended: %v", context.Cause(d.early))
			}
			if d.next != nil && d.next.OwnsKey(d.item.String()) {
				t.Error("the partition was handed over while work on it is in flight")
			}
			d.queue.Done(d.item)
			d.released(t)
		})
		run("work that does not end is cancelled", defaults, func(t *testing.T, d *drained) {
			d.after(2 * time.Second)
			late := d.queue.Context(context.Background(), d.item)
			if late.Err() != nil {
				t.Errorf("a context that was requested within the grace period: %v", context.Cause(late))
			}
			d.after(shard.DefaultDrainGrace + 100*time.Millisecond)
			for _, ctx := range []context.Context{d.early, late} {
				if !errors.Is(context.Cause(ctx), shard.ErrDraining) {
					t.Errorf("the context has ended with %v", context.Cause(ctx))
				}
			}
			if d.next != nil && d.next.OwnsKey(d.item.String()) {
				t.Error("the partition was handed over while work on it is in flight")
			}
			d.queue.Done(d.item)
			d.released(t)
		})
		run("DrainTimeout follows it", defaults, func(t *testing.T, d *drained) {
			d.after(shard.DefaultDrainGrace + shard.DefaultDrainTimeout - time.Second)
			if len(d.done) > 0 {
				t.Fatalf("Run has returned %v", <-d.done)
			}
			d.after(shard.DefaultDrainGrace + shard.DefaultDrainTimeout + time.Second)
			if len(d.done) == 0 {
				t.Fatal("Run has not returned")
			}
			if err := <-d.done; !errors.Is(err, shard.ErrDrainTimeout) {
				t.Errorf("Run has returned %v", err)
			}
			d.queue.Done(d.item)
		})
		run("none", func(c *shard.Config) { c.DrainGrace = -1 }, func(t *testing.T, d *drained) {
			d.after(0)
			if !errors.Is(context.Cause(d.early), shard.ErrDraining) {
				t.Errorf("the context has ended with %v", context.Cause(d.early))
			}
			d.queue.Done(d.item)
			d.released(t)
		})
		run("a fence does not wait", func(c *shard.Config) { c.DrainGrace = time.Minute }, func(t *testing.T, d *drained) {
			d.cluster.Break("a", shardtest.Unreachable)
			d.after(9500 * time.Millisecond)
			if !errors.Is(context.Cause(d.early), shard.ErrFenced) {
				t.Errorf("the context has ended with %v", context.Cause(d.early))
			}
			d.queue.Done(d.item)
		})
	}
}
