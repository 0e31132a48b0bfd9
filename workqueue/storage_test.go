// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The table behaves like a map, at all sizes around the size at which it starts to use one.
func TestTableBehavesLikeAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var sut table[int]
	want := map[int]uint64{}
	for step := range 20_000 {
		item := random.IntN(3 * fewItems)
		_, there := want[item]
		if w := sut.find(item); (w != nil) != there || there && w.point != want[item] {
			t.Fatalf("step %d: find(%d) = %v, want %v", step, item, w, want[item])
		}
		switch {
		case !there:
			sut.put(item, location{point: uint64(step)}, time.Duration(step))
			want[item] = uint64(step)
		case random.IntN(2) == 0:
			sut.find(item).ensureTask().cause = ErrDone
			if w, found := sut.take(item); !found || w.task == nil || w.task.cause != ErrDone {
				t.Fatalf("step %d: take(%d) = %v, %v", step, item, w, found)
			}
			delete(want, item)
		default:
			if w, found := sut.take(item); !found || w.task != nil {
				t.Fatalf("step %d: take(%d) = %v, %v: missing, or another item's", step, item, w, found)
			}
			delete(want, item)
		}
		if _, found := sut.take(-1); found {
			t.Fatalf("step %d: take found an item that is not in the table", step)
		}
		got := map[int]uint64{}
		sut.each(func(item int, w *work) { got[item] = w.point })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("step %d: %s", step, diff)
		}
	}
	for item := range want {
		sut.take(item)
	}
	if diff := cmp.Diff([fewItems]slot[int]{}, sut.few, cmp.AllowUnexported(slot[int]{}, work{}, location{})); diff != "" {
		t.Errorf("an empty table keeps items: %s", diff)
	}
}

// The circular buffer behaves like a slice.
func TestFIFOBehavesLikeASlice(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var sut fifo[int]
	var want []int
	growing := true
	for step := range 100_000 {
		if len(want) > 2*fifoKept {
			growing = false
		} else if len(want) == 0 {
			growing = true
		}
		if push := random.IntN(3) > 0 == growing; push || len(want) == 0 {
			sut.Push(step + 1)
			want = append(want, step+1)
		} else {
			if got := sut.Pop(); got != want[0] {
				t.Fatalf("step %d: Pop = %d, want %d", step, got, want[0])
			}
			want = want[1:]
		}
		if sut.Len() != len(want) {
			t.Fatalf("step %d: Len = %d, want %d", step, sut.Len(), len(want))
		}
		inUse := 0
		if len(want) == 0 {
			for _, item := range sut.ring {
				if item != 0 {
					inUse++
				}
			}
			if inUse > 0 || len(sut.ring) > fifoKept {
				t.Fatalf("step %d: empty, but %d of %d slots keep an item", step, inUse, len(sut.ring))
			}
		}
	}
}
