// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"testing"

	"github.com/tom-ludwig/operator-scaling/shard/inspect"
	"github.com/tom-ludwig/operator-scaling/shard/ring"
)

// reporting returns a report of a member that may work on the partitions of some objects.
func reporting(owned ...object) inspect.Report {
	report := inspect.Report{Partitions: make([]inspect.PartitionReport, ring.DefaultParameters().Partitions)}
	for _, o := range owned {
		report.Partitions[o.partition].State = ring.Active.String()
	}
	return report
}

func owners(b *board) (all []string) {
	for _, o := range b.objects {
		owner := ""
		if m := b.owner(o); m != nil {
			owner = m.name
		}
		all = append(all, owner)
	}
	return all
}

func TestBoardShowsWhatMembersReport(t *testing.T) {
	b := newBoard("d", []string{"a", "b", "c"})
	m0, m1 := b.add("m0", nil), b.add("m1", nil)
	check := func(when string, want ...string) {
		t.Helper()
		if got := owners(b); !slices.Equal(got, want) {
			t.Errorf("owners %s: %q, want %q", when, got, want)
		}
	}
	check("before any response", "", "", "")
	b.observe(m0, reporting(b.objects[0], b.objects[1]), 0)
	b.observe(m1, reporting(b.objects[2]), 0)
	check("after a response of each", "m0", "m0", "m1")
	if m0.phase != active {
		t.Errorf("a member that owns something is %s", m0.phase)
	}
	b.observe(m0, reporting(b.objects[0]), 0)
	b.observe(m1, reporting(b.objects[1], b.objects[2]), 0)
	check("after one moved", "m0", "m1", "m1")

	fencedReport := reporting(b.objects[0])
	fencedReport.Fenced = true
	b.observe(m0, fencedReport, 0)
	check("while one is fenced", "", "m1", "m1")
	if m0.phase != fenced {
		t.Errorf("a fenced member is %s", m0.phase)
	}
	b.enter(m1, killed)
	check("after the other was killed", "", "", "")
}

func TestBoardIsSettledWhenEachObjectIsWithItsOwnerOnTheRing(t *testing.T) {
	b := newBoard("d", []string{"a", "b", "c", "d", "e", "f", "g", "h"})
	m0, m1 := b.add("m0", nil), b.add("m1", nil)
	r := ringOf(t, "m0", "m1")
	var of0, of1 []object
	for _, o := range b.objects {
		if owner, _ := r.Owner(o.partition); owner == "m0" {
			of0 = append(of0, o)
		} else {
			of1 = append(of1, o)
		}
	}
	if len(of0) == 0 || len(of1) == 0 {
		t.Fatal("the ring does not distribute the objects")
	}
	b.observe(m0, reporting(of0...), 0)
	b.observe(m1, reporting(of1[1:]...), 0)
	if b.settled(r) {
		t.Error("settled although one object has no owner")
	}
	b.observe(m0, reporting(b.objects...), 0)
	if b.settled(r) {
		t.Error("settled although objects are with the wrong member")
	}
	b.observe(m0, reporting(of0...), 0)
	b.observe(m1, reporting(of1...), 0)
	if !b.settled(r) {
		t.Error("not settled")
	}
}

func ringOf(t *testing.T, members ...string) *ring.Ring {
	t.Helper()
	r, err := ring.New(ring.DefaultParameters(), members)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestBoardShowsTheRate(t *testing.T) {
	b := newBoard("d", []string{"a", "b"})
	m := b.add("m", nil)
	reconciles := 0
	for range int(rateTime / askEvery) {
		reconciles += 3
		b.observe(m, reporting(b.objects[0]), reconciles)
	}
	reconciles += 3
	b.observe(m, reporting(b.objects[0]), reconciles)
	rows, unowned := b.rows()
	if want := (row{name: "m", phase: active, owned: 1, reconciles: reconciles, rate: 30}); rows[0] != want || unowned != 1 {
		t.Errorf("%+v and %d without an owner, want %+v and 1", rows[0], unowned, want)
	}
	for range int(rateTime / askEvery) {
		b.observe(m, reporting(b.objects[0]), reconciles)
	}
	if rows, _ := b.rows(); rows[0].rate != 0 {
		t.Errorf("%v per second without work", rows[0].rate)
	}
}
