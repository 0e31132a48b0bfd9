// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shardtest

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Exclusive detects whether two pieces of work on one key ever overlap, and records the
// version that each key was last worked on at. Its zero value is ready for use. All methods
// may be called from any goroutine.
type Exclusive struct {
	mu       sync.Mutex
	busy     map[string][]*Work // key -> work in flight
	last     map[string]string  // key -> version of the last piece of work that was completed
	overlaps []Overlap
	total    int
}

// Work is one piece of work in flight.
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

// String returns the key, and the member and the start time of both pieces of work.
func (o Overlap) String() string {
	return fmt.Sprintf("%s: %s since %s and %s since %s", o.First.Key,
		o.First.Member, o.First.Since.Format(time.StampMicro), o.Second.Member, o.Second.Since.Format(time.StampMicro))
}

// Begin records that a member starts to work on a key, at the given version of its object.
// A reconciler must call it first, and [Work.End] last.
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

// End records that the work has ended, and whether it was completed. Work that was
// cancelled or failed was not completed.
func (w *Work) End(completed bool) {
	x := w.x
	x.mu.Lock()
	defer x.mu.Unlock()
	x.busy[w.Key] = slices.DeleteFunc(x.busy[w.Key], func(other *Work) bool { return other == w })
	if completed {
		x.last[w.Key] = w.Version
	}
}

// Overlaps returns the overlaps that were detected. A test should fail if there are any.
func (x *Exclusive) Overlaps() []Overlap {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.overlaps)
}

// Lost returns, sorted, the keys without completed work, and those whose last completed work was
// not at the version in want or a later one. If want has the versions of the objects at the end of a test, these are the objects
// whose last version was not reconciled. Versions are compared as numbers if they are numbers.
func (x *Exclusive) Lost(want map[string]string) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var lost []string
	for key, version := range want {
		if last, worked := x.last[key]; !worked || !reaches(last, version) {
			lost = append(lost, key)
		}
	}
	slices.Sort(lost)
	return lost
}

// reaches reports whether a version is the wanted one or later.
func reaches(version, want string) bool {
	v, err := strconv.ParseUint(version, 10, 64)
	w, errWant := strconv.ParseUint(want, 10, 64)
	if err != nil || errWant != nil {
		return version == want
	}
	return v >= w
}

// Total returns how many pieces of work have begun: a test without work proves nothing.
func (x *Exclusive) Total() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.total
}
