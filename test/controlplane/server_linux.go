// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import "syscall"

// processAttributes puts a server into its own process group, so that Ctrl-C reaches only
// the parent, which then stops its servers in order. The kernel also kills the server when
// the parent dies, even if the server is paused.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
