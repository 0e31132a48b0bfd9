// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package replica

import "syscall"

// processAttributes puts a replica into its own process group, so that Ctrl-C reaches only
// the parent. The kernel also kills the replica when the parent dies, even if the replica
// is paused.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
