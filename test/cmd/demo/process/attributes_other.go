// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package process

import "syscall"

// Attributes puts a process into a group of its own, so that a Ctrl-C reaches the
// demo alone.
func Attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
