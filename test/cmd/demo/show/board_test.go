// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }

// letters returns a board of objects at the points 'a', 'b', 'c', ...
func letters(keys string) *board {
	var all []string
	for _, k := range keys {
		all = append(all, string(k))
	}
	return newBoard(all, func(key string) uint64 { return uint64(key[0]) })
}

func owning(keys string) func(point uint64) bool {
	return func(point uint64) bool { return slices.Contains([]byte(keys), byte(point)) }
}

func owners(b *board) (all []int) {
	for _, o := range b.objects {
		all = append(all, o.owner)
	}
	return all
}

func TestBoardShowsWhatMembersReport(t *testing.T) {
	b := letters("abc")
	m0, m1 := b.add("m0"), b.add("m1")
	if got := owners(b); !slices.Equal(got, []int{noOwner, noOwner, noOwner}) {
		t.Errorf("owners before any response: %v", got)
	}
	b.observe(m0, at(0), at(1), owning("ab"))
	b.observe(m1, at(0), at(1), owning("c"))
	if got := owners(b); !slices.Equal(got, []int{m0, m0, m1}) {
		t.Errorf("owners: %v", got)
	}
	if b.members[m0].phase != active {
		t.Errorf("a member that owns something is %s", b.members[m0].phase)
	}
	// An object that two members report stays with its owner, because the responses are
	// from different times.
	b.observe(m1, at(20), at(21), owning("bc"))
	if got := owners(b); !slices.Equal(got, []int{m0, m0, m1}) {
		t.Errorf("owners while one response is outdated: %v", got)
	}
	b.observe(m0, at(22), at(23), owning("a"))
	if got := owners(b); !slices.Equal(got, []int{m0, m1, m1}) {
		t.Errorf("owners after the next response: %v", got)
	}
}

func TestStepMeasuresTimeWithoutAnOwner(t *testing.T) {
	b := letters("abcd")
	m0, m1 := b.add("m0"), b.add("m1")
	b.observe(m0, at(0), at(1), owning("ab"))
	b.observe(m1, at(0), at(1), owning("cd"))

	b.begin(at(100), func(uint64) int { return m1 }) // m0 leaves
	b.observe(m0, at(100), at(101), owning("ab"))
	b.observe(m0, at(120), at(121), owning("b")) // a was last seen at 100
	b.observe(m1, at(150), at(151), owning("acd"))
	if b.settled() {
		t.Error("settled while b is with m0")
	}
	b.observe(m0, at(200), at(201), owning("")) // b was last seen at 120
	b.observe(m1, at(220), at(221), owning("abcd"))
	if !b.settled() {
		t.Fatal("not settled")
	}
	got := b.finish(m0)
	want := result{took: 121 * time.Millisecond, moved: 2, ideal: 2, longest: 101 * time.Millisecond, median: 101 * time.Millisecond}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestStepCountsFromTheKill(t *testing.T) {
	b := letters("ab")
	m0, m1 := b.add("m0"), b.add("m1")
	b.observe(m0, at(0), at(1), owning("a"))
	b.observe(m1, at(0), at(1), owning("b"))
	b.begin(at(10), func(uint64) int { return m1 })
	b.end(m0, killed, at(12))
	b.observe(m0, at(9), at(13), owning("a")) // was in flight
	if got := owners(b); !slices.Equal(got, []int{noOwner, m1}) {
		t.Errorf("owners after the kill: %v", got)
	}
	b.observe(m1, at(1000), at(1012), owning("ab"))
	if got := b.finish(m0); got.longest != time.Second || got.moved != 1 {
		t.Errorf("%+v, want 1 object without an owner for 1 s", got)
	}
}

func TestStepMeasuresAHandoverWithoutAGap(t *testing.T) {
	b := letters("a")
	m0, m1 := b.add("m0"), b.add("m1")
	b.observe(m0, at(0), at(1), owning("a"))
	b.begin(at(10), func(uint64) int { return m1 })
	b.observe(m1, at(30), at(31), owning("a"))
	b.observe(m0, at(32), at(33), owning(""))
	if got := b.finish(m1); got.longest != 31*time.Millisecond || got.moved != 1 || got.ideal != 1 {
		// Last seen with m0 at 0, first with m1 at 31: at most 31 ms in any case.
		t.Errorf("%+v", got)
	}
}

func TestBoardCountsWork(t *testing.T) {
	b := letters("ab")
	m := b.add("m")
	b.worked(m, "a", at(0))
	b.worked(m, "a", at(500))
	b.worked(m, "unknown", at(1000))
	if got := b.untouched(); got != 1 {
		t.Errorf("%d untouched, want 1", got)
	}
	if got := b.members[m].reconciles; got != 3 {
		t.Errorf("%d reconciles, want 3", got)
	}
	if got := b.members[m].rate.perSecond(at(1000)); got != 1.5 {
		t.Errorf("%v per second, want 1.5", got)
	}
	if got := b.members[m].rate.perSecond(at(2600)); got != 0.5 {
		t.Errorf("%v per second later, want 0.5", got)
	}
}
