// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package replica

import "syscall"

// processAttributes puts a replica into a process group of its own, so that a
// Ctrl-C reaches the parent alone, and lets the kernel kill it when the parent
// dies, which works for a paused one too.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
