// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

func newGainedTestQueue(o Ownership) *Queue[int] {
	return New(workqueue.DefaultTypedControllerRateLimiter[int](), Options[int]{Ownership: o, Point: pointOfInt})
}

// take gets and ends n items.
func take(q *Queue[int], n int) (items []int) {
	for range n {
		item, _ := q.Get()
		items = append(items, item)
		q.Done(item)
	}
	return items
}

func TestQ12_GainedItemsMakeWay(t *testing.T) {
	q := newGainedTestQueue(newOwner(ring.Active))
	defer q.ShutDown()
	for i := range 20 {
		q.AddGained(i)
	}
	for i := range 12 {
		q.Add(100 + i)
	}
	q.Add(3)         // waits as a gained item, and is a live one now
	q.AddGained(5)   // is known
	q.AddGained(100) // is known, and stays a live one
	if n := q.Len(); n != 32 {
		t.Errorf("%d items wait", n)
	}
	want := []int{100, 101, 102, 103, 104, 105, 106, 0, 107, 108, 109, 110, 111, 3, 1, 2, 4, 5}
	if diff := cmp.Diff(want, take(q, len(want))); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	q.Add(200) // arrives during the replay
	if item, _ := q.Get(); item != 200 {
		t.Errorf("a live item waits behind gained item %d", item)
	}
}

// There are always live items. The gained ones get their share.
func TestQ12_GainedItemsAreNotStarved(t *testing.T) {
	q := newGainedTestQueue(newOwner(ring.Active))
	defer q.ShutDown()
	for i := range 10 {
		q.AddGained(i)
	}
	n := 0
	for i := range 10 * gainedShare {
		q.Add(1000 + 2*i)
		q.Add(1001 + 2*i)
		if item, _ := q.Get(); item < 1000 {
			n++
		}
	}
	if n != 10 {
		t.Errorf("%d of 10 gained items were handed out", n)
	}
}

// What holds for queued items holds for gained ones.
func TestQ12_GainedItemsFollowTheOwnership(t *testing.T) {
	o := newOwner(ring.Active)
	recorder := new(countingRecorder)
	q := New(workqueue.DefaultTypedControllerRateLimiter[int](), Options[int]{Ownership: o, Point: pointOfInt, Recorder: recorder})
	q.AddGained(1)
	q.AddGained(2)
	q.AddGained(3)
	o.set(1, ring.NotOwned)
	o.set(2, ring.Pending)
	q.Readmit()
	if q.Len() != 1 || q.Parked() != 1 || recorder.dropped.Load() != 1 {
		t.Errorf("%d queued, %d parked, %d dropped", q.Len(), q.Parked(), recorder.dropped.Load())
	}
	q.AddGained(4)
	o.set(4, ring.NotOwned) // noticed by Get, without Readmit
	if got := take(q, 1); got[0] != 3 {
		t.Errorf("handed out %v", got)
	}
	o.set(2, ring.Active)
	q.Readmit()
	if got := take(q, 1); got[0] != 2 {
		t.Errorf("handed out %v", got)
	}
	o.set(5, ring.NotOwned)
	q.AddGained(5)
	o.set(6, ring.Pending)
	q.AddGained(6)
	if q.Len() != 0 || q.Parked() != 1 {
		t.Errorf("%d queued, %d parked", q.Len(), q.Parked())
	}
	q.AddGained(7)
	q.ShutDown()
	q.AddGained(8)
	if item, shutdown := q.Get(); item != 7 || shutdown {
		t.Errorf("after ShutDown: %d, %v", item, shutdown)
	}
	q.Done(7)
	if _, shutdown := q.Get(); !shutdown || !q.Closed() {
		t.Error("the queue is not closed")
	}
}

// 33,000 gained objects at 10 ms and 8 workers take 41 s. A live item must not wait for them.
func TestQ12_LiveItemsDoNotWaitForAReplay(t *testing.T) {
	for name, test := range map[string]struct {
		add  func(*Queue[int], int)
		most time.Duration
	}{
		"AddGained": {(*Queue[int]).AddGained, 20 * time.Millisecond},
		"Add":       {(*Queue[int]).Add, time.Minute}, // first in, first out
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newGainedTestQueue(newOwner(ring.Active))
				const objects, live = 33_000, 1_000_000
				began, ended := time.Now(), make(chan time.Duration, 1)
				for i := range objects {
					test.add(q, i)
				}
				var workers sync.WaitGroup
				for range 8 {
					workers.Go(func() {
						for item, shutdown := q.Get(); !shutdown; item, shutdown = q.Get() {
							time.Sleep(10 * time.Millisecond)
							q.Done(item)
							if item == live {
								ended <- time.Since(began)
							}
						}
					})
				}
				time.Sleep(time.Second)
				q.Add(live)
				q.ShutDown()
				workers.Wait()
				took := <-ended - time.Second
				t.Logf("%v after it was added, and the replay took %v", took, time.Since(began))
				if took > test.most {
					t.Errorf("the live item was done after %v, want %v at most", took, test.most)
				}
				if all := time.Since(began); all > 42*time.Second {
					t.Errorf("the replay took %v", all)
				}
			})
		})
	}
}

// BenchmarkReplay measures how many items are handed out before a live one that is added while
// 33,000 gained ones wait, and the cost of an item.
func BenchmarkReplay(b *testing.B) {
	for name, add := range map[string]func(*Queue[int], int){"Add": (*Queue[int]).Add, "AddGained": (*Queue[int]).AddGained} {
		b.Run(fmt.Sprint("live behind 33000 by ", name), func(b *testing.B) {
			ahead, rounds := 0, 0
			for b.Loop() {
				q := newGainedTestQueue(newOwner(ring.Active))
				for i := range 33_000 {
					add(q, i)
				}
				q.Add(1_000_000)
				for item := -1; item != 1_000_000; ahead++ {
					item, _ = q.Get()
					q.Done(item)
				}
				rounds++
				q.ShutDown()
			}
			b.ReportMetric(float64(ahead-rounds)/float64(rounds), "items-ahead")
		})
	}
}
