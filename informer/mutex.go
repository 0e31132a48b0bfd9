// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package informer

import "sync/atomic"

// A mutex is a lock that is handed over to those that wait for it in their order, so that neither the
// stream nor a replay, which locks it for each object, can keep the other one waiting. They wait for a channel
// because handlers are called with the lock held, and may block: testing/synctest counts a
// goroutine that waits for a channel as blocked, but not one that waits for a sync.Mutex, so that
// controllers with slow handlers could not be tested.
type mutex struct {
	users atomic.Int64  // the holder, and those that wait
	next  chan struct{} // capacity 1: what the holder hands to the next one
}

func newMutex() mutex { return mutex{next: make(chan struct{}, 1)} }

func (m *mutex) lock() {
	if m.users.Add(1) > 1 {
		<-m.next
	}
}

func (m *mutex) tryLock() bool { return m.users.CompareAndSwap(0, 1) }

func (m *mutex) unlock() {
	if m.users.Add(-1) > 0 {
		m.next <- struct{}{} // does not block: the last value was received before this lock was taken
	}
}
