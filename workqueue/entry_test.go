// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package workqueue

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// checkTable fails the test unless each entry is in the map and in the list of its place, and
// the entries that are kept for later hold nothing.
func checkTable[T comparable](t *testing.T, table *table[T]) {
	t.Helper()
	inLists := 0
	for in := range places {
		n := 0
		var last *entry[T]
		table.each(in, func(e *entry[T]) {
			if e.place != in || e.prev != last || table.entries[e.item] != e {
				t.Errorf("%+v is in list %d, after %+v", e, in, last)
			}
			last = e
			n++
		})
		if l := table.lists[in]; l.n != n || l.last != last {
			t.Errorf("list %d has %d entries, the last is %+v, and says %+v", in, n, last, l)
		}
		inLists += n
	}
	if inLists != len(table.entries) {
		t.Errorf("%d entries in lists, %d in the map", inLists, len(table.entries))
	}
	kept := 0
	for e := table.free; e != nil; e = e.next {
		empty := entry[T]{next: e.next}
		if *e != empty {
			t.Errorf("an entry that is kept for later: %+v", e)
		}
		kept++
	}
	if kept != table.nFree || kept > mostFree {
		t.Errorf("%d entries are kept for later, the table says %d", kept, table.nFree)
	}
}

// The lists behave like slices, and the map like a map, also when it is replaced by a smaller
// one after a burst.
func TestTableBehavesLikeSlices(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var sut table[int]
	var want [places][]int
	next, replaced := 0, 0
	for step := range 36_000 {
		growing := step%12_000 < 5_000
		in, to := place(random.IntN(int(places))), place(random.IntN(int(places)))
		size := len(sut.entries)
		peak := sut.peak
		switch n := random.IntN(10); {
		case growing == (n < 8) || size == 0:
			next++
			if e := sut.put(next, uint64(next), false, to); e.task != nil || e.again || e.failed {
				t.Fatalf("step %d: a new entry is %+v", step, e)
			}
			want[to] = append(want[to], next)
		case len(want[in]) == 0:
		case n == 8:
			i := random.IntN(len(want[in]))
			item := want[in][i]
			sut.move(sut.entries[item], to)
			want[in] = slices.Delete(want[in], i, i+1)
			want[to] = append(want[to], item)
		default:
			i := random.IntN(len(want[in]))
			e := sut.entries[want[in][i]]
			e.again, e.failed, e.task = true, true, new(task)
			sut.remove(e)
			want[in] = slices.Delete(want[in], i, i+1)
			if sut.peak < peak {
				replaced++
			}
		}
		if step%1000 != 0 {
			continue
		}
		checkTable(t, &sut)
		for in := range places {
			got := []int{}
			sut.each(in, func(e *entry[int]) { got = append(got, e.item) })
			if diff := cmp.Diff(append([]int{}, want[in]...), got); diff != "" {
				t.Fatalf("step %d, list %d: %s", step, in, diff)
			}
		}
	}
	if replaced == 0 {
		t.Error("the map was never replaced by a smaller one")
	}
}

// A burst leaves neither a large map nor many entries.
func TestTableShrinksAfterABurst(t *testing.T) {
	var sut table[int]
	for item := range 100_000 {
		sut.put(item, 0, false, queued)
	}
	sut.each(queued, sut.remove)
	if sut.peak > fewItems || sut.nFree > mostFree {
		t.Errorf("after the burst: a map for %d items, %d entries kept", sut.peak, sut.nFree)
	}
	checkTable(t, &sut)
}
