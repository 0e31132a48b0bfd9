// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package child

import "syscall"

// attributes put a child into its own process group, so that Ctrl-C reaches only the parent,
// which then stops its children in order. The kernel also kills the child when the parent
// dies, even if the child is paused.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
