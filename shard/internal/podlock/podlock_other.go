// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package podlock

// Lock is never usable here: it cannot be determined whether another live process has
// this member's identity. No process waits for it, and a Lease that an earlier process
// left is not taken over before it has expired.
type Lock struct{}

// New returns a lock that is not usable.
func New(Member) *Lock { return &Lock{} }

// Usable returns false.
func (*Lock) Usable() bool { return false }

// TryAcquire returns false.
func (*Lock) TryAcquire() (held bool, err error) { return false, nil }

// Held returns false.
func (*Lock) Held() bool { return false }

// Release does nothing.
func (*Lock) Release() {}
