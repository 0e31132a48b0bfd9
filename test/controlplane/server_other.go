// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package controlplane

import "syscall"

// processAttributes puts a server into a process group of its own, so that a
// Ctrl-C reaches the parent alone, which then ends its servers in order. What ends
// a server whose parent died is here the pipe on its standard input alone.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
