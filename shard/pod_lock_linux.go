// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"net"

	"github.com/zeebo/xxh3"
)

// podLock is held by one live process of those with one identity: of two containers
// of a Pod, or two processes on a developer's machine. It is an abstract socket, which
// exists once in a network namespace (a Pod has one) and which the kernel frees when
// its process ends, however it ends.
type podLock struct {
	address  string
	listener net.Listener // nil: not held
}

func newPodLock(c Config) *podLock {
	identity := fmt.Sprintf("%s/%s/%s/%s", c.Namespace, c.LeasePrefix, c.PodName, c.PodUID)
	return &podLock{address: fmt.Sprintf("@operator-scaling-%016x", xxh3.HashString(identity))} // '@': abstract, no file
}

// try takes the lock if no other process has it, and reports whether it is held. A
// process that gets it at its start knows that the earlier ones of its Pod are dead.
func (l *podLock) try() bool {
	if l.listener == nil {
		listener, err := net.Listen("unix", l.address)
		if err != nil {
			return broken == oneProcess
		}
		l.listener = listener
	}
	return true
}

func (l *podLock) release() {
	if l.listener != nil {
		_ = l.listener.Close()
	}
}
