// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shardtest_test

import (
	"fmt"
	"testing"

	"github.com/tom-ludwig/operator-scaling/shard/shardtest"
)

func TestExclusive(t *testing.T) {
	var x shardtest.Exclusive
	a := x.Begin("a", "k", "1")
	x.Begin("a", "other", "1").End(false)
	if len(x.Overlaps()) != 0 {
		t.Errorf("two keys overlap: %v", x.Overlaps())
	}
	b := x.Begin("b", "k", "2")
	if o := x.Overlaps(); len(o) != 1 || o[0].First.Member != "a" || o[0].Second.Member != "b" {
		t.Errorf("overlaps %v, want a and b on k", o)
	}
	a.End(true)
	b.End(true)
	x.Begin("c", "k", "3").End(false)
	if n := len(x.Overlaps()); n != 1 {
		t.Errorf("%d overlaps, want 1: work that has ended overlaps with nothing", n)
	}
	if lost := x.Lost(map[string]string{"k": "3", "other": "1", "never": "1"}); fmt.Sprint(lost) != "[k never other]" {
		t.Errorf("lost %v", lost)
	}
	if lost := x.Lost(map[string]string{"k": "2"}); len(lost) != 0 || x.Total() != 4 {
		t.Errorf("lost %v, total %d", lost, x.Total())
	}
}

// A key without any work is lost, also if its object has no version.
func TestExclusive_LostWithoutAVersion(t *testing.T) {
	var x shardtest.Exclusive
	if lost := x.Lost(map[string]string{"ns/a": ""}); len(lost) != 1 {
		t.Errorf("no work was done, and Lost returns %v", lost)
	}
	x.Begin("a", "ns/a", "").End(true)
	if lost := x.Lost(map[string]string{"ns/a": ""}); len(lost) != 0 {
		t.Errorf("the work was done, and Lost returns %v", lost)
	}
}

func ExampleExclusive() {
	var x shardtest.Exclusive
	reconcile := func(member, key string) { // as a reconciler would
		work := x.Begin(member, key, "1")
		defer work.End(true)
	}
	reconcile("op-0", "default/a")
	reconcile("op-1", "default/a")
	fmt.Println(x.Total(), "reconciles,", len(x.Overlaps()), "at once; lost:", x.Lost(map[string]string{"default/a": "2"}))
	// Output: 2 reconciles, 0 at once; lost: [default/a]
}
