// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package controlplane

import "syscall"

// processAttributes puts a server into its own process group, so that Ctrl-C reaches only
// the parent, which then stops its servers in order. On these systems, only the pipe on its
// standard input ends a server whose parent has died.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
