// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import "syscall"

// Attributes puts a process into its own process group, so that Ctrl-C reaches only the
// demo. The kernel also kills the process when the thread that started it ends. That
// thread must therefore be kept (runtime.LockOSThread) as long as the process runs.
func Attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
