// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package replica

import "syscall"

// processAttributes puts a replica into a process group of its own, so that a
// Ctrl-C reaches the parent alone.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
