// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package podlock

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

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

// held has the locks that this process holds. The garbage collector would close the socket of
// a lock that nothing refers to.
var held sync.Map

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
// held now. It does not wait. With an error it is not known whether another process holds
// the lock: the kernel refused the socket for another reason, for instance a seccomp
// profile or too many open files.
func (l *Lock) TryAcquire() (ok bool, err error) {
	if l.listener != nil {
		return true, nil
	}
	listener, err := net.Listen("unix", l.address)
	switch {
	case err == nil:
		l.listener = listener
		held.Store(l, nil)
		return true, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return false, nil
	}
	return false, err
}

// Held reports whether this process holds the lock.
func (l *Lock) Held() bool { return l.listener != nil }

// Release frees the lock if it is held. The lock is of no use afterwards.
func (l *Lock) Release() {
	if l.listener != nil {
		held.Delete(l)
		_ = l.listener.Close()
	}
}
