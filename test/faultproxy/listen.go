// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// listen takes a loopback port below the range from which kernels take ports for
// outgoing connections, and beside those of the control plane and of the replicas.
// So no other process is given the port between two runs of the same schedule.
func listen() (*net.TCPListener, error) {
	const low, high, tries = 32000, 32700, 200
	for range tries {
		address := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: low + rand.IntN(high-low)}
		if l, err := net.ListenTCP("tcp4", address); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("no free port between %d and %d on 127.0.0.1", low, high)
}

// reset ends a connection with a TCP reset: its peer gets an error, not an end. It
// may be called in the middle of a read or a write, and more than once.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // fails on one that is closed, as does the rest
	_ = c.Close()
}
