// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package podlock

import (
	"fmt"
	"net"

	"github.com/zeebo/xxh3"
)

// Lock is an abstract socket. It exists once in a network namespace, and a Pod has one
// of those. The kernel frees it when its process ends, however it ends.
//
// Only one goroutine at a time may call its methods.
type Lock struct {
	address  string       // empty: not usable
	listener net.Listener // nil: not held
}

// New returns a member's lock, which is not held yet.
func New(m Member) *Lock {
	if m.PodUID == "" {
		return &Lock{}
	}
	identity := fmt.Sprintf("%s/%s/%s/%s", m.Namespace, m.LeasePrefix, m.PodName, m.PodUID)
	return &Lock{address: fmt.Sprintf("@operator-scaling-%016x", xxh3.HashString(identity))} // '@': abstract, no file
}

// Usable reports whether the lock can be acquired at all.
func (l *Lock) Usable() bool { return l.address != "" }

// TryAcquire takes a usable lock if no other process holds it, and reports whether it is
// held now. It does not wait.
func (l *Lock) TryAcquire() bool {
	if l.listener == nil {
		l.listener, _ = net.Listen("unix", l.address) // it is nil if another process holds the lock
	}
	return l.Held()
}

// Held reports whether this process holds the lock.
func (l *Lock) Held() bool { return l.listener != nil }

// Release frees the lock if it is held. The lock is of no use afterwards.
func (l *Lock) Release() {
	if l.listener != nil {
		_ = l.listener.Close()
	}
}
