// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package worklog

import (
	"fmt"
	"syscall"
	"unsafe"
)

// now asks the kernel, because the monotonic part of a time.Time counts from the start of its
// process and cannot be compared between processes.
func now() int64 {
	const clockMonotonic = 1 // CLOCK_MONOTONIC
	var t syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&t)), 0); errno != 0 {
		panic(fmt.Sprintf("clock_gettime(CLOCK_MONOTONIC): %v", errno)) // every Linux has it
	}
	return t.Nano()
}
