// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package leaseserver

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// The errors of a [Store].
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("already exists")
	ErrConflict = errors.New("a condition does not hold")
	ErrExpired  = errors.New("the version is too old")
)

// Object is a stored value with what the server adds to it.
type Object[T any] struct {
	Name    string
	UID     string
	Version string    // resourceVersion
	Created time.Time // to the second
	Value   T
}

// Condition is what a write requires of the object. nil requires nothing.
type Condition struct{ UID, Version *string }

// At returns the condition that an object has exactly this UID and version.
func At(uid, version string) Condition { return Condition{&uid, &version} }

// Change is one write. Before is nil for a creation, After for a deletion.
type Change[T any] struct {
	Name          string
	Version       string
	Before, After *Object[T]
}

// Store is a database of objects of one type. Values are shared with the caller, who must not
// change them. Create it with [NewStore].
type Store[T any] struct {
	// Revision is the resourceVersion of the last write. A caller may raise it, because the
	// writes of other types of objects count too.
	Revision uint64
	// Step returns by how much the next write raises the revision, which must be positive.
	// By default, it is 1.
	Step func() uint64
	// NewUID returns a unique UID. By default, UIDs are lease-1, lease-2, ...
	NewUID func() string

	objects map[string]Object[T]
	log     []Change[T]
	offset  int            // number of changes before log[0], which were compacted or lost in a restore
	base    uint64         // revision before log[0]
	index   map[string]int // version -> number of the change
	uids    int
}

// NewStore returns an empty store.
func NewStore[T any]() *Store[T] {
	s := &Store[T]{objects: map[string]Object[T]{}, index: map[string]int{}, Step: func() uint64 { return 1 }}
	s.NewUID = func() string {
		s.uids++
		return fmt.Sprintf("lease-%d", s.uids)
	}
	return s
}

// Get returns an object, or [ErrNotFound].
func (s *Store[T]) Get(name string) (Object[T], error) {
	o, ok := s.objects[name]
	if !ok {
		return o, ErrNotFound
	}
	return o, nil
}

// List returns all objects, sorted by name.
func (s *Store[T]) List() []Object[T] { return sorted(s.objects) }

func sorted[T any](objects map[string]Object[T]) []Object[T] {
	list := make([]Object[T], 0, len(objects))
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		list = append(list, objects[name])
	}
	return list
}

// Len returns the number of objects.
func (s *Store[T]) Len() int { return len(s.objects) }

// Create stores a new object, or returns [ErrExists].
func (s *Store[T]) Create(name string, now time.Time, value T) (Object[T], error) {
	if _, ok := s.objects[name]; ok {
		return Object[T]{}, ErrExists
	}
	return s.commit(Object[T]{Name: name, UID: s.NewUID(), Created: now.Truncate(time.Second), Value: value}), nil
}

// Update replaces the value of an object. Without the object, it returns [ErrConflict] if
// the condition names a UID, as kube-apiserver does, otherwise [ErrNotFound].
func (s *Store[T]) Update(name string, c Condition, value T) (Object[T], error) {
	o, ok := s.objects[name]
	switch {
	case !ok && c.UID == nil:
		return o, ErrNotFound
	case !ok || !o.Meets(c):
		return Object[T]{}, ErrConflict
	}
	o.Value = value
	return s.commit(o), nil
}

// Delete removes an object, or returns [ErrNotFound] or [ErrConflict].
func (s *Store[T]) Delete(name string, c Condition) error {
	o, ok := s.objects[name]
	switch {
	case !ok:
		return ErrNotFound
	case !o.Meets(c):
		return ErrConflict
	}
	delete(s.objects, name)
	s.record(Change[T]{Name: name, Before: &o})
	return nil
}

// Meets reports whether the object meets a condition.
func (o Object[T]) Meets(c Condition) bool {
	return (c.UID == nil || *c.UID == o.UID) && (c.Version == nil || *c.Version == o.Version)
}

func (s *Store[T]) commit(o Object[T]) Object[T] {
	c := Change[T]{Name: o.Name, After: &o}
	if before, ok := s.objects[o.Name]; ok {
		c.Before = &before
	}
	s.record(c)
	return o
}

// record gives a change the next version and adds it to the history.
func (s *Store[T]) record(c Change[T]) {
	s.Revision += s.Step()
	c.Version = s.Version()
	if c.After != nil {
		c.After.Version = c.Version
		s.objects[c.Name] = *c.After
	}
	s.index[c.Version] = s.End()
	s.log = append(s.log, c)
}

// Version returns the resourceVersion of the last write.
func (s *Store[T]) Version() string { return strconv.FormatUint(s.Revision, 10) }

// End returns the number of the next change. Changes are numbered from 0.
func (s *Store[T]) End() int { return s.offset + len(s.log) }

// First returns the number of the first change in the history.
func (s *Store[T]) First() int { return s.offset }

// Change returns the change with a number. It must be in the history.
func (s *Store[T]) Change(n int) Change[T] { return s.log[n-s.offset] }

// Find returns the number of the change that has the version, if it is in the history.
func (s *Store[T]) Find(version string) (n int, ok bool) {
	n, ok = s.index[version]
	return n, ok && n >= s.offset
}

// After returns the number of the first change after a version, or [ErrExpired] if changes
// after it are no longer in the history.
func (s *Store[T]) After(version string) (int, error) {
	revision, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("resourceVersion %q: %w", version, err)
	}
	n := s.End()
	for ; n > s.offset; n-- {
		if at, _ := strconv.ParseUint(s.log[n-1-s.offset].Version, 10, 64); at <= revision {
			return n, nil
		}
	}
	if revision < s.base {
		return 0, ErrExpired
	}
	return n, nil
}

// Past returns the objects as they were before the change with a number.
func (s *Store[T]) Past(n int) []Object[T] {
	objects := maps.Clone(s.objects)
	for i := s.End() - 1; i >= n; i-- {
		if c := s.Change(i); c.Before != nil {
			objects[c.Name] = *c.Before
		} else {
			delete(objects, c.Name)
		}
	}
	return sorted(objects)
}

// Compact drops the history: watches must start from the present version.
func (s *Store[T]) Compact() { s.offset, s.base, s.log = s.End(), s.Revision, nil }

// Backup is the state of a store at one moment.
type Backup[T any] struct {
	revision uint64
	objects  map[string]Object[T]
}

// BackUp returns the present state.
func (s *Store[T]) BackUp() Backup[T] { return Backup[T]{s.Revision, maps.Clone(s.objects)} }

// Restore returns to the state of a backup, and drops the history. Versions continue from
// that of the backup, so they are given a second time.
func (s *Store[T]) Restore(b Backup[T]) {
	s.Revision, s.objects, s.index = b.revision, maps.Clone(b.objects), map[string]int{}
	s.Compact()
}

// EventType is what a watch shows of a change, as in package watch of apimachinery.
type EventType string

// The types of events.
const (
	Added    EventType = "ADDED"
	Modified EventType = "MODIFIED"
	Deleted  EventType = "DELETED"
)

// Event returns what a watch with a selector shows of the change. An object that begins to
// match is added. One that ceases to match is deleted: the event shows its last value that
// matched, with the version of the change. ok is false if the watch shows nothing.
func (c Change[T]) Event(selects func(T) bool) (event EventType, o Object[T], ok bool) {
	was := c.Before != nil && selects(c.Before.Value)
	is := c.After != nil && selects(c.After.Value)
	switch {
	case is && was:
		return Modified, *c.After, true
	case is:
		return Added, *c.After, true
	case was:
		o = *c.Before
		o.Version = c.Version
		return Deleted, o, true
	}
	return "", o, false
}
