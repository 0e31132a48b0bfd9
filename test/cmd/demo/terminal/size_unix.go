// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package terminal

import (
	"os"
	"syscall"
	"unsafe"
)

// Size returns the size of a terminal. It returns false if the file is not a terminal, or
// is one that cannot move its cursor.
func Size(f *os.File) (width, height int, ok bool) {
	var size struct{ rows, columns, x, y uint16 }
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
	if errno != 0 || os.Getenv("TERM") == "dumb" {
		return 0, 0, false
	}
	if size.rows == 0 || size.columns == 0 { // unknown
		return 80, 24, true
	}
	return int(size.columns), int(size.rows), true
}
