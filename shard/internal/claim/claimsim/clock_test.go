// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package claimsim

import (
	"time"

	"github.com/tom-ludwig/operator-scaling/shard/internal/claim"
)

// clock is the clock of one process. It runs at its own rate. The monotonic part can stand
// still while the wall part advances (a frozen virtual machine), and the wall part can jump.
type clock struct {
	w      *sim
	rate   float64
	frozen bool
	readAt time.Duration // virtual time of the reading below
	read   claim.Time
}

func newClock(w *sim, rate float64) clock {
	return clock{w: w, rate: rate, readAt: w.now, read: claim.Time{
		Mono: w.between(time.Second, 1000*time.Hour),
		Wall: 1_700_000_000*time.Second + w.now + w.between(-time.Hour, time.Hour),
	}}
}

// now reads both clocks.
func (c *clock) now() claim.Time {
	passed := time.Duration(float64(c.w.now-c.readAt) * c.rate)
	t := c.read
	t.Wall += passed
	if !c.frozen {
		t.Mono += passed
	}
	return t
}

func (c *clock) settle() { c.read, c.readAt = c.now(), c.w.now }

func (c *clock) freeze(frozen bool) {
	c.settle()
	c.frozen = frozen
}

func (c *clock) jump(by time.Duration) {
	c.settle()
	c.read.Wall += by
}

// real converts a duration on this clock to virtual time, rounded up so that a timer never
// fires early.
func (c *clock) real(d time.Duration) time.Duration {
	return time.Duration(float64(d)/c.rate) + time.Microsecond
}

// until returns the virtual time until either clock reaches t.
func (c *clock) until(t claim.Time) time.Duration {
	now := c.now()
	return max(0, c.real(min(t.Mono-now.Mono, t.Wall-now.Wall)))
}
