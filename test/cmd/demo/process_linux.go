// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import "syscall"

// processAttributes puts a process into a group of its own, so that a Ctrl-C
// reaches the demo alone, which then ends what it has started; and lets the kernel
// kill it when the demo dies.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
