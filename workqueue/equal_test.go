// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/util/workqueue"

	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// TestQ9_EqualsClientGo makes the same random calls on client-go's queue and on one whose
// member owns everything, and compares all results.
func TestQ9_EqualsClientGo(t *testing.T) {
	for seed := range uint64(*seeds) {
		synctest.Test(t, func(t *testing.T) {
			limiter := func() workqueue.TypedRateLimiter[int] {
				return workqueue.NewTypedItemExponentialFailureRateLimiter[int](time.Millisecond, time.Second)
			}
			q := New(limiter(), Options[int]{Ownership: newOwner(ring.Active), Point: pointOfInt})
			want := calls(workqueue.NewTypedRateLimitingQueue(limiter()), seed)
			got := calls(q, seed)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("seed %d: %s", seed, diff)
			}
			checkTable(t, &q.items)
		})
	}
}

// calls makes random calls and returns their results.
func calls(q workqueue.TypedRateLimitingInterface[int], seed uint64) (results []string) {
	random := rand.New(rand.NewPCG(seed, 1))
	var held []int
	note := func(format string, args ...any) { results = append(results, fmt.Sprintf(format, args...)) }
	step := func(item int) {
		switch random.IntN(10) {
		case 0, 1:
			q.Add(item)
		case 2:
			q.AddAfter(item, time.Duration(random.IntN(20)-2)*time.Millisecond)
		case 3:
			q.AddRateLimited(item)
		case 4, 5, 6:
			if q.Len() > 0 || q.ShuttingDown() {
				got, shutdown := q.Get()
				note("Get %d %t", got, shutdown)
				if !shutdown {
					held = append(held, got)
				}
			}
		case 7, 8:
			if len(held) > 0 {
				i := random.IntN(len(held))
				q.Done(held[i])
				held = slices.Delete(held, i, i+1)
			}
		case 9:
			q.Forget(item)
		}
		note("Len %d, %d requeues", q.Len(), q.NumRequeues(item))
	}
	for range 2000 {
		step(random.IntN(12))
		if random.IntN(10) == 0 {
			time.Sleep(time.Duration(random.IntN(5)) * time.Millisecond)
		}
		synctest.Wait() // client-go's goroutine has added what is due
	}
	q.ShutDown()
	for range 100 {
		step(random.IntN(12))
		synctest.Wait()
	}
	for {
		item, shutdown := q.Get()
		note("at the end: %d %t", item, shutdown)
		if shutdown {
			return results
		}
		q.Done(item)
	}
}
