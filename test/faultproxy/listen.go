// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// listen takes a loopback port below the ephemeral port range, and outside the ranges of
// the control plane and of the replicas. No other process therefore gets the port between
// two runs of the same schedule.
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

// reset closes a connection with a TCP reset, so that its peer gets an error and not the
// end of the stream. It may be called during a read or a write, and more than once.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // fails if it is already closed, as does Close
	_ = c.Close()
}
