// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"net"

	"github.com/zeebo/xxh3"
)

// podLock is held by one live process of those of a Pod: of two containers, or of two
// processes on a developer's machine. It is an abstract socket, which exists once in
// a network namespace (a Pod has one) and which the kernel frees when its process
// ends, however it ends.
type podLock struct {
	address  string       // empty: without a UID no Lease is taken over, and no lock needed
	listener net.Listener // nil: not held
}

func newPodLock(c Config, podUID string) *podLock {
	if podUID == "" {
		return &podLock{}
	}
	identity := fmt.Sprintf("%s/%s/%s/%s", c.Namespace, c.LeasePrefix, c.PodName, podUID)
	return &podLock{address: fmt.Sprintf("@operator-scaling-%016x", xxh3.HashString(identity))} // '@': abstract, no file
}

func (l *podLock) usable() bool { return l.address != "" }

// try takes the lock if no other process has it, and reports whether it is held.
func (l *podLock) try() bool {
	if l.listener == nil {
		l.listener, _ = net.Listen("unix", l.address) // it is nil if another process has it
	}
	return l.held()
}

func (l *podLock) held() bool { return l.listener != nil }

func (l *podLock) release() {
	if l.listener != nil {
		_ = l.listener.Close()
	}
}
