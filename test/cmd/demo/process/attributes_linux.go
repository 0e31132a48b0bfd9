// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import "syscall"

// Attributes puts a process into a group of its own, so that a Ctrl-C reaches the
// demo alone; and lets the kernel kill it when the thread ends that started it,
// which must therefore be kept (runtime.LockOSThread) as long as the process.
func Attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
