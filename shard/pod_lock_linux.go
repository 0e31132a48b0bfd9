// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"net"

	"github.com/zeebo/xxh3"
)

// lockPod finds out whether another live process has this member's identity: two
// containers of one Pod, or a second process on a developer's machine. It binds an
// abstract socket, which exists once in a network namespace (a Pod has one) and
// which the kernel frees when the process ends, however it ends. alone is true if
// no other process holds it; then an earlier process of this Pod is dead, and its
// Lease may be taken over at once.
func lockPod(c Config) (unlock func(), alone bool) {
	identity := fmt.Sprintf("%s/%s/%s/%s", c.Namespace, c.LeasePrefix, c.PodName, c.PodUID)
	address := fmt.Sprintf("@operator-scaling-%016x", xxh3.HashString(identity)) // '@': abstract, no file
	listener, err := net.Listen("unix", address)
	if err != nil {
		return func() {}, broken == oneProcess
	}
	return func() { _ = listener.Close() }, true
}
