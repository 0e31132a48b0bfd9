// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package replica

import "syscall"

// processAttributes puts a replica into its own process group, so that Ctrl-C reaches only
// the parent.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
