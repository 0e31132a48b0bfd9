// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package informer

import (
	"syscall"
	"time"
)

// CPU time is a fairer measure than the clock if other processes use the CPUs too.
func init() {
	cpuTime = func() time.Duration {
		var used syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
			return 0
		}
		return time.Duration(used.Utime.Nano() + used.Stime.Nano())
	}
}
