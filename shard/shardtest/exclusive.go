// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shardtest

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Exclusive finds out whether a key is ever worked on by two at once, and what was
// worked on last. Its zero value is ready for use. All methods may be called from
// any goroutine.
type Exclusive struct {
	mu       sync.Mutex
	busy     map[string][]*Work // key -> under way
	last     map[string]string  // key -> version of the last piece of work that was completed
	overlaps []Overlap
	total    int
}

// Work is one piece of work under way.
type Work struct {
	Member  string
	Key     string
	Version string
	Since   time.Time
	x       *Exclusive
}

// Overlap is two pieces of work on one key at the same time, by two members or by one.
type Overlap struct {
	First, Second Work
}

// String tells who worked on what when.
func (o Overlap) String() string {
	return fmt.Sprintf("%s: %s since %s and %s since %s", o.First.Key,
		o.First.Member, o.First.Since.Format(time.StampMicro), o.Second.Member, o.Second.Since.Format(time.StampMicro))
}

// Begin notes that a member begins to work on a key, at some version of its
// object. Call it first thing in a reconciler, and [Work.End] last.
func (x *Exclusive) Begin(member, key, version string) *Work {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.busy == nil {
		x.busy, x.last = map[string][]*Work{}, map[string]string{}
	}
	w := &Work{Member: member, Key: key, Version: version, Since: time.Now(), x: x}
	for _, other := range x.busy[key] {
		x.overlaps = append(x.overlaps, Overlap{*other, *w})
	}
	x.busy[key] = append(x.busy[key], w)
	x.total++
	return w
}

// End notes that the work has ended, and whether it was completed: not if it was
// broken off or failed.
func (w *Work) End(completed bool) {
	x := w.x
	x.mu.Lock()
	defer x.mu.Unlock()
	x.busy[w.Key] = slices.DeleteFunc(x.busy[w.Key], func(other *Work) bool { return other == w })
	if completed {
		x.last[w.Key] = w.Version
	}
}

// Overlaps returns what was found. A test should fail if it isn't empty.
func (x *Exclusive) Overlaps() []Overlap {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.overlaps)
}

// Lost returns the keys whose last completed work was not at the version that is
// wanted, sorted: with the versions that the objects have at the end of a test, the
// objects that were forgotten.
func (x *Exclusive) Lost(want map[string]string) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var lost []string
	for key, version := range want {
		if x.last[key] != version {
			lost = append(lost, key)
		}
	}
	slices.Sort(lost)
	return lost
}

// Total is how many pieces of work have begun: a test without work proves nothing.
func (x *Exclusive) Total() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.total
}
