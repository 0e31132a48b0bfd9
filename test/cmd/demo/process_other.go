// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package main

import "syscall"

// processAttributes puts a replica into a process group of its own, so that a
// Ctrl-C reaches the demo alone, which then ends its replicas.
func processAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
