// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package child

import "syscall"

// attributes put a child into its own process group, so that Ctrl-C reaches only the parent,
// which then stops its children in order. On these systems, a child outlives a killed parent.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
